"""How densely a stream is screened, as the config says it, and the bounds that it cannot move."""

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from pipeline.errors import ConfigError

TOLERANCE = 1.05
"""A gap is kept when it is at most ``max_gap_s`` × this: a GOP of 60 at 29.97 a second counts as 2 s."""

HELD_BYTES = 32 * 2**20
"""Encoded bytes that a sampler holds at most: two seconds of any camera, twenty of most."""

FRESH_S = 1.0
"""A live keyframe older than this may be stale when it is scored: then a newer picture is decoded instead."""

Plan = Literal["auto", "keyframes", "skip", "full"]


@dataclass(frozen=True, slots=True)
class SamplingRules:
    """``max_gap_s`` is in seconds of stream time. ``audit`` is the share of sampled keyframes whose GOP is
    decoded up to a random picture as well. Around a suspicious score ``burst_fps`` pictures a second are
    screened, and for ``burst_s`` seconds after it. Under overload the gap may grow to ``overload_gap_s``
    (left out: 5 × ``max_gap_s``).

    :raises ConfigError: a value is out of its range."""

    max_gap_s: float = 2.0
    plan: Plan = "auto"
    audit: float = 0.02
    burst_fps: float = 8.0
    burst_s: float = 10.0
    overload_gap_s: float | None = None

    @property
    def most_gap_s(self) -> float:
        """How far an overload may stretch the gap: never below the promise."""
        floor = 5.0 * self.max_gap_s if self.overload_gap_s is None else self.overload_gap_s
        return max(self.max_gap_s, floor)

    def __post_init__(self) -> None:
        _check("max_gap_s", self.max_gap_s, 0 < self.max_gap_s < inf, "a number of seconds above 0")
        _check("plan", self.plan, self.plan in get_args(Plan), "one of " + ", ".join(get_args(Plan)))
        _check("audit", self.audit, 0 <= self.audit <= 1, "0 to 1")
        _check("burst_fps", self.burst_fps, 0 < self.burst_fps < inf, "a number above 0")
        floor = self.overload_gap_s
        _check("overload_gap_s", floor, floor is None or 0 < floor < inf, "a number of seconds above 0")
        _check("burst_s", self.burst_s, 0 <= self.burst_s < inf, "a number of seconds, 0 or more")


def _check(key: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise ConfigError(f"sampling.{key}: {value!r}: must be {allowed}")
