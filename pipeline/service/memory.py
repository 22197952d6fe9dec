"""What is done so that the memory a process holds follows what it needs."""

import ctypes
from contextlib import AbstractContextManager

from pipeline.config import preset

TUNABLES = "GLIBC_TUNABLES"
_SURFACE_BYTES = 384 * 1024
"""Less than a plane of a 1080p picture, more than any step of converting one to 256 x 256 takes."""
BOUNDS = f"glibc.malloc.arena_max=2:glibc.malloc.tcache_max=256:glibc.malloc.mmap_threshold={_SURFACE_BYTES}"
"""For a process of many threads (glibc's manual, "Memory Allocation Tunables"). Each thread would keep up to
2 MB of freed surfaces, and seven freed pieces of every size up to 1 kB, which no trim gives back: in a worker
of 20 streams 3 MB, gathered over an hour. And surfaces would lie among small things: what an audit has freed,
25 MB, would stay with the process for up to a minute, as would what an engine needs to be compiled."""
TRIM_S = 60.0
"""How often freed memory goes back to the system; that takes milliseconds, and pages are got again."""


def bounded() -> AbstractContextManager[None]:
    """A process that is started within keeps to ``BOUNDS``, unless the user's own settings say otherwise."""
    return preset(TUNABLES, BOUNDS)


class Trimmer:
    """Gives freed memory back to the system now and then.

    glibc does so by itself only at the end of an arena. Pictures and packets of all sizes leave holes before
    it, which grew by 2 MB an hour in a worker of 20 streams while the memory in use stayed the same."""

    def __init__(self, now: float) -> None:
        self._trimmed = now

    def step(self, now: float) -> None:
        """Trim if it is time; ``now`` is monotonic seconds."""
        if now - self._trimmed >= TRIM_S:
            self._trimmed = now
            ctypes.CDLL(None).malloc_trim(0)
