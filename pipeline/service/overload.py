"""Signs of overload in a worker, and what is taken from its live streams because of them."""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.flow.govern import Governor, allocate

if TYPE_CHECKING:
    from pipeline.service.stream import StreamScreen

LOOK_S = 1.0
LATE_SHARE = 0.5
"""A sample that has used up this share of ``stale_s`` is late."""
LATE_AT_ONCE = 0.05
"""More than this share of a second's samples late, or any frame dropped, makes a bad second."""
LOOKS, BAD = 5, 3
"""So many bad seconds of so many are overload: a disk or a neighbour may hold up a machine for one."""


class Overload:
    """Counts what came late; once a second stretches the gaps of live streams, or gives back."""

    def __init__(self, stale_s: float, now: float) -> None:
        self._late_s = LATE_SHARE * stale_s
        self._drops = self._lates = self._scored = 0
        self._seconds: deque[tuple[bool, int, int]] = deque(maxlen=LOOKS)  # bad, lost, of so many
        self._looked_s = now
        self._governor = Governor()

    @property
    def shed(self) -> float:
        """Share of the promised samples that is given up, 0..1."""
        return 1.0 - self._governor.fraction

    def dropped(self, frames: int) -> None:
        """That many frames of live streams were dropped."""
        self._drops += frames

    def scored(self, waited_s: float) -> None:
        """A live frame was scored so long after it arrived."""
        self._scored += 1
        self._lates += waited_s > self._late_s

    def step(self, now: float, screens: Iterable["StreamScreen"]) -> None:
        """Look once a second, and tell the streams which gap is in force."""
        if now - self._looked_s < LOOK_S:
            return
        bad = self._drops > 0 or self._lates > max(1.0, LATE_AT_ONCE * self._scored)
        self._seconds.append((bad, self._drops + self._lates, self._drops + self._scored))
        late = 0.0
        if bad and sum(was_bad for was_bad, _, _ in self._seconds) >= BAD:
            late = sum(lost for _, lost, _ in self._seconds) / sum(samples for _, _, samples in self._seconds)
        self._drops = self._lates = self._scored = 0
        self._looked_s, before = now, self._governor.fraction
        if self._governor.step(now, late=late) == before == 1.0:
            return
        by_number = {screen.number: screen for screen in screens}
        shares = {n: share for n, screen in by_number.items() if (share := screen.share) is not None}
        for number, gap_s in allocate(shares, self._governor.fraction).items():
            by_number[number].stretch(gap_s)
