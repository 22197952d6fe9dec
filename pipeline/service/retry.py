"""When to call again on a source that is away: fast for a blip, gentle for an outage, never all at once."""

import fcntl
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.inputs import Server

FIRST_S = 0.5
MOST_S = 5.0
OUTAGE_S = 600.0
OUTAGE_MOST_S = 30.0
CONNECTS_PER_HOST = 8
SETTLE_S = 1.0
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


@dataclass(slots=True, eq=False)
class _Place:
    """One of those that may connect; another's from ``until`` on (monotonic seconds)."""

    number: int
    until: float = float("inf")


class HostGate:
    """At most eight connects at once to a host, so that a switch that comes back is not stormed. Where the
    server has answered, but its first pictures take their time, the place is another's after ``SETTLE_S``.

    With ``path``, eight of all processes that share that file: a place is a locked byte of it, which a
    process that dies gives back. Hosts whose names have one checksum share their places.

    Whoever waits to call again on a server is told when it answers somebody after ``MOST_S`` of silence: all
    of its streams are then back after one wait, not each after its own. One that answers now and then, and
    fails again, is called by each in its own time."""

    def __init__(self, path: Path | None = None, each: int = CONNECTS_PER_HOST) -> None:
        self._path = path
        self._each = each
        self._file: int | None = None
        self._held: dict[int, _Place] = {}  # by this process: its threads do not lock each other out
        self._lock = threading.Lock()
        self._answered: dict[Server, float] = {}  # monotonic seconds
        self._returned: dict[Server, float] = {}
        self._returns = threading.Condition()

    def pause(self, server: Server, seconds: float, stop: threading.Event) -> None:
        """Wait so long before the next attempt, or until the server is back, or ``stop`` is set."""
        until = time.monotonic() + seconds
        with self._returns:
            before = self._returned.get(server)
            while self._returned.get(server) == before and not stop.is_set():
                left = until - time.monotonic()
                if left <= 0.0:
                    return
                self._returns.wait(min(left, POLL_S))

    def _note_answer(self, server: Server) -> None:
        with self._returns:
            now = time.monotonic()
            if now - self._answered.get(server, float("-inf")) >= MOST_S:
                self._returned[server] = now
                self._returns.notify_all()
            self._answered[server] = now

    @contextmanager
    def connecting(self, server: Server, stop: threading.Event) -> Iterator[Callable[[], None]]:
        """Wait for a place; goes on without one when ``stop`` is set.

        What is given is to be called when the server has answered. The end of the block is an answer as well,
        unless it raises."""
        place = self._take(server.host)
        while place is None and not stop.wait(POLL_S):
            place = self._take(server.host)

        def answered() -> None:
            self._note_answer(server)
            if place is not None:
                place.until = time.monotonic() + SETTLE_S

        try:
            yield answered
            answered()
        finally:
            if place is not None:
                self._leave(place)

    def _take(self, host: str) -> _Place | None:
        first, now = zlib.crc32(host.encode()) * self._each, time.monotonic()
        with self._lock:
            for place in [place for place in self._held.values() if place.until <= now]:
                self._give_back(place)
            for number in range(first, first + self._each):
                if number not in self._held and self._claim(number):
                    self._held[number] = _Place(number)
                    return self._held[number]
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

    def _leave(self, place: _Place) -> None:
        with self._lock:
            if self._held.get(place.number) is place:  # else it is another's by now
                self._give_back(place)
            self._close_unused()

    def _give_back(self, place: _Place) -> None:
        del self._held[place.number]
        with suppress(OSError):
            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place.number)

    def _close_unused(self) -> None:
        if self._file is not None and not self._held:
            os.close(self._file)
            self._file = None
