"""What a stream's scores come to: the segments of each category, and where a closer look is wanted."""

from collections.abc import Mapping, Sequence

from pipeline import events
from pipeline.config import Config, Stream
from pipeline.flow.classify import ModelInfo
from pipeline.flow.look import Look, Lookout
from pipeline.flow.segment import EndReason, Segment, SegmentBuilder
from pipeline.service.order import Verdict

Change = tuple[Segment, ModelInfo]
"""A revision of a segment, and the model that gave its peak."""


class Flagging:
    """One builder a category, anew with each session; between sessions there is nothing to flag."""

    def __init__(self, stream: Stream, config: Config, categories: Sequence[str]) -> None:
        self._rules = {category: config.segment_rules(stream, category) for category in categories}
        self._lookout = Lookout(self._rules, config.sampling_of(stream))
        self._builders: dict[str, SegmentBuilder] = {}
        self._shorter = 0
        self._found_by: dict[str, tuple[ModelInfo, float]] = {}

    @property
    def open_segments(self) -> int:
        """Segments that go on now."""
        return sum(builder.open is not None for builder in self._builders.values())

    @property
    def shorter(self) -> int:
        """Segments that stayed under ``min_s``: they were not published."""
        return self._shorter + sum(builder.shorter for builder in self._builders.values())

    def begin(self, resumed_s: float | None, previous: Mapping[str, tuple[str, float]]) -> None:
        """A session begins. If it goes on after a crash, ``resumed_s`` is its last sample before it, and
        ``previous`` the id and the end of the last closed segment of each category."""
        self._lookout.restart(resumed_s)
        self._builders = {
            category: SegmentBuilder(
                category,
                rules,
                new_id=events.new_id,
                previous_sample_s=resumed_s,
                previous=previous.get(category),
            )
            for category, rules in self._rules.items()
        }

    def add(self, verdict: Verdict) -> tuple[list[Change], Look | None]:
        """A scored sample: what it changes, and the look that it asks for."""
        time_s = verdict.sample.time_s
        changes: list[Change] = []
        for category, (score, info) in verdict.scores.items():
            self._note(category, score, info)
            changes += self._by_model(category, self._builders[category].add(time_s, score))
        if verdict.dropped:  # not every category was scored: no look may reach across it
            self._lookout.restart(None)
            return changes, None
        scores = {category: score for category, (score, _) in verdict.scores.items()}
        return changes, self._lookout.judge(time_s, scores)

    def refine(self, seen: Sequence[Verdict]) -> list[Change]:
        """A closer look at the time before the last sample."""
        changes: list[Change] = []
        for category, builder in self._builders.items():
            scored = [(v.sample.time_s, *v.scores[category]) for v in seen if category in v.scores]
            if scored:
                _, score, info = max(scored, key=lambda one: one[1])
                self._note(category, score, info)
            changes += self._by_model(category, builder.refine([(t, score) for t, score, _ in scored]))
        return changes

    def advance(self, time_s: float) -> list[Change]:
        """Media time has reached ``time_s`` with every sample before it added."""
        return [
            change
            for category, builder in self._builders.items()
            if builder.open is not None
            for change in self._by_model(category, builder.advance(time_s))
        ]

    def end(self, time_s: float, reason: EndReason) -> list[Change]:
        """The session is over."""
        builders, self._builders = self._builders, {}
        changes = [c for name, b in builders.items() for c in self._by_model(name, b.end(time_s, reason))]
        self._shorter += sum(builder.shorter for builder in builders.values())
        return changes

    def _note(self, category: str, score: float, info: ModelInfo) -> None:
        """Remember who gave the highest score of the segment that goes on, or may begin."""
        known = self._found_by.get(category)
        if known is None or self._builders[category].open is None or score > known[1]:
            self._found_by[category] = (info, score)

    def _by_model(self, category: str, segments: Sequence[Segment]) -> list[Change]:
        return [(segment, self._found_by[category][0]) for segment in segments]
