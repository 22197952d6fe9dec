"""``framewarden run``: real streams in, segments out of a real Redis, and what happens when things die."""

import itertools
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.join_ffmpeg import join_clips
from pipeline.flow.sample import TOLERANCE
from pipeline.outbox import Outbox
from tests.fixtures.lifecycle import gaps, row, snapshot, wait_for_ends, worker_pids
from tests.fixtures.media import demux
from tests.fixtures.redis import RedisServer, until
from tests.fixtures.rtsp import RtspServer
from tests.fixtures.service import WAIT_S, Command, film, segments

Start = Callable[..., Command]
SMALL: dict[str, Any] = {"size": (320, 240), "rate": 10}
"""Of a film that is long: it is made in a second."""


def config(path: Path, streams: list[dict[str, Any]], **keys: Any) -> Path:
    """Write a config; YAML reads JSON."""
    path.write_text(json.dumps({"state_dir": "state", "streams": streams, **keys}))
    return path


def opened(command: Command, stream: str) -> list[dict[str, Any]]:
    return [s for s in segments(command.events, "open") if s["stream"]["id"] == stream]


def closed(command: Command, stream: str) -> list[dict[str, Any]]:
    return [s for s in segments(command.events) if s["stream"]["id"] == stream]


def scored_s(outbox: Outbox, stream: str) -> float:
    """How far a stream was screened, by what is on disk."""
    progress = outbox.progress(stream)
    return (progress.last_scored_s if progress else None) or 0.0


def beyond_peak(outbox: Outbox, stream: str) -> bool:
    """Whether it was screened further than its open segment's highest score, before which that cannot end."""
    peaks = [json.loads(event.body)["data"]["score"]["peak_s"] for event in outbox.open_segments(stream)]
    return bool(peaks) and scored_s(outbox, stream) > max(peaks)


def test_three_rtsp_streams_are_flagged_into_redis(
    framewarden: Start, rtsp_server: RtspServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    spans = {"a": (1.2, 4.0), "b": (2.1, 4.7), "c": (1.0, 3.6)}
    for name, span in spans.items():
        film(rtsp_server.folder / f"{name}.mp4", 8, span, gop_s=1.0)
    streams = [
        {"id": name, "url": rtsp_server.url(f"{name}.mp4", loop=True), "sampling": {"max_gap_s": 1.0}}
        for name in spans
    ]
    settings = config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url})
    command = framewarden("run", settings, "--json")
    command.wait_for(lambda c: all(closed(c, name) for name in spans))
    assert command.terminate() == 0, command.stderr
    with redis_server.client() as client:
        entries = client.xrange("framewarden:segments")
        groups = client.xinfo_groups("framewarden:segments")
    assert [group["name"] for group in groups] == ["review"]
    sent = [json.loads(fields["event"]) for _, fields in entries]
    ours = [e for e in command.events if e["type"] == "framewarden.segment.v1"]
    assert {e["id"] for e in sent} == {e["id"] for e in ours}
    for _, fields in entries:
        assert fields["id"] == json.loads(fields["event"])["id"]
        assert {"type", "rev", "state", "stream", "category", "tenant"} <= set(fields)
    for name in spans:
        revisions = [e["data"]["rev"] for e in sent if e["data"]["stream"]["id"] == name]
        assert revisions[0] == 1
        first = closed(command, name)[0]
        assert first["stream"]["kind"] == "live"
        assert first["wall"]["clock"] in ("arrival", "sender")
        assert first["latency_ms"]["capture_to_score"] is None or first["latency_ms"]["capture_to_score"] >= 0


