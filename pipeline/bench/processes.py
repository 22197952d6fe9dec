"""What a run's processes have used so far, from ``/proc``: CPU seconds by part, and memory."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PARTS = ("workers", "supervisor", "redis")


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds since the start by part of the service and by thread of the workers; MB of memory now.

    ``memory_mb`` is proportional set size: a page that several processes share is counted once, in parts."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0
    threads_s: dict[int, float] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """CPU seconds of all parts."""
        return sum(self.cpu_s.values())


def used(root: int) -> Used:
    """The use of a process and all its descendants. One that has ended counts in its parent's part."""
    cpu_s = dict.fromkeys(PARTS, 0.0)
    memory, threads = 0.0, dict[int, float]()
    for pid in family(root):
        with contextlib.suppress(OSError):  # it ended while we looked
            spent, part = cpu_of(pid), "supervisor" if pid == root else _part(pid)
            cpu_s[part] += spent
            memory += memory_mb(pid)
            threads |= threads_of(pid) if part == "workers" else {}
    return Used(cpu_s, memory, threads)


def family(root: int) -> list[int]:
    """``root`` and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int(_stat(int(folder.name))[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_of(pid: int) -> float:
    """User and system CPU seconds of a process and of its children that have ended and were waited for."""
    return sum(int(ticks) for ticks in _stat(pid)[11:15]) * TICK_S


def threads_of(pid: int) -> dict[int, float]:
    """CPU seconds of each thread of a process."""
    spent = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it ended while we looked
            spent[int(folder.name)] = sum(map(int, _fields(folder / "stat")[11:13])) * TICK_S
    return spent


def machine_s() -> float:
    """CPU seconds that the whole machine has spent since it started, on us, on others and on its host."""
    ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    idle, waiting = int(ticks[3]), int(ticks[4])
    return (sum(map(int, ticks)) - idle - waiting) * TICK_S


def memory_mb(pid: int) -> float:
    """MB of a process, shared pages in proportion."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:"))
    return int(kilobytes) * 1024 / 1e6


def _part(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    if b"valkey" in command or b"redis-server" in command:
        return "redis"
    return "workers" if b"spawn_main" in command else "supervisor"


def _stat(pid: int) -> list[str]:
    return _fields(Path(f"/proc/{pid}/stat"))


def _fields(stat: Path) -> list[str]:
    """The fields of a ``stat`` file of /proc from the third on; a name may hold spaces and brackets."""
    return stat.read_text().rpartition(")")[2].split()
