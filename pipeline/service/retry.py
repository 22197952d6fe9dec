"""When to call again on a source that is away: fast for a blip, gentle for an outage, never all at once."""

import fcntl
import os
import random
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FIRST_S = 0.5
MOST_S = 5.0
OUTAGE_S = 600.0
OUTAGE_MOST_S = 30.0
CONNECTS_PER_HOST = 8
POLL_S = 0.1


class Backoff:
    """Waits between attempts: full jitter under a bound that doubles from 0.5 s to 5 s, to 30 s after ten
    minutes.

    Full jitter after https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bound = FIRST_S
        self._down_since: float | None = None

    def succeeded(self) -> None:
        """The source answered: the next failure starts from the first wait again."""
        self._bound = FIRST_S
        self._down_since = None

    def next_wait(self, now: float) -> float:
        """Seconds to wait after a failure at monotonic time ``now``."""
        if self._down_since is None:
            self._down_since = now
        most = OUTAGE_MOST_S if self.is_outage(now) else MOST_S
        wait = self._rng.uniform(0.0, min(self._bound, most))
        self._bound = min(self._bound * 2, OUTAGE_MOST_S)
        return wait

    def is_outage(self, now: float) -> bool:
        """Whether the source has been away for ten minutes."""
        return self._down_since is not None and now - self._down_since >= OUTAGE_S


class HostGate:
    """At most eight connects at once to a host, so that a switch that comes back is not stormed.

    With ``path``, eight of all processes that share that file: a place is a locked byte of it, which a
    process that dies gives back. Hosts whose names have one checksum share their places.

    Whoever waits to call again on a host is told when it answers somebody after ``MOST_S`` of silence: all of
    its streams are then back after one wait, not each after its own. One that answers now and then, and fails
    again, is called by each in its own time."""

    def __init__(self, path: Path | None = None, each: int = CONNECTS_PER_HOST) -> None:
        self._path = path
        self._each = each
        self._file: int | None = None
        self._held: set[int] = set()  # by this process: its threads do not lock each other out
        self._lock = threading.Lock()
        self._answered: dict[str, float] = {}  # monotonic seconds
        self._returned: dict[str, float] = {}
        self._returns = threading.Condition()

    def pause(self, host: str, seconds: float, stop: threading.Event) -> None:
        """Wait so long before the next attempt, or until the host is back, or ``stop`` is set."""
        until = time.monotonic() + seconds
        with self._returns:
            before = self._returned.get(host)
            while self._returned.get(host) == before and not stop.is_set():
                left = until - time.monotonic()
                if left <= 0.0:
                    return
                self._returns.wait(min(left, POLL_S))

    def _note_answer(self, host: str) -> None:
        with self._returns:
            now = time.monotonic()
            if now - self._answered.get(host, float("-inf")) >= MOST_S:
                self._returned[host] = now
                self._returns.notify_all()
            self._answered[host] = now

    @contextmanager
    def connecting(self, host: str, stop: threading.Event) -> Iterator[None]:
        """Wait for a place; goes on without one when ``stop`` is set. The block raises when the host does not
        answer."""
        place = self._take(host)
        while place is None and not stop.wait(POLL_S):
            place = self._take(host)
        try:
            yield
            self._note_answer(host)
        finally:
            if place is not None:
                self._give_back(place)

    def _take(self, host: str) -> int | None:
        first = zlib.crc32(host.encode()) * self._each
        with self._lock:
            for place in range(first, first + self._each):
                if place not in self._held and self._claim(place):
                    self._held.add(place)
                    return place
            self._close_unused()
        return None

    def _claim(self, place: int) -> bool:
        """Lock a place among all processes; where no file can be locked (a full disk), among ours only."""
        if self._path is None:
            return True
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _give_back(self, place: int) -> None:
        with self._lock, suppress(OSError):
            self._held.remove(place)
            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
            self._close_unused()

    def _close_unused(self) -> None:
        if self._file is not None and not self._held:
            os.close(self._file)
            self._file = None
