"""What is given up when there is more to screen than the machine carries: the least important first, never
silently.

The fraction of the promised samples that can be afforded is found by how long samples wait, as PIE finds the
share of packets that a router drops (RFC 8033, section 4.2): it is cut while they wait too long and by how
much longer they wait than before, and given back while they wait for little. So the machine is used to the
full and its backlog neither grows nor is paid for twice. Where samples were dropped it is cut at once by
their share. What is cut is taken from the streams of the lowest priority first, each down to its floor."""

from collections.abc import Mapping
from dataclasses import dataclass

WAIT = 0.35
"""Samples wait too long when they use up more than this share of the time after which they are stale; half of
it is little."""
PER_WAIT, PER_GROWTH = 0.02, 0.3
"""The share of what is left that a second's cut takes, for each unit of waiting above ``WAIT`` and for each
by which that has grown. A cut takes some seconds to show, for a stream first comes to the end of the gap that
it is in: with more of either the fraction swings."""
GIVE, DOUBLE_S = 0.01, 10.0
"""The share that a calm second gives back; twice as much after so many of them."""
LEAST_CUT, MOST_CUT = 0.05, 0.25
"""Bounds of the cut that is made because of dropped samples."""
PATIENCE_S = 6.0
"""Such a cut takes effect before the next one: samples that are on their way were ordered before it."""
LEAST = 0.02


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
        self._excess = 0.0
        self._calm_s: float | None = None  # since when
        self._cut_s = float("-inf")

    def step(self, now: float, *, waited: float, lost: float) -> float:
        """Once a second. ``waited``: how long the samples of that second waited on average, in units of the
        time after which they are stale; ``lost``: the share (0..1) of samples that were dropped, 0 when that
        is no sign of overload. Returns the fraction in force."""
        excess = max(0.0, waited - WAIT)
        cut = PER_WAIT * excess + PER_GROWTH * (excess - self._excess)
        self._excess = excess
        if lost or waited >= WAIT / 2:
            self._calm_s = None
        elif self._calm_s is None:
            self._calm_s = now
        if lost and now - self._cut_s >= PATIENCE_S:
            cut, self._cut_s = max(cut, min(max(lost, LEAST_CUT), MOST_CUT)), now
        elif self._calm_s is not None:
            cut -= GIVE * 2.0 ** ((now - self._calm_s) / DOUBLE_S)
        self.fraction = max(LEAST, min(1.0, self.fraction * (1.0 - cut)))
        return self.fraction
