"""Freed memory goes back to the system, holes and all."""

import subprocess
import sys

FULL_OF_HOLES = """
import ctypes
from pipeline.service.memory import TRIM_S, Trimmer

def held():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
before = held()
taken = [libc.malloc(65536) for _ in range(1000)]
for place in taken:
    libc.memset(place, 1, 65536)
for number, place in enumerate(taken):
    if number % 20:
        libc.free(place)
trimmer = Trimmer(100.0)
trimmer.step(100.0 + TRIM_S - 1)
early = held()
trimmer.step(100.0 + TRIM_S)
print(early - before, held() - before)
"""


def test_what_was_freed_goes_back_once_a_minute() -> None:
    """1,000 pieces of 64 KiB, of which 950 are freed, the others spread over all of them."""
    done = subprocess.run([sys.executable, "-c", FULL_OF_HOLES], capture_output=True, text=True, check=True)
    early_mb, late_mb = map(float, done.stdout.split())
    assert early_mb > 50
    assert late_mb < 10
