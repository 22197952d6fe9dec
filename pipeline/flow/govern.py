"""What is given up when there is more to screen than the machine carries: the least important first, never
silently.

The fraction of the promised samples that can be afforded is found by trying, as TCP finds its rate (additive
increase, multiplicative decrease: Chiu and Jain, 1989): cut at once by the share of samples that come late or
not at all, within bounds, and raised while none do, carefully again from where samples came late last (as
CUBIC does: RFC 9438), so that a start in which all streams open at once is made up for within a minute. What
is cut is taken from the streams of the lowest priority first, each down to its floor."""

from collections.abc import Mapping
from dataclasses import dataclass

LEAST_CUT, MOST_CUT = 0.05, 0.25
"""Share of what is left that a cut takes, at least and at most."""
RAISE = 0.03
"""Share that is given back at the first step of calm; each further step gives twice as much."""
LEAST = 0.02
PATIENCE_S = 6.0
"""A cut takes effect before the next one: samples that are on their way were ordered before it, and a stream
first comes to the end of the gap that it is in."""
CALM_S = 6.0
"""So long nothing was late before anything is given back, and between two steps."""


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


class Governor:
    """Finds the fraction. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.fraction = 1.0
        self._bad = 1.0  # the fraction at which samples came late last
        self._raise = RAISE
        self._changed_s = float("-inf")
        self._late_s = float("-inf")

    def step(self, now: float, *, late: float) -> float:
        """``late``: the share (0..1) of the samples since the last call that were dropped, or nearly were; 0
        when that is no sign of overload. Returns the fraction in force."""
        if late:
            self._late_s = now
            if now - self._changed_s >= PATIENCE_S:
                kept = 1.0 - min(max(late, LEAST_CUT), MOST_CUT)
                self._bad, self._raise = self.fraction, RAISE
                self.fraction, self._changed_s = max(LEAST, self.fraction * kept), now
        elif self.fraction < 1.0 and now - max(self._late_s, self._changed_s) >= CALM_S:
            to = self._bad if self.fraction < self._bad else 1.0
            given, self._raise = self.fraction + self._raise, 2 * self._raise
            if given >= to:
                given, self._raise = to, RAISE
            self.fraction, self._changed_s = given, now
        return self.fraction
