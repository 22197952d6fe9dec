"""When to call again on a source that is away: fast for a blip, gentle for an outage, never all at once."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_S = 0.5
MOST_S = 5.0
OUTAGE_S = 600.0
OUTAGE_MOST_S = 30.0
CONNECTS_PER_HOST = 8


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
        most = OUTAGE_MOST_S if now - self._down_since >= OUTAGE_S else MOST_S
        wait = self._rng.uniform(0.0, min(self._bound, most))
        self._bound = min(self._bound * 2, OUTAGE_MOST_S)
        return wait


class HostGate:
    """At most eight connects at once to a host, so that a switch that comes back is not stormed."""

    def __init__(self, each: int = CONNECTS_PER_HOST) -> None:
        self._each = each
        self._gates: dict[str, threading.Semaphore] = {}
        self._lock = threading.Lock()

    @contextmanager
    def connecting(self, host: str, stop: threading.Event) -> Iterator[None]:
        """Wait for a place; goes on without one when ``stop`` is set."""
        with self._lock:
            gate = self._gates.setdefault(host, threading.Semaphore(self._each))
        held = False
        while not held and not stop.is_set():
            held = gate.acquire(timeout=0.2)
        try:
            yield
        finally:
            if held:
                gate.release()
