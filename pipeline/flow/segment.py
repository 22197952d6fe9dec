"""Scores to segments: what a reviewer is asked to look at, and how surely each one begins and ends.

A pure machine for one stream session and one category: the same scores at the same times always give the same
segments, however often ``advance`` is called in between. Boundaries are seen only through samples, so each
one is put in the middle of the two samples around it, and its uncertainty is half their distance."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from pipeline.flow.segment_rules import EndReason, Reason, Segment, SegmentRules, State
from pipeline.flow.span import Sample, Span

__all__ = ["EndReason", "Reason", "Segment", "SegmentBuilder", "SegmentRules", "State"]

# An open segment is reported again when its peak rose by this, or after this long; updates pause this long.
UPDATE_PEAK, UPDATE_EVERY_S, UPDATE_PAUSE_S = 0.05, 10.0, 1.0

_ROUND = 1e-6  # times are sums of frame durations: 4.000000000000001 s is not more than 4 s


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
        self._recent: deque[Sample] = deque()  # the last `window` samples, from the first hit among them on
        self._recent_hits = 0
        self._span: Span | None = None
        self._latest: Sample | None = None
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
        self._latest = Sample(time_s, score, before_s)
        span = self._span
        if span is not None and time_s - span.held_s <= self._rules.gap_s + _ROUND:
            return self._extend(span, self._latest)
        closed = [] if span is None else self._close(span, "ended", time_s)
        if score < self._rules.open and not self._recent:
            return closed
        return closed + self._consider(self._latest)

    def refine(self, samples: Sequence[tuple[float, float]]) -> list[Segment]:
        """A closer look between the last two samples: (time, score) of pictures there, times rising.

        They count as if they had been added in their order: they move the start of a segment that the last
        sample opened, the end of one that it did not hold, or show one that lay between. What was published
        keeps its id; a corrected boundary is in the next revision, which may be given here.

        :raises ValueError: a time does not lie between the last two samples, or the session has ended."""
        latest, span = self._latest, self._span
        if not samples or latest is None or latest.before_s is None:
            return []
        times = [latest.before_s, *(time_s for time_s, _ in samples), latest.time_s]
        if self._ended or any(not before < after for before, after in pairwise(times)):
            raise ValueError(
                f"{self._category}: a closer look at {times[1:-1]} s between {times[0]} and {times[-1]} s"
            )
        looked = [
            Sample(t, min(max(score, 0.0), 1.0), before)
            for before, (t, score) in zip(times, samples, strict=False)
        ]
        again = latest._replace(before_s=looked[-1].time_s)
        if span is None:
            return self._find_between(looked, latest)
        if span.continues and span.samples == 1:
            return []
        inside = [*looked, again]
        if span.held_s < latest.time_s:
            span.unmiss(latest)
        elif span.samples > 1:
            for sample in looked:
                span.count(sample, sample.score >= self._rules.open)
            inside = []
        else:  # the last sample opened: it begins at the first hit, or closer to the last sample
            hits = [index for index, sample in enumerate(inside) if sample.score >= self._rules.open]
            inside = inside[hits[0] :]
            span.begin(inside[0])
        for sample in inside:
            if sample.score >= self._rules.close:
                span.hold(sample, sample.score >= self._rules.open)
            else:
                span.miss(sample)
        return self._correct(span, latest.time_s)

    def _find_between(self, looked: Sequence[Sample], latest: Sample) -> list[Segment]:
        """Nothing is open: what lies between is added after all, and the last sample once more."""
        ended_s = self._previous[1] if self._previous is not None else 0.0
        looked = [sample for sample in looked if (sample.before_s or 0.0) >= ended_s]
        if self._recent or all(sample.score < self._rules.open for sample in looked):
            return []
        self._last_s = latest.before_s
        return [change for sample in (*looked, latest) for change in self.add(sample.time_s, sample.score)]

    def _correct(self, span: Span, now_s: float) -> list[Segment]:
        """A revision with the boundaries that are known now, if they differ from those published."""
        said = self.open
        if said is None:
            return self._report(span, now_s)
        same = said.start_s == span.start_s and said.end_s == span.held_s
        if same or now_s - span.updated_s < UPDATE_PAUSE_S - _ROUND:
            return []
        self.open = self._revision(span, "update")
        span.said_s, span.said_peak, span.updated_s = now_s, span.peak, now_s
        return [self.open]

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

    def _consider(self, sample: Sample) -> list[Segment]:
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
        self._span = span = Span(first, segment_id if near else None, continues=False)
        for sample in self._recent:
            span.hold(sample, sample.score >= self._rules.open)
        self._recent.clear()
        self._recent_hits = 0
        return self._report(span, span.held_s)

    def _extend(self, span: Span, sample: Sample) -> list[Segment]:
        """A segment is open and ``gap_s`` has not passed."""
        if sample.score < self._rules.close:
            span.miss(sample)
            return self._report(span, sample.time_s)
        hit = sample.score >= self._rules.open
        if sample.time_s - span.start_s < self._rules.max_s - _ROUND:
            span.hold(sample, hit)
            return self._report(span, sample.time_s)
        closed = self._close(span, "max_length", sample.time_s)
        self._span = follower = Span(sample, span.segment_id, continues=True)
        follower.hold(sample, hit)
        return closed + self._report(follower, sample.time_s)

    def _close(self, span: Span, reason: Reason, next_s: float) -> list[Segment]:
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

    def _report(self, span: Span, now_s: float) -> list[Segment]:
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
        self, span: Span, state: State, reason: Reason | None = None, end: tuple[float, float] | None = None
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