@pytest.mark.parametrize(("camera", "passes"), [("paced file", 1), ("RTSP", 2)])
def test_a_live_boundary_is_corrected_by_a_closer_look(
    framewarden: Start,
    redis_server: RedisServer,
    rtsp_server: RtspServer,
    tmp_path: Path,
    camera: str,
    passes: int,
) -> None:
    """The open event comes at once, as uncertain as the gap; the next revision has the boundary, then the
    end. The RTSP server plays the film from its start to each viewer, and its clock goes on from pass to
    pass."""
    path = film(rtsp_server.folder / "one.mp4", 9, (1.3, 5.6))
    played = {"url": rtsp_server.url("one.mp4", loop=True)}
    if camera == "paced file":
        played = {"url": str(path), "pace": "realtime"}
    streams = [{"id": "cam", "sampling": {"audit": 0}, **played}]
    keys: dict[str, Any] = {"redis": {"url": redis_server.url}, "policy": {"sexual": {"gap_s": 2.0}}}
    command = framewarden("run", config(tmp_path / "run.yaml", streams, **keys), "--json")
    command.wait_for(lambda c: len(closed(c, "cam")) == passes)
    assert command.terminate() == 0, command.stderr
    first = opened(command, "cam")[0]
    assert (first["media"]["start_s"], first["media"]["start_uncertainty_s"]) == (1.0, 1.0)
    updates = segments(command.events, "update")
    assert abs(updates[0]["media"]["start_s"] - 1.3) <= 0.25
    for number, end in enumerate(closed(command, "cam")):
        assert end["reason"] == "ended"
        for key, truth in (("start", 1.3), ("end", 5.6)):
            assert abs(end["media"][f"{key}_s"] - (9 * number + truth)) <= 0.25
            assert end["media"][f"{key}_uncertainty_s"] <= 0.125


