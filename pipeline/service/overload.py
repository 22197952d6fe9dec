"""Signs of overload in a worker, and what is taken from its live streams because of them."""

from collections import deque
from collections.abc import Iterable
from statistics import harmonic_mean
from typing import TYPE_CHECKING

from pipeline.flow.govern import WAIT, Governor, allocate, floor_of

if TYPE_CHECKING:
    from pipeline.service.stream import StreamScreen

LOOK_S = 1.0
LOOKS, BAD = 5, 3
"""So many bad seconds of so many are overload: a disk or a neighbour may hold up a machine for one."""
STALE_S = 1.0
"""Waiting is judged by a ``stale_s`` of no less: to decode and score one picture takes a part of it."""


class Overload:
    """Counts what was dropped and how long samples waited; once a second stretches the gaps of live streams,
    or gives back. ``stale_s``: what waited longer is not scored."""

    def __init__(self, stale_s: float, now: float) -> None:
        self._stale_s = max(stale_s, STALE_S)
        self._dropped = self._scored = 0
        self._waited_s = 0.0
        self._mean_s = 0.0  # what they waited; it fades while none is scored
        self._seconds: deque[tuple[bool, int, int]] = deque(maxlen=LOOKS)  # bad, dropped, of so many
        self._looked_s = now
        self._governor = Governor()
        self._gap_s = 0.0  # in force, on average

    @property
    def shed(self) -> float:
        """Share of the promised samples that is given up, 0..1."""
        return 1.0 - self._governor.fraction

    @property
    def strained(self) -> bool:
        """Whether samples wait longer than a little, or gaps are stretched."""
        return self._mean_s > WAIT / 2 * self._stale_s or self.shed > 0.0

    def dropped(self, frames: int) -> None:
        """That many frames of live streams were dropped."""
        self._dropped += frames

    def scored(self, waited_s: float) -> None:
        """A live frame was scored so long after it could have been decoded."""
        self._scored += 1
        self._waited_s += waited_s

    def step(self, now: float, screens: Iterable["StreamScreen"]) -> None:
        """Look once a second, and tell the streams which gap is in force."""
        if now - self._looked_s < LOOK_S:
            return
        by_number = {screen.number: screen for screen in screens}
        shares = {n: share for n, screen in by_number.items() if (share := screen.share) is not None}
        passed_s, self._looked_s, before = now - self._looked_s, now, self._governor.fraction
        waited, lost = self._second()
        fraction = self._governor.step(
            passed_s, waited=waited, lost=lost, gap_s=self._gap_s, floor=floor_of(shares.values())
        )
        gaps = allocate(shares, fraction)
        self._gap_s = harmonic_mean(list(gaps.values())) if gaps else 0.0  # one long gap has few samples
        if fraction == before == 1.0:
            return
        for number, gap_s in gaps.items():
            by_number[number].stretch(gap_s)

    def _second(self) -> tuple[float, float]:
        """How long samples waited and the share that was dropped, as the governor wants to know it, since the
        last call."""
        samples = self._dropped + self._scored
        if self._scored:
            self._mean_s = self._waited_s / self._scored
        elif not self._dropped:
            self._mean_s /= 2
        waited, lost = min(1.0, self._mean_s / self._stale_s), 0.0
        bad = self._dropped > 0 or waited > WAIT
        if samples:
            self._seconds.append((bad, self._dropped, samples))
        self._dropped = self._scored = 0
        self._waited_s = 0.0
        if sum(was_bad for was_bad, _, _ in self._seconds) < BAD:
            waited = min(waited, WAIT)
        elif bad and samples:
            of = sum(samples for _, _, samples in self._seconds)
            lost = sum(dropped for _, dropped, _ in self._seconds) / of
        return waited, lost
