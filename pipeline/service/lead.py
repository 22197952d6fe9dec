"""How far a reader is ahead of the decisions on its samples, and what it is asked to look at again."""

import threading
import time
from collections import deque

from pipeline.flow.look import Look

WAIT_S = 0.2


class Lead:
    """Shared by one reader and the inference thread. A file's reader stays at most ``most`` samples ahead, so
    that the packets of an interval are still held when a look at it is asked for; a live one (None) never
    waits."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._sent = self._decided = 0
        self._told = 0  # which sample said that there was no slot, if nothing else was sent since
        self._looks: deque[Look] = deque()
        self._changed = threading.Condition()

    @property
    def reach(self) -> int:
        """How many samples back a look may go: those that are ahead, the one it is about, and the one
        before."""
        return (self._most or 0) + 2

    def forget(self) -> None:
        """A new session: looks at the one before cannot be answered any more."""
        with self._changed:
            self._looks.clear()

    @property
    def unheard(self) -> bool:
        """Whether the last thing that was sent is a dropped sample that is not decided yet: to say of another
        one that it was dropped would change nothing, and pile up while all wait for a disk."""
        return self._told > self._decided

    def sent(self, *, dropped: bool = False) -> None:
        """The reader has sent a sample."""
        with self._changed:
            self._sent += 1
            self._told = self._sent if dropped else 0

    def decided(self) -> None:
        """The inference thread has decided one."""
        with self._changed:
            self._decided += 1
            self._changed.notify_all()

    def ask(self, look: Look) -> None:
        """The inference thread wants a look."""
        with self._changed:
            self._looks.append(look)
            self._changed.notify_all()

    def next_look(self) -> Look | None:
        """The next look that was asked for, if any; does not wait."""
        if not self._looks:  # asked for each packet: no lock for that
            return None
        with self._changed:
            return self._looks.popleft() if self._looks else None

    def wait(self, stop: threading.Event, *, idle: bool = False) -> bool:
        """Wait until there is room for another sample (``idle``: until all are decided), or a look is asked
        for.

        True when there is; False when a look must be answered first, or ``stop`` is set."""
        if self._most is None:
            return True
        most = 1 if idle else self._most
        with self._changed:
            while self._sent - self._decided >= most and not self._looks and not stop.is_set():
                self._changed.wait(WAIT_S)
            return self._sent - self._decided < most and not self._looks


class Budget:
    """CPU seconds that closer looks and bursts may take from the other live streams.

    A share of the cores, with one second a core saved up; the half of that is for looks alone: a boundary is
    worth more than watching on. ``picture_s`` is what scoring one picture takes on one model. ``closed`` is
    set while the worker is overloaded: what is promised to all goes before a closer look at one. Without
    ``audits`` there are none: they are left out before any gap is stretched."""

    def __init__(self, cores: int, share: float, picture_s: float) -> None:
        self.picture_s = picture_s
        self.closed, self.audits = False, True
        self._rate = cores * share
        self._most = float(cores)
        self._left = self._most
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def allows(self, *, burst: bool = False) -> bool:
        """Whether anything is left for a look, or for a ``burst``."""
        if self.closed:
            return False
        with self._lock:
            now = time.monotonic()
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
            self._at = now
            return self._left > (self._most / 2 if burst else 0.0)

    def spend(self, seconds: float) -> None:
        """That much was used; it may go below zero, and is then paid back first."""
        with self._lock:
            self._left -= seconds
