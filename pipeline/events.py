"""Builds the events that the outbox accepts and Redis gets: CloudEvents envelopes, version 1.

``segment_event``, ``coverage_event`` and ``stream_event`` are pure: time comes in as Unix seconds, and the
same arguments give the same event, but for a new ``id`` of the latter two. What they return satisfies
``pipeline/schema/events-1.json`` and is at most 64 KiB: the parts that users name are measured once, in
``StreamContext``. ``python -m pipeline.events`` writes the schema and the golden examples anew.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pipeline.flow.classify import ModelInfo
from pipeline.flow.coverage import Cause
from pipeline.flow.segment import Segment
from pipeline.schema import models
from pipeline.schema.models import StreamState, json_schema
from pipeline.schema.records import (
    MAX_BYTES,
    NO_CLOCK,
    Event,
    PolicyInfo,
    StreamContext,
    Totals,
    WallClock,
    new_id,
    timestamp,
    utf8,
)

__all__ = [
    "MAX_BYTES",
    "NO_CLOCK",
    "Event",
    "PolicyInfo",
    "StreamContext",
    "Totals",
    "WallClock",
    "closed_by_successor",
    "coverage_event",
    "json_schema",
    "new_id",
    "segment_event",
    "stream_event",
    "timestamp",
    "utf8",
]

_REASON_CHARS = 1000


def segment_event(
    segment: Segment,
    context: StreamContext,
    *,
    model: ModelInfo,
    policy: PolicyInfo,
    thresholds: tuple[float, float],
    wall: WallClock,
    latency_s: tuple[float | None, float | None],
    now: float,
) -> Event:
    """One revision of a segment.

    ``thresholds`` are (open, close) in force; ``latency_s`` is seconds from the picture's arrival to its
    score and from there to the outbox, not said for ``clock`` none; ``now`` is Unix seconds."""
    said = latency_s if wall.clock != "none" else (None, None)
    capture, outbox = (None if s is None else max(0, round(s * 1000)) for s in said)
    data = {
        "segment_id": segment.segment_id,
        "rev": segment.rev,
        "state": segment.state,
        "reason": segment.reason,
        "previous_segment_id": segment.previous_segment_id,
        "tenant": context.tenant,
        "stream": context.block(),
        "category": segment.category,
        "verdict": "review",
        "media": {
            "start_s": _ms(segment.start_s),
            "end_s": _ms(segment.end_s),
            "start_uncertainty_s": _ms(segment.start_uncertainty_s),
            "end_uncertainty_s": _ms(segment.end_uncertainty_s),
        },
        "wall": {"start": wall.at(segment.start_s), "end": wall.at(segment.end_s), "clock": wall.clock},
        "score": {
            "peak": _score(segment.peak),
            "mean": _score(segment.mean),
            "peak_s": _ms(segment.peak_s),
            "samples": segment.samples,
            "hits": segment.hits,
            "open": float(thresholds[0]),
            "close": float(thresholds[1]),
        },
        "model": asdict(model),
        "policy": asdict(policy),
        "evidence": [],
        "latency_ms": {"capture_to_score": capture, "score_to_outbox": outbox},
    }
    return _wrap(models.SegmentEnvelope, f"{segment.segment_id}:{segment.rev}", context, data, now)


def closed_by_successor(last: Event, *, last_scored_s: float, now: float) -> Event:
    """The closing revision of a segment that a killed worker left open; ``last`` is its latest event.

    It ends at the last scored sample of its session (never before what was published), with reason
    ``shutdown`` and the next ``rev``; model, policy and thresholds stay those that found it."""
    envelope = json.loads(last.body)
    data = envelope["data"]
    media, wall = data["media"], data["wall"]
    end_s = _ms(max(last_scored_s, media["start_s"], data["score"]["peak_s"]))
    if wall["start"] is not None:
        start = datetime.fromisoformat(wall["start"]).timestamp()
        wall["end"] = timestamp(start + end_s - media["start_s"])
    media |= {"end_s": end_s, "end_uncertainty_s": 0.0}
    data |= {"rev": data["rev"] + 1, "state": "closed", "reason": "shutdown"}
    data["latency_ms"] = {"capture_to_score": None, "score_to_outbox": None}
    envelope |= {"id": f"{data['segment_id']}:{data['rev']}", "time": timestamp(now), "data": data}
    return _event(models.SegmentEnvelope.model_validate(envelope))


def coverage_event(
    context: StreamContext,
    *,
    media_s: tuple[float | None, float | None],
    wall_s: tuple[float | None, float | None],
    seconds: float,
    cause: Cause,
    now: float,
    new_id: Callable[[], str] = new_id,
) -> Event:
    """A gap, or the part of a lasting one since the last event; ``media_s`` and ``wall_s`` are (from, to)."""
    begin, end = (None if s is None else timestamp(s) for s in wall_s)
    data = {
        "tenant": context.tenant,
        "stream": context.block(),
        "media": dict(zip(("from_s", "to_s"), map(_ms_or_none, media_s), strict=True)),
        "wall": {"from": begin, "to": end},
        "seconds": _ms(seconds),
        "cause": cause,
    }
    return _wrap(models.CoverageEnvelope, new_id(), context, data, now)


def stream_event(
    context: StreamContext,
    *,
    state: StreamState,
    now: float,
    reason: str | None = None,
    totals: Totals | None = None,
    new_id: Callable[[], str] = new_id,
) -> Event:
    """A change in a stream's state. ``reason`` is a stable word or a sentence without credentials."""
    names = ("duration_s", "screened_s", "late_s", "dropped_s", "lost_s")
    data = {
        "tenant": context.tenant,
        "stream": context.block(),
        "state": state,
        "reason": None if reason is None else utf8(reason[:_REASON_CHARS]),
        **{name: _ms_or_none(getattr(totals, name, None)) for name in names},
        "segments": None if totals is None else totals.segments,
    }
    return _wrap(models.StreamEnvelope, new_id(), context, data, now)


def _wrap(
    kind: type[models.SegmentEnvelope | models.CoverageEnvelope | models.StreamEnvelope],
    event_id: str,
    context: StreamContext,
    data: dict[str, Any],
    now: float,
) -> Event:
    envelope = {
        "source": f"/framewarden/{context.node}",
        "id": event_id,
        "time": timestamp(now),
        "subject": f"{context.tenant}/{context.stream_id}",
        "data": data,
    }
    return _event(kind.model_validate(envelope))


def _event(envelope: models.Envelope) -> Event:
    return Event.from_json(envelope.model_dump_json(by_alias=True))


def _ms(seconds: float) -> float:
    return round(max(0.0, float(seconds)), 3)


def _ms_or_none(seconds: float | None) -> float | None:
    return None if seconds is None else _ms(seconds)


def _score(value: float) -> float:
    return round(float(value), 6)


def _main() -> None:
    from pipeline.schema import examples

    for path in examples.write():
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    _main()
