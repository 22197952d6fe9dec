"""What a stream wants to have recorded: its segments, gaps and states as events, its progress and finished
files."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline import events
from pipeline.config import Config, Stream
from pipeline.events import Event, StreamContext, Totals, WallClock
from pipeline.flow.classify import ModelInfo
from pipeline.flow.coverage import Gap
from pipeline.flow.segment import Segment
from pipeline.flow.source import Kind
from pipeline.masking import mask_text, mask_url
from pipeline.outbox import Finished, Progress
from pipeline.schema.models import StreamState


@dataclass(slots=True)
class Recording:
    """Goes to disk in one transaction, in this order."""

    events: list[Event] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)

    def add(self, other: "Recording") -> None:
        """Append what another stream wants."""
        self.events += other.events
        self.progress += other.progress
        self.finished += other.finished

    def __bool__(self) -> bool:
        return bool(self.events or self.progress or self.finished)


class Reporter:
    """Words a stream's events. ``wall`` says when the session's media second 0 was. ``unix`` is Unix seconds,
    ``now`` the monotonic seconds of the same moment."""

    def __init__(self, stream: Stream, kind: Kind, config: Config) -> None:
        self.out = Recording()
        self.wall: WallClock = events.NO_CLOCK
        self._stream = stream
        self._config = config
        self._policy = events.PolicyInfo(*config.policy_info(stream))
        self._context = context_of(stream, kind, config)

    def session(self, session: str | None, item: str) -> None:
        """From here on events are of this session, and of this file if it is one."""
        url = mask_url(item or self._stream.url)
        self._context = replace(self._context, session=session, url=url)
        self.wall = events.NO_CLOCK

    def segments(
        self,
        changes: Sequence[tuple[Segment, ModelInfo]],
        latency_s: tuple[float | None, float | None],
        unix: float,
    ) -> None:
        """Revisions of segments; ``latency_s`` is capture to score, and score to now."""
        for segment, model in changes:
            rules = self._config.segment_rules(self._stream, segment.category)
            self.out.events.append(
                events.segment_event(
                    segment,
                    self._context,
                    model=model,
                    policy=self._policy,
                    thresholds=(rules.open, rules.close),
                    wall=self.wall,
                    latency_s=latency_s,
                    now=unix,
                )
            )

    def gaps(self, gaps: Sequence[Gap], now: float, unix: float) -> None:
        """Coverage gaps that ended or go on."""
        for gap in gaps:
            live = self._context.kind == "live"
            wall = (unix - now + gap.from_clock_s, unix - now + gap.to_clock_s) if live else (None, None)
            self.out.events.append(
                events.coverage_event(
                    self._context,
                    media_s=(gap.from_media_s, gap.to_media_s),
                    wall_s=wall,
                    seconds=gap.seconds,
                    cause=gap.cause,
                    now=unix,
                )
            )

    def state(
        self, state: StreamState, unix: float, reason: str | None = None, totals: Totals | None = None
    ) -> None:
        """The stream changed its state."""
        text = mask_text(reason) if reason else None
        event = events.stream_event(self._context, state=state, now=unix, reason=text, totals=totals)
        self.out.events.append(event)

    def collect(self) -> Recording:
        """What waits to be recorded, once."""
        out, self.out = self.out, Recording()
        return out


def context_of(stream: Stream, kind: Kind, config: Config) -> StreamContext:
    """A stream's part in its events, before its first session."""
    return StreamContext(
        node=config.node,
        tenant=stream.tenant,
        stream_id=stream.id,
        session=None,
        kind=kind,
        url=mask_url(stream.url),
        labels=dict(stream.labels),
    )
