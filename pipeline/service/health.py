"""When a worker counts as wedged, when it is started again, and when a stream is set apart.

Rules only: no process, no clock; ``now`` is monotonic seconds."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

WEDGED_S = 10.0
"""A worker whose heartbeat, or whose inference thread, is silent for so long is killed."""
LOADING_S = 120.0
"""As long as it may take to start: libraries, engines."""
STUCK_S = 60.0
"""One decode call that takes longer will not return: it holds a core's turn from all other streams."""
WINDOW_S = 600.0
DEATHS = 3
"""So many deaths of its worker in WINDOW_S, each while it was being decoded, set a stream apart."""
FILE_DEATHS = 2
"""So many, and a file among several has failed: the others go on without it."""
RETRY_S = 3600.0
"""Then a quarantined stream is tried again."""
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Waits before a worker's first, second … restart within WINDOW_S."""
PAUSE_MOST_S = 30.0


@dataclass(slots=True)
class Pulse:
    """Signs of life of one worker, in monotonic seconds.

    ``heard`` is when anything came from it, ``beat`` when its inference thread went round. ``excused``: it
    waits for the outbox or loads an engine, and may be slow. ``grace``: not judged before (the supervisor
    itself was held up)."""

    started: float = 0.0
    ready: bool = False
    heard: float = 0.0
    beat: float = 0.0
    excused: bool = False
    grace: float = 0.0
    killed: bool = False

    def wedged(self, now: float, marks: Mapping[int, float]) -> str | None:
        """Why it has to be killed, or None; ``marks`` are the streams in decoding, and since when."""
        if now < self.grace:
            return None
        if not self.ready:
            late = now - self.started > LOADING_S
            return f"was not ready {LOADING_S:.0f} s after its start" if late else None
        if now - self.heard > WEDGED_S:
            return f"said nothing for {now - self.heard:.0f} s"
        still_s = self.heard - self.beat  # by its last words: a silent process cannot tell of its threads
        if not self.excused and still_s > WEDGED_S:
            return f"its inference thread stood still for {still_s:.0f} s"
        if stuck(marks, now):
            return f"a decode call did not return within {STUCK_S:.0f} s"
        return None


def stuck(marks: Mapping[int, float], now: float) -> set[int]:
    """The streams whose decode call will not return."""
    return {number for number, since in marks.items() if now - since > STUCK_S}


@dataclass(slots=True)
class Deaths:
    """When a worker died, or a stream's worker did while it was being decoded."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, now: float) -> None:
        self.times.append(now)

    def recent(self, now: float) -> int:
        """How many within the last ten minutes."""
        return sum(now - time <= WINDOW_S for time in self.times)

    def pause_s(self, now: float) -> float:
        """How long to wait before the next start: nothing after the first death, half a minute after many."""
        count = self.recent(now)
        return PAUSES_S[count - 1] if 0 < count <= len(PAUSES_S) else PAUSE_MOST_S if count else 0.0

    @property
    def first(self) -> float:
        return self.times[0]
