"""The events: their shape is published, and does not change by accident."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.events import (
    MAX_BYTES,
    NO_CLOCK,
    Event,
    PolicyInfo,
    StreamContext,
    Totals,
    WallClock,
    closed_by_successor,
    coverage_event,
    segment_event,
    stream_event,
)
from pipeline.flow import segment_rules
from pipeline.flow.coverage import Cause
from pipeline.schema.examples import GOLDEN, LIVE, MODEL, SCHEMA, SEGMENT, examples, texts
from pipeline.schema.models import AnyEnvelope, Reason
from tests.fixtures.events import segment

NOW = 1_795_428_000.120


def schema() -> Any:
    return json.loads(SCHEMA.read_text())


def data(event: Event) -> Any:
    return json.loads(event.body)["data"]


def revision(**changes: Any) -> Event:
    wall = changes.pop("wall", WallClock(NOW - 20.0, "arrival"))
    latency_s = changes.pop("latency_s", (0.18, 0.002))
    return segment_event(
        replace(SEGMENT, **changes),
        LIVE,
        model=MODEL,
        policy=PolicyInfo("default", "0" * 64),
        thresholds=(0.8, 0.6),
        wall=wall,
        latency_s=latency_s,
        now=NOW,
    )


def test_the_committed_schema_and_examples_are_what_the_code_makes() -> None:
    for path, text in texts().items():
        assert path.read_text() == text, f"{path.name} has drifted: run python -m pipeline.events"
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(examples())


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_every_golden_example_satisfies_the_committed_schema(name: str) -> None:
    example = json.loads((GOLDEN / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema()).validate(example)
    AnyEnvelope.validate_json(json.dumps(example))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "score", "peak"), 1.2),
        (("data", "rev"), 0),
        (("data", "verdict"), "block"),
        (("data", "reason"), "bored"),
        (("data", "extra"), 1),
        (("time",), "yesterday"),
        (("specversion",), "0.3"),
    ],
)
def test_the_schema_refuses_what_is_not_an_event(path: tuple[str, ...], value: object) -> None:
    example = json.loads((GOLDEN / "segment-closed.json").read_text())
    place = example
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(example)


def test_the_documents_name_every_cause_of_a_gap() -> None:
    text = (Path(__file__).parents[1] / "docs" / "how-it-works.md").read_text()
    named = text.partition("with its cause: ")[2].partition(".")[0]
    assert re.findall("`(.+?)`", named) == list(get_args(Cause))


def test_the_schema_allows_every_reason_for_which_a_segment_is_closed() -> None:
    given = {reason for some in get_args(segment_rules.Reason) for reason in get_args(some)}
    assert set(get_args(Reason)) == given


def test_the_schema_misses_no_key_that_the_design_names() -> None:
    """The keys of the design's example, by hand: a renamed field must fail here."""
    body = json.loads(revision().body)
    assert list(body) == [
        "specversion",
        "type",
        "source",
        "id",
        "time",
        "subject",
        "datacontenttype",
        "data",
    ]
    assert set(body["data"]) == {
        *("segment_id", "rev", "state", "reason", "previous_segment_id", "tenant", "stream", "category"),
        *("verdict", "media", "wall", "score", "model", "policy", "evidence", "latency_ms"),
    }
    assert set(body["data"]["stream"]) == {"id", "session", "kind", "url", "labels"}
    assert set(body["data"]["media"]) == {"start_s", "end_s", "start_uncertainty_s", "end_uncertainty_s"}
    assert set(body["data"]["score"]) == {"peak", "mean", "peak_s", "samples", "hits", "open", "close"}
    assert set(body["data"]["wall"]) == {"start", "end", "clock"}
    assert set(body["data"]["latency_ms"]) == {"capture_to_score", "score_to_outbox"}


def test_a_segment_event_counts_wall_time_from_media_second_zero() -> None:
    """Media 0 was at 09:59:40.120; the segment runs from 12.34 s to 13.5 s."""
    event = revision()
    assert data(event)["wall"] == {
        "start": "2026-11-23T09:59:52.460Z",
        "end": "2026-11-23T09:59:53.620Z",
        "clock": "arrival",
    }
    assert data(event)["latency_ms"] == {"capture_to_score": 180, "score_to_outbox": 2}
    assert json.loads(event.body)["time"] == "2026-11-23T10:00:00.120Z"
    assert event.id == f"{SEGMENT.segment_id}:1"


def test_a_file_that_is_not_read_in_real_time_has_no_wall_time_and_no_latency() -> None:
    event = revision(wall=NO_CLOCK, latency_s=(0.5, 0.1))
    assert data(event)["wall"] == {"start": None, "end": None, "clock": "none"}
    assert data(event)["latency_ms"] == {"capture_to_score": None, "score_to_outbox": None}