def test_a_live_stream_whose_keyframes_become_rare_and_frequent_again_never_leaves_a_gap(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A keyframe a second up to 4 s, none up to 10 s, then one a second again: at 13 s there have been three
    good GOPs in a row."""
    parts = [
        film(tmp_path / f"{gop_s}-{seconds}.mp4", seconds, size=(320, 180), rate=10, gop_s=gop_s)
        for seconds, gop_s in ((4, 1.0), (6, 6.0), (5.5, 1.0))
    ]
    join_clips(parts, tmp_path / "one.mp4")
    _, packets = demux(tmp_path / "one.mp4")
    assert [p.time_s for p in packets if p.keyframe] == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15]
    streams = [{"id": "cam", "url": "one.mp4", "pace": "realtime", "sampling": {"audit": 0}}]
    settings = config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url})
    command = framewarden("run", settings, "--json", "--exit-at-end")

    def now(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return row(snapshot(tmp_path, lambda s: wanted(row(s, "cam"))), "cam")

    moments = [now(lambda r: r.get("frames", 0) > 0), now(lambda r: r["plan"] != "keyframes")]
    assert command.end() == 0, command.stderr
    moments.append(now(lambda r: r["state"] == "ended"))
    assert [(moment["plan"], moment["why"]) for moment in moments] == [
        ("keyframes", "keyframes, until they prove too rare"),
        ("skip", "keyframes come less often than every 2 s"),
        ("keyframes", "a keyframe every 1 s keeps the gap"),
    ]
    lost = [moment["coverage"]["lost_s"] for moment in moments]
    assert lost == [lost[0]] * 3
    assert {gap["cause"] for gap in gaps(command, "cam")} <= {"not_started"}
    (end,) = [e["data"] for e in command.events if e["data"].get("state") == "ended"]
    assert (end["dropped_s"], end["late_s"]) == (0, 0)
    assert 0 < moments[-1]["gap_worst_s"] <= moments[-1]["max_gap_s"] * TOLERANCE + 0.001


def test_a_killed_worker_comes_back_and_its_streams_go_on(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    film(tmp_path / "long.mp4", 30, (1.5, 30.0), **SMALL)
    streams = [{"id": "cam", "url": "long.mp4", "pace": "realtime", "loop": True}]
    command = framewarden(
        "run", config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url}), "--json"
    )
    command.wait_for(lambda c: bool(opened(c, "cam")))
    (pid,) = worker_pids(command.process.pid)
    with Outbox(tmp_path / "state" / "outbox.sqlite") as outbox:
        until(lambda: beyond_peak(outbox, "cam"), WAIT_S)
        os.kill(command.process.pid, signal.SIGSTOP)  # nobody takes its place while the progress is read
        os.kill(pid, signal.SIGKILL)
        assert wait_for_ends([pid], 5)
        (left,) = outbox.open_segments("cam")
        last_s = scored_s(outbox, "cam")
        os.kill(command.process.pid, signal.SIGCONT)
    first = left.segment_id
    command.wait_for(lambda c: opened(c, "cam")[-1]["segment_id"] != first)
    (end,) = [s for s in closed(command, "cam") if s["segment_id"] == first]
    assert end["reason"] == "shutdown"
    assert end["media"]["end_s"] == pytest.approx(last_s, abs=1e-3)
    lines = [(s["segment_id"], s["state"]) for s in (e["data"] for e in command.events) if "segment_id" in s]
    since = lines[lines.index((first, "open")) + 1 :]
    assert since.index((first, "closed")) < [state for _, state in since].index("open")
    gaps = [e["data"] for e in command.events if e["type"] == "framewarden.coverage.v1"]
    assert command.terminate() == 0, command.stderr
    assert {gap["cause"] for gap in gaps} <= {"not_started", "worker_lost"}
    assert worker_pids(command.process.pid) == []
    (last,) = [e["data"] for e in command.events if e["data"].get("state") == "ended"]
    parts = [last[name] for name in ("screened_s", "late_s", "dropped_s", "lost_s")]
    assert sum(parts) == pytest.approx(last["duration_s"], abs=0.1)
    revisions = [
        (s["segment_id"], s["rev"]) for s in (e["data"] for e in command.events) if "segment_id" in s
    ]
    assert len(revisions) == len(set(revisions))


@pytest.mark.timeout(240)
def test_a_run_that_was_killed_goes_on_where_it_stopped(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """kill -9 of everything while a file is screened: its successor closes what was open, finishes the file
    from the last scored sample, repeats nothing, and knows which segment was the last one."""
    film(tmp_path / "one.mp4", 60, (5.0, 9.0), (20.0, 25.0), (50.0, 55.0), gop_s=1.0, **SMALL)
    streams = [{"id": "uploads", "url": "one.mp4", "sampling": {"max_gap_s": 0.4}}]
    policy = {"sexual": {"cooldown_s": 60.0}}
    settings = config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url}, policy=policy)
    first = framewarden("run", settings, "--json", "--exit-at-end")
    first.wait_for(lambda c: len(opened(c, "uploads")) == 2)
    first.process.kill()
    first.end()
    second = framewarden("run", settings, "--json", "--exit-at-end")
    assert second.end(100) == 0, second.stderr
    both = [*closed(first, "uploads"), *closed(second, "uploads")]
    both.sort(key=lambda s: s["media"]["start_s"])
    sessions = {segment["stream"]["session"] for segment in both}
    assert len(sessions) == 1
    for before, after in itertools.pairwise(both):
        assert before["media"]["end_s"] <= after["media"]["start_s"] + 1e-6
        assert after["previous_segment_id"] == before["segment_id"]
    whole = [s for s in both if s["reason"] != "shutdown"]
    assert len(whole) <= 3
    assert abs(both[-1]["media"]["start_s"] - 50.0) <= 0.2
    (end,) = [e["data"] for e in second.events if e["data"].get("state") == "ended"]
    assert end["screened_s"] == pytest.approx(60.0, abs=0.1)
    third = framewarden("run", settings, "--json", "--exit-at-end")
    assert third.end() == 0, third.stderr
    assert third.lines == []  # a finished file is remembered


@pytest.mark.timeout(240)
def test_a_run_with_fewer_workers_delivers_what_the_killed_one_accepted(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """kill -9 of a supervisor and two workers while Redis is away; one worker takes up both streams."""
    names = ("a", "b")
    film(tmp_path / "one.mp4", 20, (1.0, 20.0), gop_s=1.0, **SMALL)
    streams = [{"id": name, "url": "one.mp4", "pace": "realtime", "loop": True} for name in names]
    keys: dict[str, Any] = {"redis": {"url": redis_server.url}}
    redis_server.kill()
    first = framewarden("run", config(tmp_path / "run.yaml", streams, workers=2, **keys), "--json")
    first.wait_for(lambda c: all(opened(c, name) for name in names))
    workers = worker_pids(first.process.pid)
    assert len(workers) == 2
    for pid in (first.process.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    first.end()
    assert wait_for_ends(workers, 5)
    path = tmp_path / "state" / "outbox.sqlite"
    with Outbox(path) as outbox:
        accepted = {row.event.id for row in outbox.pending(10_000)}
        left = {event.segment_id for event in outbox.open_segments()}
    assert {event["id"] for event in first.events} <= accepted
    assert len(left) == 2

    redis_server.start()
    second = framewarden("run", config(tmp_path / "run.yaml", streams, workers=1, **keys), "--json")
    second.wait_for(lambda c: all(opened(c, name) for name in names))
    assert len(worker_pids(second.process.pid)) == 1
    assert second.terminate() == 0, second.stderr
    ends = [s["segment_id"] for s in segments(second.events)]
    assert [ends.count(name) for name in left] == [1, 1]
    said = [event["id"] for event in (*first.events, *second.events)]
    assert len(said) == len(set(said))
    with redis_server.client() as client:
        topics = ("framewarden:segments", "framewarden:health")
        delivered = {fields["id"] for topic in topics for _, fields in client.xrange(topic)}
    assert accepted | set(said) <= delivered
    with Outbox(path) as outbox:
        held = [row.event.id for topic in ("segments", "health") for row in outbox.held(topic, 10_000)]
        assert (outbox.counts().pending, len(held)) == (0, len(set(held)))
    assert set(held) == delivered


def test_sigterm_closes_and_delivers_what_is_open(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    film(tmp_path / "long.mp4", 30, (0.0, 30.0), **SMALL)
    streams = [{"id": "cam", "url": "long.mp4", "pace": "realtime", "loop": True}]
    command = framewarden(
        "run", config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url}), "--json"
    )
    command.wait_for(lambda c: bool(opened(c, "cam")))
    assert command.terminate() == 0, command.stderr
    (end,) = closed(command, "cam")
    assert end["reason"] == "shutdown"
    with redis_server.client() as client:
        states = [fields["state"] for _, fields in client.xrange("framewarden:segments")]
        health = [fields.get("state") for _, fields in client.xrange("framewarden:health")]
    assert (states[0], states[-1]) == ("open", "closed")
    assert health[-1] == "ended"


def test_a_source_that_is_away_costs_only_itself(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    film(tmp_path / "good.mp4", 5, (1.0, 4.0))
    with socket.socket() as closed_port:
        closed_port.bind(("127.0.0.1", 0))
        port = closed_port.getsockname()[1]
        streams = [
            {"id": "away", "url": f"rtsp://user:s3cret-canary@127.0.0.1:{port}/x"},
            {"id": "good", "url": "good.mp4", "pace": "realtime"},
        ]
        settings = config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url})
        command = framewarden("run", settings, "--json")
        command.wait_for(lambda c: bool(closed(c, "good")))
        command.wait_for(lambda c: any(event["data"].get("state") == "lost" for event in c.events))
        assert command.terminate() == 0, command.stderr
    assert len(closed(command, "good")) == 1
    lost = [e["data"] for e in command.events if e["data"]["stream"]["id"] == "away"]
    assert [data["state"] for data in lost if "state" in data] == ["lost", "ended"]
    assert lost[-1]["lost_s"] == pytest.approx(lost[-1]["duration_s"], abs=0.1)
    assert "s3cret-canary" not in "\n".join([*command.lines, *command.errors])


def test_a_watched_folder_takes_files_that_appear(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    ready = film(tmp_path / "ready.mp4", 8, (2.0, 5.0))
    streams = [{"id": "uploads", "url": "uploads", "watch": True}]
    command = framewarden(
        "run", config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url}), "--json"
    )
    until((tmp_path / "state" / "status.json").exists, WAIT_S)
    shutil.copy(ready, folder / "late.mp4")
    command.wait_for(lambda c: bool(closed(c, "uploads")))
    assert command.terminate() == 0, command.stderr
    (segment,) = closed(command, "uploads")
    assert segment["stream"]["url"] == str(folder / "late.mp4")


def test_a_stream_may_have_several_models(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    film(tmp_path / "one.mp4", 12, (3.0, 6.0), card="image-safety-s-graphic-1.png")
    streams = [{"id": "one", "url": "one.mp4", "model": ["open-nsfw", "image-safety-s"]}]
    settings = config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url})
    command = framewarden("run", settings, "--json", "--exit-at-end")
    assert command.end() == 0, command.stderr
    graphic = [s for s in closed(command, "one") if s["category"] == "graphic"]
    assert len(graphic) == 1
    assert graphic[0]["model"]["name"] == "image-safety-s"
    assert abs(graphic[0]["media"]["start_s"] - 3.0) <= 1.1


def test_a_second_run_on_the_same_state_is_refused(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    film(tmp_path / "long.mp4", 10, gop_s=1.0)
    streams = [{"id": "cam", "url": "long.mp4", "pace": "realtime", "loop": True}]
    settings = config(tmp_path / "run.yaml", streams, redis={"url": redis_server.url})
    first = framewarden("run", settings, "--json")
    first.wait_for(lambda c: bool(c.lines))
    second = framewarden("run", settings)
    assert second.end() == 2
    assert str(first.process.pid) in second.stderr
    assert first.terminate() == 0
