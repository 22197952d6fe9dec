"""Freed memory goes back to the system, holes and all."""

import subprocess
import sys

import pytest

from pipeline.service.memory import TUNABLES, bounded

HELD = """
import ctypes

def held():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
before = held()
"""
FULL_OF_HOLES = (
    "from pipeline.service.memory import TRIM_S, Trimmer"
    + HELD
    + """
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
)


def test_what_was_freed_goes_back_once_a_minute() -> None:
    """1,000 pieces of 64 KiB, of which 950 are freed, the others spread over all of them."""
    done = subprocess.run([sys.executable, "-c", FULL_OF_HOLES], capture_output=True, text=True, check=True)
    early_mb, late_mb = map(float, done.stdout.split())
    assert early_mb > 50
    assert late_mb < 10


SURFACES = (
    HELD
    + """
libc.free(libc.malloc(16_000_000))  # from then on glibc would put all that is smaller among the small things
sizes = [1920 * 1080, 960 * 540, 960 * 540, 64] * 10
taken = [libc.malloc(size) for size in sizes]
for place, size in zip(taken, sizes):
    libc.memset(place, 1, size)
full = held()
for number, place in enumerate(taken):
    if number % 4 < 3:
        libc.free(place)
print(full - before, held() - before)
"""
)


def left_mb() -> float:
    """What is held after ten freed pictures of 3 MB, with something small behind each."""
    done = subprocess.run([sys.executable, "-c", SURFACES], capture_output=True, text=True, check=True)
    full_mb, after_mb = map(float, done.stdout.split())
    assert full_mb > 25
    return after_mb


def test_a_bounded_process_holds_no_surface_that_was_freed() -> None:
    assert left_mb() > 25
    with bounded():
        assert left_mb() < 2


MANY_THREADS = """
import ctypes, threading

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks "
                "uordblks fordblks keepcost".split()]

libc.mallinfo2.restype = Counts
freed, counted = threading.Barrier(31), threading.Event()

def run():
    taken = [libc.malloc(size) for size in range(304, 1024, 16) for _ in range(7)]
    for place in taken:
        libc.free(place)
    freed.wait()
    counted.wait()

before = libc.mallinfo2().uordblks
threads = [threading.Thread(target=run) for _ in range(30)]
for thread in threads:
    thread.start()
freed.wait()
print((libc.mallinfo2().uordblks - before) / 1e6)
counted.set()
"""


def kept_mb() -> float:
    """What malloc counts as in use after 30 threads have freed all that they took."""
    return float(subprocess.run([sys.executable, "-c", MANY_THREADS], capture_output=True, check=True).stdout)


def test_a_bounded_process_keeps_no_freed_pieces_for_each_of_its_threads() -> None:
    """Seven of each of 45 sizes are 0.2 MB a thread: 6 MB where nothing is bounded."""
    assert kept_mb() > 4
    with bounded():
        assert kept_mb() < 2


def test_the_users_own_settings_of_malloc_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TUNABLES, "glibc.malloc.tcache_max=1032")
    with bounded():
        assert kept_mb() > 4
