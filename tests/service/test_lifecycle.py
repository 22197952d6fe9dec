"""The life of a run: crashes, wedged workers, quarantine, and every way to end it."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.outbox import Outbox
from tests.faults.cells import full
from tests.fixtures.lifecycle import (
    CRASHING,
    CRASHING_BESIDE_BUSY,
    CRASHING_CONVERSION,
    CRASHING_DEMUXER,
    HANGING_DECODER,
    HANGING_ENGINE,
    HASTY,
    ODD_ROWS,
    arm,
    closed,
    gaps,
    log,
    of,
    plant,
    row,
    snapshot,
    wait_for_ends,
    worker_pids,
    write_config,
)
from tests.fixtures.own_model import write_manifest
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command, film
from tests.fixtures.tiny_onnx import mean_colour_model

Start = Callable[..., Command]
Keys = dict[str, Any]
RESTART_S = 5.0
"""Beside other tests, on a machine that may be too busy for that: twice what the first start took."""


@pytest.fixture
def keys(tmp_path: Path, redis_server: RedisServer) -> Keys:
    """Of every config here: a model that is loaded at once and flags every picture, and a real Redis."""
    mean_colour_model(tmp_path / "mine.onnx", bias=(9.0, 0.0, 0.0))
    return {"model": str(write_manifest(tmp_path)), "redis": {"url": redis_server.url}}


def looping(name: str) -> dict[str, Any]:
    return {"id": Path(name).stem, "url": name, "pace": "realtime", "loop": True}


def started(command: Command, *streams: str, times: int = 1) -> bool:
    def count(stream: str) -> int:
        return sum(len(of(command, stream, state)) for state in ("connected", "recovered"))

    return all(count(stream) >= times for stream in streams)


def test_a_crash_costs_its_worker_a_moment_and_the_other_workers_nothing(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    """Streams 1 and 3 share a worker, 2 and 4 the other one. The decoder of 1 crashes once."""
    film(tmp_path / "bad.mp4", 4, size=(320, ODD_ROWS))
    names = ("bad.mp4", "other.mp4", "beside.mp4", "another.mp4")
    for name in names[1:]:
        film(tmp_path / name, 30, size=(320, 240))
    settings = write_config(tmp_path / "run.yaml", [looping(n) for n in names], workers=2, **keys)
    command = framewarden("run", settings, "--json", env=plant(tmp_path / "planted", CRASHING))
    command.wait_for(lambda c: started(c, "bad", "other", "beside", "another"))
    before = worker_pids(command.process.pid)
    arm(tmp_path / "planted", "once")
    command.wait_for(lambda c: started(c, "bad", "beside", times=2))
    after = worker_pids(command.process.pid)
    assert command.terminate() == 0, command.stderr
    (died,) = log(command, "worker.died")
    (back,) = log(command, "worker.back")
    assert (died["why"], died["decoding"]) == ("ended with SIGSEGV", ["bad"])
    assert back["worker"] == died["worker"]
    busy_s = 0.0 if full() else 2 * max(one["after_s"] for one in log(command, "worker.ready"))
    assert back["after_s"] < max(RESTART_S, busy_s)
    assert len(before) == len(after) == 2
    assert len(set(before) & set(after)) == 1
    for stream in ("other", "another"):
        assert len(of(command, stream, "connected")) == 1
        assert {gap["cause"] for gap in gaps(command, stream)} <= {"not_started"}
    assert {gap["cause"] for gap in gaps(command, "beside")} <= {"not_started", "worker_lost"}


def test_a_stream_that_crashes_three_workers_is_set_apart_until_a_reload(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    film(tmp_path / "bad.mp4", 4, size=(320, ODD_ROWS))
    film(tmp_path / "good.mp4", 30, size=(320, 240))
    settings = write_config(
        tmp_path / "run.yaml",
        [looping("bad.mp4"), looping("good.mp4")],
        workers=1,
        **keys,
    )
    env = plant(tmp_path / "planted", CRASHING)
    armed = arm(tmp_path / "planted", "always")
    command = framewarden("run", settings, "--json", env=env)
    command.wait_for(lambda c: bool(of(c, "bad", "quarantined")), 100)
    assert len(log(command, "worker.died")) == 3
    found = snapshot(tmp_path, lambda s: row(s, "bad").get("state") == "quarantined")
    assert "3 workers" in row(found, "bad")["reason"]
    command.wait_for(lambda c: started(c, "good"))
    armed.unlink()
    os.kill(command.process.pid, signal.SIGHUP)
    command.wait_for(lambda c: started(c, "bad"))
    snapshot(tmp_path, lambda s: row(s, "bad").get("frames", 0) > 0)
    assert command.terminate() == 0, command.stderr
    assert "quarantined" in {gap["cause"] for gap in gaps(command, "bad")}
    (end,) = of(command, "bad", "ended")
    parts = [end[name] for name in ("screened_s", "late_s", "dropped_s", "lost_s")]
    assert sum(parts) == pytest.approx(end["duration_s"], abs=0.1)


def test_a_stream_that_is_always_in_decoding_is_not_blamed_for_another_one_s_crash(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    film(tmp_path / "bad.mp4", 4, size=(320, ODD_ROWS))
    film(tmp_path / "busy.mp4", 4, size=(320, ODD_ROWS + 2))
    settings = write_config(
        tmp_path / "run.yaml",
        [looping("busy.mp4"), looping("bad.mp4")],
        workers=1,
        **keys,
        shutdown_s=2,
    )
    env = plant(tmp_path / "planted", CRASHING_BESIDE_BUSY)
    arm(tmp_path / "planted", "always")
    command = framewarden("run", settings, "--json", env=env)
    command.wait_for(lambda c: bool(of(c, "bad", "quarantined")), 100)
    assert command.terminate() == 0, command.stderr
    deaths = log(command, "worker.died")
    assert [death["decoding"] for death in deaths] == [["bad"]] * 3
    assert {death["where"].split(" in ")[1] for death in deaths} == {"strike"}
    assert not of(command, "busy", "quarantined")


@pytest.mark.parametrize(
    "fault", [CRASHING, CRASHING_CONVERSION], ids=["in the decoder", "in the conversion"]
)
def test_a_file_that_crashes_screen_is_known_by_its_thread(
    fault: str, framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    """Only it is tried again alone, and has failed after its second crash; the others never were in
    question."""
    bad = film(tmp_path / "bad.mp4", 4, size=(320, ODD_ROWS))
    good = [film(tmp_path / f"good{n}.mp4", 8, size=(320, 240)) for n in range(3)]
    env = plant(tmp_path / "planted", fault)
    arm(tmp_path / "planted", "always")
    command = framewarden("screen", good[0], bad, *good[1:], "--model", keys["model"], "--json", env=env)
    assert command.end(90) == 1
    states = {path: [s for s in ("ended", "failed") if of(command, str(path), s)] for path in [bad, *good]}
    assert states == {bad: ["failed"]} | {path: ["ended"] for path in good}
    deaths = [line for line in command.errors if "worker.died" in line]
    assert len(deaths) == 2
    assert all(f"decoding=['{bad}']" in line for line in deaths)


def test_a_file_that_crashes_three_workers_fails_a_run_that_waits_for_its_files(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    film(tmp_path / "bad.mp4", 4, size=(320, ODD_ROWS))
    film(tmp_path / "good.mp4", 8, size=(320, 240))
    streams = [{"id": name, "url": f"{name}.mp4"} for name in ("bad", "good")]
    settings = write_config(tmp_path / "run.yaml", streams, **keys)
    env = plant(tmp_path / "planted", CRASHING)
    arm(tmp_path / "planted", "always")
    command = framewarden("run", settings, "--json", "--exit-at-end", env=env)
    assert command.end(90) == 1, command.stderr
    assert len(of(command, "bad", "quarantined")) == 1
    assert "bad: its decoder ended 3 workers" in command.stderr
    assert len(of(command, "good", "ended")) == 1
    assert len({segment["media"]["start_s"] for segment in closed(command, "good")}) == 1


def test_a_file_of_a_folder_that_crashes_workers_fails_alone(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    """In the demuxer: no decode call is marked then, but it is known who was reading."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    bad = film(folder / "a.mp4", 4, size=(320, ODD_ROWS))
    good = film(folder / "b.mp4", 8, size=(320, 240))
    streams = [{"id": "uploads", "url": "uploads"}]
    settings = write_config(tmp_path / "run.yaml", streams, **keys)
    env = plant(tmp_path / "planted", CRASHING_DEMUXER)
    arm(tmp_path / "planted", "always")
    command = framewarden("run", settings, "--json", "--exit-at-end", env=env)
    assert command.end(90) == 1, command.stderr
    assert len(log(command, "worker.died")) == 2
    assert [event["stream"]["url"] for event in of(command, "uploads", "failed")] == [str(bad)]
    assert [event["stream"]["url"] for event in of(command, "uploads", "ended")] == [str(good)]
    assert not of(command, "uploads", "quarantined")
    assert len(closed(command, "uploads")) == 1


