"""Golden examples: one event of every kind and state, written to ``tests/golden`` for consumers."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.events import (
    NO_CLOCK,
    Event,
    PolicyInfo,
    StreamContext,
    Totals,
    WallClock,
    closed_by_successor,
    coverage_event,
    json_schema,
    segment_event,
    stream_event,
)
from pipeline.flow.classify import ModelInfo
from pipeline.flow.segment import Segment

SCHEMA = Path(__file__).with_name("events-1.json")
GOLDEN = Path(__file__).parents[2] / "tests" / "golden"

NOW = 1_795_428_000.120  # 2026-11-23T10:00:00.120Z
LIVE = StreamContext(
    "vm-3", "default", "cam-7", "s-1", "live", "rtsp://***@10.0.0.7/stream1", {"site": "west"}
)
FILE = StreamContext("vm-3", "default", "uploads", "s-2", "file", "file:///data/uploads/größe.mp4")
MODEL = ModelInfo("open-nsfw", "1.0", "6b" * 32, "tent-1", "openvino-bf16")
POLICY = PolicyInfo("default", "c0" * 32)
SEGMENT = Segment(
    segment_id="01909f3e-7c4a-7000-8000-000000000001",
    rev=1,
    state="open",
    reason=None,
    previous_segment_id=None,
    category="sexual",
    start_s=12.34,
    end_s=13.5,
    start_uncertainty_s=0.5,
    end_uncertainty_s=0.0,
    peak=0.91,
    mean=0.91,
    peak_s=13.5,
    samples=1,
    hits=1,
)


def examples() -> dict[str, Event]:
    """Name → event; the same on every call."""
    ids = iter(f"01909f3e-7c4a-7000-8000-0000000001{n:02d}" for n in range(100))

    def segment(context: StreamContext, revision: Segment, wall: WallClock) -> Event:
        return segment_event(
            revision,
            context,
            model=MODEL,
            policy=POLICY,
            thresholds=(0.8, 0.6),
            wall=wall,
            latency_s=(0.180, 0.002),
            now=NOW,
        )

    arrival = WallClock(NOW - 15.6, "arrival")
    opened = segment(LIVE, SEGMENT, arrival)
    grown = replace(SEGMENT, rev=2, state="update", peak=0.97, mean=0.94, samples=2, hits=2)
    closed = replace(grown, rev=3, state="closed", reason="ended", end_s=15.0, end_uncertainty_s=0.5)
    in_file = replace(closed, rev=1, start_s=0.0, start_uncertainty_s=0.0, reason="end_of_stream")
    gap = (NOW - 30.0, NOW)
    totals = Totals(60.0, 55.5, 0.0, 0.0, 4.5, 1)
    unopened = replace(LIVE, session=None)
    return {
        "segment-open": opened,
        "segment-update": segment(LIVE, grown, arrival),
        "segment-closed": segment(LIVE, closed, arrival),
        "segment-closed-by-successor": closed_by_successor(opened, last_scored_s=16.0, now=NOW + 1),
        "segment-closed-in-file": segment(FILE, in_file, NO_CLOCK),
        "coverage-live": coverage_event(
            LIVE,
            media_s=(16.0, 46.0),
            wall_s=gap,
            seconds=30.0,
            cause="stalled",
            now=NOW,
            new_id=ids.__next__,
        ),
        "coverage-file": coverage_event(
            FILE,
            media_s=(3.0, 7.5),
            wall_s=(None, None),
            seconds=4.5,
            cause="corrupt",
            now=NOW,
            new_id=ids.__next__,
        ),
        "coverage-not-started": coverage_event(
            unopened,
            media_s=(None, None),
            wall_s=gap,
            seconds=30.0,
            cause="not_started",
            now=NOW,
            new_id=ids.__next__,
        ),
        "stream-connected": stream_event(LIVE, state="connected", now=NOW, new_id=ids.__next__),
        "stream-lost": stream_event(LIVE, state="lost", reason="timeout", now=NOW, new_id=ids.__next__),
        "stream-ended": stream_event(FILE, state="ended", totals=totals, now=NOW, new_id=ids.__next__),
        "stream-failed": stream_event(
            replace(FILE, session=None), state="failed", reason="not_found", now=NOW, new_id=ids.__next__
        ),
    }


def texts() -> dict[Path, str]:
    """What the committed schema and golden files are to hold."""
    golden = {GOLDEN / f"{name}.json": json.loads(event.body) for name, event in examples().items()}
    wanted = {SCHEMA: json_schema()} | golden
    return {path: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for path, value in wanted.items()}


def write() -> Iterator[Path]:
    """Write them all anew, naming each."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
        yield path
