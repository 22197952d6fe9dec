"""What is given up when there is more to screen than the machine carries: the least important first, never
silently.

The fraction of the promised samples that can be afforded is found by how long samples wait, as PIE finds the
share of packets that a router drops (RFC 8033, section 4.2): it is cut while they wait too long and by how
much longer they wait than before, and given back while they wait less. So the machine is used to the
full and its backlog neither grows nor is paid for twice. Where samples were dropped it is cut at once by
their share. What is cut is taken from the streams of the lowest priority first, each down to its floor."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WAIT = 0.35
"""Samples wait too long when they use up more than this share of the time after which they are stale; half of
it is little."""
PER_WAIT, PER_GROWTH = 0.02, 0.3
"""The share of what is left that a second's cut takes, for each unit of waiting above ``WAIT`` and for each
by which that has grown: with more of either the fraction swings."""
GIVE, DOUBLE_S, DOUBLINGS = 0.01, 10.0, 3.0
"""The share that a second gives back in which nothing waits; twice as much after so many seconds in which
samples waited for little, and so often at most."""
LEAST_CUT, MOST_CUT = 0.05, 0.25
"""Bounds of the cut that is made because of dropped samples; the greater one of every change."""
PATIENCE_S = 6.0
"""Such a cut takes effect before the next one: samples that are on their way were ordered before it."""
EFFECT_S = 3.0
"""A stream first comes to the end of the gap that it is in. Where gaps are longer than this, on average, all
goes so much slower, and a change of waiting counts so much less: what answers late must be asked gently."""
LONGEST_S = 5.0
"""A longer time between two steps counts as this."""
WHOLE = 0.98
"""A stretch of less than this is none: the least one costs some of the keyframes that a gap needs. Once there
is one it stays until samples wait for little: just above what is carried it would come and go."""
LEAST = 0.02
"""So much is always afforded: with nothing to score it would never be seen that there is room again."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a stream is promised and how far that may be stretched, in seconds; ``priority`` 0 to 9."""

    priority: int
    gap_s: float
    most_gap_s: float


def allocate(shares: Mapping[int, Share], fraction: float) -> dict[int, float]:
    """The gap in force for each stream, so that together they take ``fraction`` (0..1) of the promised
    samples.

    Streams of one priority are stretched alike; a priority is touched only when all below it are at their
    floor."""
    gaps = {number: share.gap_s for number, share in shares.items()}
    to_cut = (1.0 - fraction) * sum(1.0 / share.gap_s for share in shares.values())
    for priority in sorted({share.priority for share in shares.values()}):
        if to_cut <= 1e-9:
            break
        group = {number: share for number, share in shares.items() if share.priority == priority}
        most = sum(1.0 / share.gap_s - 1.0 / share.most_gap_s for share in group.values())
        part = min(1.0, to_cut / most) if most > 0.0 else 1.0
        for number, share in group.items():
            gaps[number] = 1.0 / (1.0 / share.gap_s - part * (1.0 / share.gap_s - 1.0 / share.most_gap_s))
        to_cut -= part * most
    return gaps


def floor_of(shares: Iterable[Share]) -> float:
    """The fraction of the promised samples that is left when every stream is at its floor; 0 of none."""
    each = [(1.0 / share.gap_s, 1.0 / share.most_gap_s) for share in shares]
    promised = sum(rate for rate, _ in each)
    return sum(kept for _, kept in each) / promised if promised else 0.0


class Governor:
    """Finds the fraction that is in force, 0..1."""

    def __init__(self) -> None:
        self.fraction = 1.0
        self._found = 1.0  # before what is less than a stretch is left out
        self._excess = 0.0
        self._calm_s = 0.0
        self._patience_s = 0.0

    def step(
        self, passed_s: float, *, waited: float, lost: float, gap_s: float = 0.0, floor: float = 0.0
    ) -> float:
        """``passed_s`` seconds after the last step: how long samples waited since then on average, in units
        of the time after which they are stale (0..1), and the share (0..1) of samples that were ``lost``, 0
        when that is no sign of overload. ``gap_s`` is the mean gap in force, as a sample sees it; to go below
        ``floor`` would spare nothing. Returns the fraction in force: less than 1 under overload, even where
        nothing may be stretched."""
        slow = max(1.0, gap_s / EFFECT_S)
        passed = min(passed_s, LONGEST_S) / slow
        excess = max(0.0, waited - WAIT)
        cut = (PER_WAIT * excess * passed + PER_GROWTH * (excess - self._excess)) / slow
        self._excess = excess
        self._calm_s = self._calm_s + passed if waited < WAIT / 2 and not lost else 0.0
        self._patience_s -= passed
        if not lost:
            calm = 2.0 ** min(self._calm_s / DOUBLE_S, DOUBLINGS)
            cut -= GIVE * passed * max(0.0, 1.0 - waited / WAIT) * calm
        else:
            cut = max(0.0, cut)
            if self._patience_s <= 0.0:
                cut, self._patience_s = max(cut, LEAST_CUT, lost), PATIENCE_S
        cut = max(-MOST_CUT, min(cut, MOST_CUT))
        self._found = max(min(floor, WHOLE), LEAST, min(1.0, self._found * (1.0 - cut)))
        if self._found == 1.0 and self._calm_s:
            self.fraction = 1.0
        elif self._found <= WHOLE or self.fraction < 1.0:
            self.fraction = min(self._found, WHOLE)
        return self.fraction
