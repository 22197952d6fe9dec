"""What is known of a segment while it goes on."""

import math
from typing import NamedTuple


class Sample(NamedTuple):
    """A scored sample and the time of the one before it (None: there is none)."""

    time_s: float
    score: float
    before_s: float | None


class Span:
    """What is known of the segment that is going on."""

    def __init__(self, first: Sample, previous_id: str | None, *, continues: bool) -> None:
        self.previous_id, self.continues = previous_id, continues
        self.segment_id, self.rev = "", 0
        self.begin(first)
        self.said_s, self.said_peak, self.updated_s = first.time_s, 0.0, -math.inf

    def begin(self, first: Sample) -> None:
        """It begins with this hit, which is still to be held; what was known of scores is forgotten."""
        before_s = first.before_s or 0.0
        self.start_s = 0.0 if first.before_s is None else (before_s + first.time_s) / 2
        self.start_uncertainty_s = (first.time_s - before_s) / 2
        self.held_s = first.time_s
        self.after_s: float | None = None
        self.peak, self.peak_s = -1.0, first.time_s
        self.samples = self.hits = self._tail = 0
        self._sum = self._tail_sum = 0.0

    def unmiss(self, latest: Sample) -> None:
        """Take the latest sample back, which did not hold."""
        self._tail -= 1
        self._tail_sum -= latest.score
        if self.after_s == latest.time_s:
            self.after_s = None

    def count(self, sample: Sample, hit: bool) -> None:
        """A sample inside the segment: it moves no boundary."""
        self.samples += 1
        self._sum += sample.score
        self.hits += hit
        if sample.score > self.peak:
            self.peak, self.peak_s = sample.score, sample.time_s

    def hold(self, sample: Sample, hit: bool) -> None:
        """The segment reaches to this sample; what lay between belongs to it."""
        self.count(sample, hit)
        self.samples += self._tail
        self._sum += self._tail_sum
        self._tail, self._tail_sum = 0, 0.0
        self.held_s, self.after_s = sample.time_s, None

    def miss(self, sample: Sample) -> None:
        """A sample that does not hold: the end, unless a held one follows in time."""
        self._tail += 1
        self._tail_sum += sample.score
        if self.after_s is None:
            self.after_s = sample.time_s

    @property
    def mean(self) -> float:
        return min(self._sum / self.samples, self.peak)  # a rounded sum may lie a hair above
