"""Which intervals are worth a closer look: those with a boundary between two neighbouring samples."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.flow.sample_rules import SamplingRules
from pipeline.flow.segment_rules import SegmentRules

LIVE_LOOK_S, FILE_LOOK_S = 3.0, 30.0
"""A closer look that is not answered in this time is given up: the boundary stays as uncertain as it was."""
LOOK_SLACK = 1.5
"""Neighbours nearer than this many burst intervals are dense already."""


@dataclass(frozen=True, slots=True)
class Look:
    """Decode the pictures between ``from_s`` and ``to_s`` (stream time, both ends known) at ``fps``, then
    watch up to ``watch_until_s``. ``number`` tells a stream's looks apart. With ``from_s == to_s`` only
    watch."""

    number: int
    from_s: float
    to_s: float
    fps: float
    watch_until_s: float

    def due(self) -> Iterator[float]:
        """Times at which a picture is wanted, evenly between the two ends."""
        count = int((self.to_s - self.from_s) * self.fps - 1e-6)
        step = (self.to_s - self.from_s) / (count + 1)
        return (self.from_s + step * index for index in range(1, count + 1))


class Lookout:
    """Sees a stream session's scores pass and asks for a look where they cross a threshold.

    Three levels: clean, suspicious (``watch``), flagged (``open``, or ``close`` while it was flagged). A
    sample of another level than the one before it has a boundary between them."""

    def __init__(self, rules: Mapping[str, SegmentRules], sampling: SamplingRules) -> None:
        self._rules = rules
        self._sampling = sampling
        self._before_s: float | None = None
        self._levels = dict.fromkeys(rules, 0)
        self._number = 0

    def restart(self, before_s: float | None) -> None:
        """A new session begins; ``before_s`` is its last sample before a crash, if it goes on after one."""
        self._before_s = before_s
        self._levels = dict.fromkeys(self._rules, 0)

    def judge(self, time_s: float, scores: Mapping[str, float]) -> Look | None:
        """The look that this sample asks for, if any; ``scores`` by category."""
        before_s, self._before_s = self._before_s, time_s
        crossed = False
        for category, score in scores.items():
            level = self._level(category, score)
            crossed = crossed or level != self._levels[category]
            self._levels[category] = level
        if not crossed or before_s is None or self._sampling.burst_s <= 0:
            return None
        self._number += 1
        fps = self._sampling.burst_fps
        dense = time_s - before_s <= LOOK_SLACK / fps
        return Look(self._number, time_s if dense else before_s, time_s, fps, time_s + self._sampling.burst_s)

    def _level(self, category: str, score: float) -> int:
        rules, before = self._rules[category], self._levels[category]
        if score >= rules.open or (before == 2 and score >= rules.close):
            return 2
        return 1 if score >= rules.watch else 0
