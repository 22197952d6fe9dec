"""What a run's processes have used so far, from ``/proc``: CPU seconds by part, and memory."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PARTS = ("workers", "supervisor", "redis")


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds since the start by part of the service, and MB of memory now.

    ``memory_mb`` is proportional set size: a page that several processes share is counted once, in parts."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    memory_mb: float = 0.0

    @property
    def total_s(self) -> float:
        """CPU seconds of all parts."""
        return sum(self.cpu_s.values())


def used(root: int) -> Used:
    """The use of a process and all its descendants. One that has ended counts in its parent's part."""
    cpu_s = dict.fromkeys(PARTS, 0.0)
    memory = 0.0
    for pid in family(root):
        with contextlib.suppress(OSError):  # it ended while we looked
            spent = cpu_of(pid)
            cpu_s["supervisor" if pid == root else _part(pid)] += spent
            memory += memory_mb(pid)
    return Used(cpu_s, memory)


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
    """The fields of ``/proc/PID/stat`` from the third on; a name may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
