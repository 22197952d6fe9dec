"""Scores to segments: what a reviewer is asked to look at, and how surely each one begins and ends.

A pure machine for one stream session and one category: the same scores at the same times always give the same
segments, however often ``advance`` is called in between. Boundaries are seen only through samples, so each
one is put in the middle of the two samples around it, and its uncertainty is half their distance."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from pipeline.errors import ConfigError

State = Literal["open", "update", "closed"]
EndReason = Literal["end_of_stream", "stream_lost", "shutdown", "policy_change"]
Reason = Literal["ended", "max_length"] | EndReason

# An open segment is reported again when its peak rose by this, or after this long; updates pause this long.
UPDATE_PEAK, UPDATE_EVERY_S, UPDATE_PAUSE_S = 0.05, 10.0, 1.0

_ROUND = 1e-6  # times are sums of frame durations: 4.000000000000001 s is not more than 4 s


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


class _Sample(NamedTuple):
    """A scored sample and the time of the one before it (None: there is none)."""

    time_s: float
    score: float
    before_s: float | None


class _Span:
    """What is known of the segment that is going on."""

    def __init__(self, first: _Sample, previous_id: str | None, *, continues: bool) -> None:
        before_s = first.before_s or 0.0
        self.start_s = 0.0 if first.before_s is None else (before_s + first.time_s) / 2
        self.start_uncertainty_s = (first.time_s - before_s) / 2
        self.previous_id, self.continues = previous_id, continues
        self.held_s = first.time_s
        self.after_s: float | None = None
        self.peak, self.peak_s = -1.0, first.time_s
        self.samples = self.hits = self._tail = 0
        self._sum = self._tail_sum = 0.0
        self.segment_id, self.rev = "", 0
        self.said_s, self.said_peak, self.updated_s = first.time_s, 0.0, -math.inf

    def hold(self, sample: _Sample, hit: bool) -> None:
        """The segment reaches to this sample; what lay between belongs to it."""
        self.samples += self._tail + 1
        self._sum += self._tail_sum + sample.score
        self._tail, self._tail_sum = 0, 0.0
        self.hits += hit
        self.held_s, self.after_s = sample.time_s, None
        if sample.score > self.peak:
            self.peak, self.peak_s = sample.score, sample.time_s

    def miss(self, sample: _Sample) -> None:
        """A sample that does not hold: the end, unless a held one follows in time."""
        self._tail += 1
        self._tail_sum += sample.score
        if self.after_s is None:
            self.after_s = sample.time_s

    @property
    def mean(self) -> float:
        return min(self._sum / self.samples, self.peak)  # a rounded sum may lie a hair above


class SegmentBuilder:
    """Builds the segments of one category in one session of a stream.

    ``new_id`` is asked once for each segment that is published. ``previous_sample_s`` is the last sample
    scored before this builder, of the same session (a file that goes on after a crash); ``previous`` is the
    id and ``end_s`` of the last closed segment of that session. Every revision returned is to be published,
    in order: segments do not overlap, and ``rev`` rises by 1. ``open`` is the latest published revision of
    the segment that is going on, ``shorter`` the number of segments that stayed under ``min_s`` and were
    never published."""

    def __init__(
        self,
        category: str,
        rules: SegmentRules,
        *,
        new_id: Callable[[], str],
        previous_sample_s: float | None = None,
        previous: tuple[str, float] | None = None,
    ) -> None:
        self.open: Segment | None = None
        self.shorter = 0
        self._category = category
        self._rules = rules
        self._new_id = new_id
        self._last_s = previous_sample_s
        self._previous = previous
        self._recent: deque[_Sample] = deque()  # the last `window` samples, from the first hit among them on
        self._recent_hits = 0
        self._span: _Span | None = None
        self._ended = False

    def add(self, time_s: float, score: float) -> list[Segment]:
        """Judge the next sample; give what changed.

        Scores beyond 0..1 by an engine's rounding count as 0 or 1.

        :raises ValueError: the time does not rise, the score is not a number, or the session has ended."""
        before_s = self._last_s
        if (before_s is not None and not time_s > before_s) or score != score or self._ended:
            raise ValueError(self._refusal(time_s, score))
        self._last_s = time_s
        score = min(max(score, 0.0), 1.0)
        span = self._span
        if span is not None and time_s - span.held_s <= self._rules.gap_s + _ROUND:
            return self._extend(span, _Sample(time_s, score, before_s))
        closed = [] if span is None else self._close(span, "ended", time_s)
        if score < self._rules.open and not self._recent:
            return closed
        return closed + self._consider(_Sample(time_s, score, before_s))

    def advance(self, time_s: float) -> list[Segment]:
        """Media time has reached ``time_s``, and every sample before it was added: close what is over by now.

        A segment after whose last held sample nothing was scored stays open: where it ends is not known
        before the next sample, or the end, comes. So this only gives sooner what ``add`` would give."""
        span = self._span
        if span is None or span.after_s is None or time_s - span.held_s <= self._rules.gap_s + _ROUND:
            return []
        return self._close(span, "ended", time_s)

    def end(self, time_s: float, reason: EndReason) -> list[Segment]:
        """The session is over at ``time_s`` (of a lost stream: its last packet). Nothing comes after."""
        changes = self.advance(time_s)
        if self._span is not None:
            changes = self._close(self._span, reason, time_s)
        self._ended = True
        return changes

    def _refusal(self, time_s: float, score: float) -> str:
        sample = f"{self._category}: score {score} at {time_s} s after {self._last_s} s"
        return f"{sample}: {'the session has ended' if self._ended else 'times must rise, scores be numbers'}"

    def _consider(self, sample: _Sample) -> list[Segment]:
        """No segment is open: is there reason to open one?"""
        recent, rules = self._recent, self._rules
        hit = sample.score >= rules.open
        recent.append(sample)
        self._recent_hits += hit
        while recent and (len(recent) > rules.window or recent[0].score < rules.open):
            self._recent_hits -= recent.popleft().score >= rules.open
        if hit and (self._recent_hits >= rules.min_hits or sample.score >= rules.instant):
            return self._open()
        return []

    def _open(self) -> list[Segment]:
        first = self._recent[0]
        segment_id, end_s = self._previous or (None, -math.inf)
        near = first.time_s - end_s <= self._rules.cooldown_s + _ROUND
        self._span = span = _Span(first, segment_id if near else None, continues=False)
        for sample in self._recent:
            span.hold(sample, sample.score >= self._rules.open)
        self._recent.clear()
        self._recent_hits = 0
        return self._report(span, span.held_s)

    def _extend(self, span: _Span, sample: _Sample) -> list[Segment]:
        """A segment is open and ``gap_s`` has not passed."""
        if sample.score < self._rules.close:
            span.miss(sample)
            return self._report(span, sample.time_s)
        hit = sample.score >= self._rules.open
        if sample.time_s - span.start_s < self._rules.max_s - _ROUND:
            span.hold(sample, hit)
            return self._report(span, sample.time_s)
        closed = self._close(span, "max_length", sample.time_s)
        self._span = follower = _Span(sample, span.segment_id, continues=True)
        follower.hold(sample, hit)
        return closed + self._report(follower, sample.time_s)

    def _close(self, span: _Span, reason: Reason, next_s: float) -> list[Segment]:
        """Close the open segment; ``next_s`` takes the place of the sample after it where there is none."""
        after_s = max(next_s, span.held_s) if span.after_s is None else span.after_s
        to_the_end = span.after_s is None and reason not in ("ended", "max_length")
        end_s = after_s if to_the_end else (span.held_s + after_s) / 2
        self._span = self.open = None
        if span.rev == 0 and reason != "max_length" and end_s - span.start_s < self._rules.min_s - _ROUND:
            self.shorter += 1
            return []
        first = [self._revision(span, "open")] if span.rev == 0 else []
        self._previous = (span.segment_id, end_s)
        return [*first, self._revision(span, "closed", reason, (end_s, (after_s - span.held_s) / 2))]

    def _report(self, span: _Span, now_s: float) -> list[Segment]:
        """The next revision of an open segment, if one is due."""
        if span.rev == 0:
            if not span.continues and span.held_s - span.start_s < self._rules.min_s - _ROUND:
                return []
            self.open = self._revision(span, "open")
        else:
            rose = span.peak - span.said_peak >= UPDATE_PEAK - _ROUND
            aged = now_s - span.said_s >= UPDATE_EVERY_S - _ROUND
            if not (rose or aged) or now_s - span.updated_s < UPDATE_PAUSE_S - _ROUND:
                return []
            self.open = self._revision(span, "update")
            span.updated_s = now_s
        span.said_s, span.said_peak = now_s, span.peak
        return [self.open]

    def _revision(
        self, span: _Span, state: State, reason: Reason | None = None, end: tuple[float, float] | None = None
    ) -> Segment:
        """The next ``rev``; ``end`` is ``end_s`` and its uncertainty, once they are known."""
        span.segment_id = span.segment_id or self._new_id()
        span.rev += 1
        end_s, end_uncertainty_s = end or (span.held_s, 0.0)
        return Segment(
            segment_id=span.segment_id,
            rev=span.rev,
            state=state,
            reason=reason,
            previous_segment_id=span.previous_id,
            category=self._category,
            start_s=span.start_s,
            end_s=end_s,
            start_uncertainty_s=span.start_uncertainty_s,
            end_uncertainty_s=end_uncertainty_s,
            peak=span.peak,
            mean=span.mean,
            peak_s=span.peak_s,
            samples=span.samples,
            hits=span.hits,
        )