def test_a_clock_and_its_epoch_go_together() -> None:
    with pytest.raises(ValueError, match="arrival"):
        WallClock(None, "arrival")
    with pytest.raises(ValueError, match="none"):
        WallClock(1.0, "none")


def test_redis_fields_stand_beside_the_event_and_only_those_that_exist() -> None:
    fields = revision().fields()
    assert json.loads(fields.pop("event"))["data"]["category"] == "sexual"
    assert fields == {
        "id": f"{SEGMENT.segment_id}:1",
        "type": "framewarden.segment.v1",
        "rev": "1",
        "state": "open",
        "stream": "cam-7",
        "category": "sexual",
        "tenant": "default",
    }
    lost = stream_event(LIVE, state="lost", reason="timeout", now=NOW)
    assert set(lost.fields()) == {"event", "id", "type", "state", "stream", "tenant"}
    gap = coverage_event(LIVE, media_s=(1.0, 9.0), wall_s=(NOW, NOW + 8), seconds=8.0, cause="late", now=NOW)
    assert set(gap.fields()) == {"event", "id", "type", "stream", "tenant"}
    assert (revision().topic, gap.topic, lost.topic) == ("segments", "health", "health")


def test_the_end_of_a_stream_carries_its_totals() -> None:
    ended = stream_event(LIVE, state="ended", totals=Totals(60.0, 50.0, 1.0, 2.0, 7.0, 3), now=NOW)
    assert data(ended) | {"stream": None} == {
        "tenant": "default",
        "stream": None,
        "state": "ended",
        "reason": None,
        "duration_s": 60.0,
        "screened_s": 50.0,
        "late_s": 1.0,
        "dropped_s": 2.0,
        "lost_s": 7.0,
        "segments": 3,
    }


def test_a_successor_closes_what_was_open_at_its_last_scored_sample() -> None:
    closed = closed_by_successor(revision(rev=4, state="update"), last_scored_s=16.5, now=NOW + 3)
    found = data(closed)
    assert (found["rev"], found["state"], found["reason"]) == (5, "closed", "shutdown")
    assert closed.id == f"{SEGMENT.segment_id}:5"
    assert found["media"]["start_s"] == 12.34
    assert found["media"]["end_s"] == 16.5
    assert found["wall"]["end"] == "2026-11-23T09:59:56.620Z"
    AnyEnvelope.validate_json(closed.body)


def test_a_successor_never_ends_a_segment_before_its_peak() -> None:
    closed = closed_by_successor(revision(peak_s=13.5), last_scored_s=0.0, now=NOW)
    assert data(closed)["media"]["end_s"] == 13.5


texts_of_strangers = st.text(max_size=300)


@given(
    texts_of_strangers,
    texts_of_strangers,
    st.dictionaries(texts_of_strangers, texts_of_strangers, max_size=9),
)
def test_any_names_and_labels_give_a_valid_event_within_64_kib_or_a_config_error(
    stream_id: str, reason: str, labels: dict[str, str]
) -> None:
    context = StreamContext("n", "t", stream_id or "x", "s", "live", "rtsp://h/p", labels)
    event = stream_event(context, state="failed", reason=reason * 50, now=NOW)
    AnyEnvelope.validate_json(event.body)
    assert len(event.body.encode()) <= MAX_BYTES
    assert Event.from_json(event.body) == event


def test_labels_that_would_not_fit_are_refused_when_the_stream_starts() -> None:
    with pytest.raises(ConfigError, match=r"cam-7.*shorten the labels"):
        StreamContext("n", "t", "cam-7", "s", "live", "rtsp://h/p", {"note": "x" * 30_000})


def test_the_largest_names_that_are_accepted_still_fit() -> None:
    """20 KiB of characters that JSON must escape, named twice, and a long reason."""
    context = StreamContext("n", "t", "\x01" * 3_300, "s", "live", "rtsp://h/p")
    event = stream_event(context, state="failed", reason="\x01" * 5_000, now=NOW)
    assert 40_000 < len(event.body.encode()) <= MAX_BYTES


def test_a_file_name_that_is_not_utf8_becomes_readable_escapes() -> None:
    name = b"/data/caf\xe9.mp4".decode("utf-8", "surrogateescape")
    event = stream_event(StreamContext("n", "t", name, None, "file", name), state="failed", now=NOW)
    assert event.stream == r"/data/caf\udce9.mp4"
    AnyEnvelope.validate_json(event.body)


@given(st.text(max_size=80) | st.sampled_from(["{}", "[]", '{"data":1}', "[" * 5000]))
def test_reading_back_what_is_no_event_raises_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Event.from_json(text)


def test_an_event_of_a_later_version_with_more_keys_is_still_read() -> None:
    body = json.loads(segment().body)
    body["data"]["new"] = {"later": True}
    assert Event.from_json(json.dumps(body)).category == "sexual"


def test_not_a_number_is_never_published() -> None:
    with pytest.raises(ValueError, match="peak"):
        revision(peak=float("nan"))
