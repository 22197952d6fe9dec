"""Version 1 of the events, as pydantic models: CloudEvents 1.0 envelopes around three kinds of data.

Seconds are floats, ``*_ms`` are whole milliseconds, wall times are RFC 3339 in UTC with milliseconds. A value
that does not apply is null, never left out, so that consumers need no "is it there" checks. The committed
``events-1.json`` is generated from here (``python -m pipeline.events``); a test fails when they drift apart.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pipeline.flow.coverage import Cause
from pipeline.flow.segment_rules import State
from pipeline.flow.source import Kind

SEGMENT: Final = "framewarden.segment.v1"
COVERAGE: Final = "framewarden.coverage.v1"
STREAM: Final = "framewarden.stream.v1"

Reason = Literal["ended", "end_of_stream", "stream_lost", "max_length", "shutdown", "policy_change"]
StreamState = Literal["connected", "stalled", "lost", "recovered", "ended", "failed", "quarantined"]
Clock = Literal["sender", "arrival", "none"]

Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0)]
Score = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$")]


class Strict(BaseModel):
    """Nothing unknown, nothing coerced, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StreamBlock(Strict):
    """Which stream. ``session`` is one per connect, file or pass; null before the first one."""

    id: Text
    session: Text | None
    kind: Kind
    url: Text = Field(description="Credentials, query values and stream keys are masked.")
    labels: dict[str, str]


class SessionBlock(StreamBlock):
    """Which session of which stream."""

    session: Text


class MediaSpan(Strict):
    """Seconds since the first video picture of the session."""

    start_s: Seconds
    end_s: Seconds
    start_uncertainty_s: Seconds
    end_uncertainty_s: Seconds


class WallSpan(Strict):
    """The same span on a clock of the wall; null when ``clock`` is ``none`` (files not read in real time)."""

    start: Timestamp | None
    end: Timestamp | None
    clock: Clock


class ScoreBlock(Strict):
    """What was seen: ``samples`` from the first hit to the last held, ``hits`` at or above ``open``."""

    peak: Score
    mean: Score
    peak_s: Seconds
    samples: Count
    hits: Count
    open: Score = Field(description="The threshold in force for opening.")
    close: Score = Field(description="The threshold in force for closing.")


class ModelBlock(Strict):
    """What scored it."""

    name: Text
    version: Text
    sha256: Text
    preprocess: Text
    engine: Text


class PolicyBlock(Strict):
    """What decided; ``sha256`` is of the policy's canonical JSON."""

    name: Text
    sha256: Text


class LatencyBlock(Strict):
    """Milliseconds from the picture's arrival to its score, and from the score to the outbox."""

    capture_to_score: Count | None
    score_to_outbox: Count | None


class SegmentData(Strict):
    """A flagged span of one stream and category. ``rev`` rises by 1; the highest is the truth."""

    segment_id: Text
    rev: Annotated[int, Field(ge=1)]
    state: State
    reason: Reason | None = Field(description="Why it closed; null while it is open.")
    previous_segment_id: Text | None
    tenant: Text
    stream: SessionBlock
    category: Text
    verdict: Literal["review"]
    media: MediaSpan
    wall: WallSpan
    score: ScoreBlock
    model: ModelBlock
    policy: PolicyBlock
    evidence: list[dict[str, Any]] = Field(description="References only; empty in this version.")
    latency_ms: LatencyBlock


class MediaGap(Strict):
    """Seconds since the first video picture of the session; null when the stream had none yet."""

    from_s: Seconds | None
    to_s: Seconds | None


class WallGap(Strict):
    """When; null for files read as fast as possible."""

    from_: Timestamp | None = Field(alias="from")
    to: Timestamp | None


class CoverageData(Strict):
    """A span that was not screened as promised, and why."""

    tenant: Text
    stream: StreamBlock
    media: MediaGap
    wall: WallGap
    seconds: Seconds
    cause: Cause


class StreamData(Strict):
    """A stream changed its state. The totals are null until it ended, failed or was lost for good."""

    tenant: Text
    stream: StreamBlock
    state: StreamState
    reason: str | None
    duration_s: Seconds | None
    screened_s: Seconds | None
    late_s: Seconds | None
    dropped_s: Seconds | None
    lost_s: Seconds | None
    segments: Count | None


class Envelope(Strict):
    """CloudEvents 1.0, structured JSON, at most 64 KiB. ``source`` and ``id`` together are unique."""

    specversion: Literal["1.0"] = "1.0"
    type: str
    source: Annotated[str, Field(pattern=r"^/framewarden/.+")]
    id: Text
    time: Timestamp = Field(description="When the outbox accepted it.")
    subject: Text = Field(description="<tenant>/<stream>")
    datacontenttype: Literal["application/json"] = "application/json"


class SegmentEnvelope(Envelope):
    """A flagged segment; ``id`` is ``<segment_id>:<rev>``."""

    type: Literal["framewarden.segment.v1"] = SEGMENT
    data: SegmentData


class CoverageEnvelope(Envelope):
    """A gap in the screening of a stream."""

    type: Literal["framewarden.coverage.v1"] = COVERAGE
    data: CoverageData


class StreamEnvelope(Envelope):
    """A change in the state of a stream."""

    type: Literal["framewarden.stream.v1"] = STREAM
    data: StreamData


AnyEnvelope: TypeAdapter[SegmentEnvelope | CoverageEnvelope | StreamEnvelope] = TypeAdapter(
    Annotated[SegmentEnvelope | CoverageEnvelope | StreamEnvelope, Field(discriminator="type")]
)
"""Validates any event of version 1: ``AnyEnvelope.validate_json(text)``."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of every event of version 1."""
    # Serialisation mode: in what we write no key is ever left out, so all are required.
    schema = AnyEnvelope.json_schema(mode="serialization", by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:framewarden:events:1",
        "title": "framewarden events, version 1",
        **schema,
    }
