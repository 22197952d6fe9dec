"""When a segment opens and closes, and what is said of it."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from pipeline.errors import ConfigError

State = Literal["open", "update", "closed"]
EndReason = Literal["end_of_stream", "stream_lost", "shutdown", "policy_change"]
Reason = Literal["ended", "max_length"] | EndReason


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """When a segment opens, is held, and closes. Scores are 0..1, times seconds of media time.

    ``open``: a hit; ``close``: held while open; ``watch``: suspicious; ``instant``: opens at once.
    ``min_hits`` of the last ``window`` samples open. More than ``gap_s`` after the last held sample closes.
    Shorter than ``min_s`` is only counted, longer than ``max_s`` is cut, a hit within ``cooldown_s`` of an
    end names its predecessor.

    :raises ConfigError: a value is out of range, or the thresholds are not in order."""

    open: float = 0.80
    close: float = 0.60
    watch: float = 0.50
    instant: float = 0.97
    min_hits: int = 1
    window: int = 1
    gap_s: float = 4.0
    min_s: float = 0.0
    max_s: float = 120.0
    cooldown_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if not math.isfinite(value):
                raise ConfigError(f"{name} is {value}: a finite number is allowed")
        self._require(
            0.0 <= self.watch <= self.close <= self.open <= self.instant <= 1.0,
            "0 <= watch <= close <= open <= instant <= 1",
        )
        self._require(1 <= self.min_hits <= self.window, "1 <= min_hits <= window")
        self._require(self.gap_s > 0.0, "gap_s > 0")
        self._require(0.0 <= self.min_s <= self.max_s and self.max_s > 0.0, "0 <= min_s <= max_s, max_s > 0")
        self._require(self.cooldown_s >= 0.0, "cooldown_s >= 0")

    def _require(self, holds: bool, allowed: str) -> None:
        if not holds:
            named = [f.name for f in fields(self) if f.name in allowed]
            values = ", ".join(f"{name} is {getattr(self, name)}" for name in named)
            raise ConfigError(f"{values}: allowed is {allowed}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One revision of a segment: ``rev`` 1 is ``open``, the last one ``closed``. Times are stream seconds.

    While it is open, ``end_s`` is the last held sample: it reaches at least so far. ``reason`` is set when it
    is closed. ``peak``, ``mean`` and ``samples`` are of all samples from the first hit to the last held one;
    ``hits`` counts those that score ``open`` or more. ``previous_segment_id`` is the segment that it goes on
    from."""

    segment_id: str
    rev: int
    state: State
    reason: Reason | None
    previous_segment_id: str | None
    category: str
    start_s: float
    end_s: float
    start_uncertainty_s: float
    end_uncertainty_s: float
    peak: float
    mean: float
    peak_s: float
    samples: int
    hits: int