def test_what_a_quarantined_stream_loses_is_said_when_the_run_ends(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    film(tmp_path / "bad.mp4", 4, size=(320, ODD_ROWS))
    settings = write_config(tmp_path / "run.yaml", [looping("bad.mp4")], **keys)
    env = plant(tmp_path / "planted", CRASHING)
    arm(tmp_path / "planted", "always")
    command = framewarden("run", settings, "--json", env=env)
    command.wait_for(lambda c: bool(of(c, "bad", "quarantined")), 100)
    assert command.terminate() == 0, command.stderr
    (end,) = of(command, "bad", "ended")
    assert end["lost_s"] == pytest.approx(end["duration_s"], abs=0.1)
    lost = gaps(command, "bad")
    assert {gap["cause"] for gap in lost} == {"quarantined"}
    assert sum(gap["seconds"] for gap in lost) == pytest.approx(end["lost_s"], abs=0.1)


@pytest.mark.parametrize("fault", [HANGING_ENGINE, HASTY], ids=["inference", "process"])
def test_a_wedged_worker_is_killed_and_started_again(
    fault: str, framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    """Its inference thread never comes back from the engine; or the whole process is stopped."""
    film(tmp_path / "cam.mp4", 30, size=(320, 240))
    settings = write_config(tmp_path / "run.yaml", [looping("cam.mp4")], **keys)
    command = framewarden("run", settings, "--json", env=plant(tmp_path / "planted", fault))
    command.wait_for(lambda c: bool(of(c, "cam", "open")))
    (pid,) = worker_pids(command.process.pid)
    if fault is HASTY:
        os.kill(pid, signal.SIGSTOP)
    else:
        arm(tmp_path / "planted", "once")
    command.wait_for(lambda c: bool(log(c, "worker.wedged")))
    assert wait_for_ends([pid], 5)
    command.wait_for(lambda c: started(c, "cam", times=2))
    assert command.terminate() == 0, command.stderr
    (wedged,) = log(command, "worker.wedged")
    assert ("inference" if fault is HANGING_ENGINE else "said nothing") in wedged["why"]
    first = of(command, "cam", "open")[0]["segment_id"]
    (end,) = [s for s in closed(command, "cam") if s["segment_id"] == first]
    assert end["reason"] == "shutdown"
    assert "worker_lost" in {gap["cause"] for gap in gaps(command, "cam")}


def test_sigterm_to_the_whole_group_closes_and_delivers_everything(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path, keys: Keys
) -> None:
    """As a service manager does it: the workers get the signal, too, and leave the decision to the run."""
    film(tmp_path / "cam.mp4", 30, size=(320, 240))
    settings = write_config(tmp_path / "run.yaml", [looping("cam.mp4")], **keys, shutdown_s=12)
    command = framewarden("run", settings, "--json", own_group=True)
    command.wait_for(lambda c: bool(of(c, "cam", "open")))
    began = time.monotonic()
    os.killpg(command.process.pid, signal.SIGTERM)
    assert command.end() == 0, command.stderr
    assert time.monotonic() - began < 12
    (segment,) = closed(command, "cam")
    assert segment["reason"] == "shutdown"
    assert not log(command, "worker.died")
    with redis_server.client() as client:
        sent = [json.loads(fields["event"])["id"] for _, fields in client.xrange("framewarden:segments")]
    assert f"{segment['segment_id']}:{segment['rev']}" in sent


def test_a_stop_keeps_its_deadline_with_a_stuck_decoder_and_without_redis(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path, keys: Keys
) -> None:
    """What cannot be delivered is in the outbox: the open segment's end, and every account."""
    film(tmp_path / "stuck.mp4", 4, size=(320, ODD_ROWS))
    film(tmp_path / "cam.mp4", 30, size=(320, 240))
    streams = [looping("cam.mp4"), looping("stuck.mp4")]
    settings = write_config(tmp_path / "run.yaml", streams, **keys, shutdown_s=5, workers=1)
    command = framewarden("run", settings, "--json", env=plant(tmp_path / "planted", HANGING_DECODER))
    command.wait_for(lambda c: bool(of(c, "cam", "open")))
    redis_server.kill()
    began = time.monotonic()
    assert command.terminate() == 0, command.stderr
    assert time.monotonic() - began < 5 + 3
    (segment,) = closed(command, "cam")
    with Outbox(tmp_path / "state" / "outbox.sqlite") as outbox:
        waiting = [event.id for event in (row.event for row in outbox.pending())]
        assert not outbox.open_segments()
    assert f"{segment['segment_id']}:{segment['rev']}" in waiting
    for stream in ("cam", "stuck"):
        (end,) = of(command, stream, "ended")
        parts = [end[name] for name in ("screened_s", "late_s", "dropped_s", "lost_s")]
        assert sum(parts) == pytest.approx(end["duration_s"], abs=0.1)


def test_a_run_that_ends_before_its_worker_was_ready_accounts_for_its_streams(
    framewarden: Start, tmp_path: Path, keys: Keys
) -> None:
    film(tmp_path / "cam.mp4", 4, size=(320, 240))
    settings = write_config(tmp_path / "run.yaml", [looping("cam.mp4")], **keys, shutdown_s=1)
    command = framewarden("run", settings, "--json", "--for", "0.2")
    assert command.end() == 0, command.stderr
    (end,) = of(command, "cam", "ended")
    assert end["lost_s"] == pytest.approx(end["duration_s"], abs=0.1)
    assert row(snapshot(tmp_path, lambda s: s["state"] == "ended"), "cam")["state"] == "lost"


def test_a_second_ctrl_c_ends_everything_at_once(framewarden: Start, tmp_path: Path, keys: Keys) -> None:
    film(tmp_path / "stuck.mp4", 4, size=(320, ODD_ROWS))
    film(tmp_path / "cam.mp4", 30, size=(320, 240))
    streams = [looping("cam.mp4"), looping("stuck.mp4")]
    settings = write_config(tmp_path / "run.yaml", streams, **keys, shutdown_s=60, workers=1)
    env = plant(tmp_path / "planted", HANGING_DECODER)
    command = framewarden("run", settings, "--json", env=env, own_group=True)
    command.wait_for(lambda c: bool(of(c, "cam", "open")))
    workers = worker_pids(command.process.pid)
    os.killpg(command.process.pid, signal.SIGINT)
    command.wait_for(lambda c: bool(closed(c, "cam")))  # it drains, and waits for the stuck decoder
    began = time.monotonic()
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.end() == 130
    assert wait_for_ends(workers, 10)
    assert time.monotonic() - began < 10


def test_workers_die_with_a_killed_supervisor(framewarden: Start, tmp_path: Path, keys: Keys) -> None:
    """Even one that is stopped, and can notice nothing."""
    for name in ("one.mp4", "two.mp4"):
        film(tmp_path / name, 30, size=(320, 240))
    streams = [looping("one.mp4"), looping("two.mp4")]
    settings = write_config(tmp_path / "run.yaml", streams, workers=2, **keys)
    command = framewarden("run", settings, "--json")
    command.wait_for(lambda c: started(c, "one", "two"))
    workers = worker_pids(command.process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGSTOP)
    command.process.kill()
    assert wait_for_ends(workers, 10)
