"""A new config for a run that goes on: streams come, go and change, the others are not touched."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import config as configs
from pipeline.config import Config
from pipeline.service.change import Change, difference
from pipeline.service.reload import Reloader
from pipeline.service.run import _follow
from tests.fixtures.lifecycle import closed, gaps, log, of, row, snapshot, worker_pids, write_config
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command, film

Start = Callable[..., Command]


def looping(name: str, **keys: Any) -> dict[str, Any]:
    return {"id": name, "url": f"{name}.mp4", "pace": "realtime", "loop": True, **keys}


def test_sighup_adds_removes_and_changes_streams_and_leaves_the_others_alone(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    for name in ("kept", "gone", "changed", "new"):
        film(tmp_path / f"{name}.mp4", 60, (0.0, 60.0), size=(320, 240), rate=10)
    redis = {"url": redis_server.url}
    before = [looping("kept"), looping("gone"), looping("changed")]
    path = write_config(tmp_path / "run.yaml", before, redis=redis, workers=1)
    command = framewarden("run", path, "--json")
    command.wait_for(lambda c: all(of(c, name, "open") for name in ("kept", "gone", "changed")))
    (worker,) = worker_pids(command.process.pid)
    rules = {"name": "strict", "sexual": {"open": 0.7}}
    after = [looping("kept"), looping("changed", policy=rules), looping("new")]
    write_config(path, after, redis=redis, workers=1)
    os.kill(command.process.pid, signal.SIGHUP)
    command.wait_for(lambda c: bool(of(c, "new", "open")) and len(of(c, "changed", "open")) >= 2)
    command.wait_for(lambda c: bool(of(c, "gone", "ended")))
    found = snapshot(tmp_path, lambda s: s["config"]["state"] == "reloaded")
    found = snapshot(tmp_path, lambda s: not row(s, "gone") and row(s, "changed").get("frames", 0) > 0)
    assert worker_pids(command.process.pid) == [worker]
    assert {s["id"] for s in found["streams"]} == {"kept", "changed", "new"}
    counts = {name: found["config"][name] for name in ("added", "removed", "rescreened", "replaced")}
    assert counts == {"added": 1, "removed": 1, "rescreened": 1, "replaced": 0}
    assert not closed(command, "kept")
    assert [segment["reason"] for segment in closed(command, "gone")] == ["shutdown"]
    assert [segment["reason"] for segment in closed(command, "changed")] == ["policy_change"]
    assert not of(command, "changed", "ended")
    old, new = (segment["policy"] for segment in of(command, "changed", "open")[:2])
    assert (old["name"], new["name"]) == ("default", "strict")
    assert old["sha256"] != new["sha256"]
    assert command.terminate() == 0, command.stderr
    assert {gap["cause"] for gap in gaps(command, "kept")} <= {"not_started"}
    assert len({s["stream"]["session"] for s in of(command, "kept", "update") + closed(command, "kept")}) == 1
    for name in ("kept", "gone", "changed", "new"):
        (end,) = of(command, name, "ended")
        parts = [end[key] for key in ("screened_s", "late_s", "dropped_s", "lost_s")]
        assert sum(parts) == pytest.approx(end["duration_s"], abs=0.1)
    (end,) = of(command, "changed", "ended")
    assert end["segments"] == 2  # one under each policy


def test_a_changed_file_is_followed_and_an_invalid_one_is_not(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    for name in ("kept", "new"):
        film(tmp_path / f"{name}.mp4", 30, size=(320, 240), rate=10)
    keys = {"redis": {"url": redis_server.url}, "reload": "watch"}
    path = write_config(tmp_path / "run.yaml", [looping("kept")], **keys)
    command = framewarden("run", path, "--json")
    command.wait_for(lambda c: bool(of(c, "kept", "connected")))
    write_config(path, [looping("kept", sampling={"max_gap": 1})], **keys)
    command.wait_for(lambda c: bool(log(c, "config.refused")))
    (refused,) = log(command, "config.refused")
    assert "max_gap" in refused["error"]
    assert "run.yaml" in refused["error"]
    found = snapshot(tmp_path, lambda s: s["config"]["state"] == "refused")
    assert "max_gap" in found["config"]["error"]
    assert row(found, "kept")["state"] == "screening"
    write_config(path, [looping("kept"), looping("new", model="no-such-model")], **keys)
    command.wait_for(lambda c: len(log(c, "config.refused")) == 2)
    assert "no-such-model" in log(command, "config.refused")[1]["error"]
    write_config(path, [looping("kept"), looping("new", model="image-safety-s")], **keys, shutdown_s=3)
    command.wait_for(lambda c: bool(of(c, "new", "connected")))
    assert log(command, "config.needs_restart")[0]["keys"] == ["shutdown_s"]
    found = snapshot(tmp_path, lambda s: row(s, "new").get("frames", 0) > 0)
    assert set(found["workers"][0]["models"]) == {"open-nsfw", "image-safety-s"}
    assert command.terminate() == 0, command.stderr
    assert not log(command, "worker.died")
    assert len(of(command, "kept", "connected")) == 1


def test_a_file_goes_on_under_a_new_policy_where_it_was(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    film(tmp_path / "one.mp4", 40, (2.0, 38.0), size=(320, 240), rate=10, gop_s=1.0)
    stream = {"id": "one", "url": "one.mp4", "sampling": {"max_gap_s": 0.2}}
    redis = {"url": redis_server.url}
    path = write_config(tmp_path / "run.yaml", [stream], redis=redis)
    command = framewarden("run", path, "--json", "--exit-at-end")
    command.wait_for(lambda c: bool(of(c, "one", "open")))
    write_config(path, [{**stream, "policy": {"sexual": {"open": 0.7}}}], redis=redis)
    os.kill(command.process.pid, signal.SIGHUP)
    command.wait_for(lambda c: bool(closed(c, "one")))
    assert command.end(80) == 0, command.stderr
    first, *rest = closed(command, "one")
    assert first["reason"] == "policy_change"
    assert rest[0]["media"]["start_s"] >= first["media"]["end_s"] - 1e-6
    assert rest[0]["stream"]["session"] == first["stream"]["session"]
    (end,) = of(command, "one", "ended")
    assert end["screened_s"] == pytest.approx(40.0, abs=0.1)


# ---- what a new config asks for ---------------------------------------------------------------------------


def read(folder: Path, *streams: dict[str, Any], **keys: Any) -> Config:
    return configs.load(write_config(folder / "c.yaml", list(streams), **keys))


def stream(name: str, **keys: Any) -> dict[str, Any]:
    return {"id": name, "url": f"rtsp://10.0.0.1/{name}", **keys}


def ids(streams: tuple[Any, ...]) -> list[str]:
    return [one.id for one in streams]


def test_the_same_config_again_changes_nothing(tmp_path: Path) -> None:
    config = read(tmp_path, stream("a"), stream("b", labels={"x": "y"}))
    again = read(tmp_path, stream("a"), stream("b", labels={"x": "y"}))
    assert not any(difference(config, again).counts().values())


def test_a_stream_that_is_only_screened_otherwise_is_told_from_one_that_is_another(tmp_path: Path) -> None:
    old = read(tmp_path, *(stream(name) for name in "abcdef"))
    new = read(
        tmp_path,
        stream("a", sampling={"max_gap_s": 1}),
        stream("b", policy={"sexual": {"open": 0.9}}),
        stream("c", model="image-safety-s"),
        stream("d", transport="udp"),
        stream("f"),
        stream("g"),
    )
    change = difference(old, new)
    assert ids(change.rescreened) == ["a", "b", "c"]
    assert ids(change.replaced) == ["d"]
    assert ids(change.added) == ["g"]
    assert change.removed == ("e",)


def test_a_rule_for_all_changes_only_the_streams_that_have_none_of_their_own(tmp_path: Path) -> None:
    streams = (stream("a"), stream("b", sampling={"max_gap_s": 3}))
    change = difference(read(tmp_path, *streams), read(tmp_path, *streams, sampling={"max_gap_s": 1}))
    assert ids(change.rescreened) == ["a"]


def test_other_limits_for_sources_open_every_stream_anew(tmp_path: Path) -> None:
    old = read(tmp_path, stream("a"))
    change = difference(old, read(tmp_path, stream("a"), sources={"schemes": ["rtsp", "file"]}))
    assert ids(change.replaced) == ["a"]


def test_what_holds_from_the_start_stays_and_is_named(tmp_path: Path) -> None:
    old = read(tmp_path, stream("a"), workers=1)
    change = difference(old, read(tmp_path, stream("a"), workers=2, node="other", reload="watch"))
    assert set(change.restart_needed) == {"workers", "node"}
    assert change.config.workers == 1
    assert change.config.reload == "watch"


def test_a_file_is_read_once_it_has_been_the_same_for_a_second(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.yaml", [stream("a")])
    reloader = Reloader(path, lambda: configs.load(path))
    assert not reloader.due(10.0, watch=True)
    write_config(path, [stream("b")])
    assert not reloader.due(20.0, watch=False)
    assert not reloader.due(30.0, watch=True)
    assert reloader.due(31.5, watch=True)
    change = reloader.change(configs.load(path), lambda _: None)
    assert change is not None
    assert not reloader.due(40.0, watch=True)
    reloader.ask()
    assert reloader.due(40.1, watch=False)
    assert not reloader.due(40.2, watch=False)


def test_a_reload_waits_while_the_outbox_takes_nothing(tmp_path: Path) -> None:
    """Each would leave events behind that wait in memory."""
    path = write_config(tmp_path / "run.yaml", [looping("one")])
    old, loads = configs.load(path), 0

    def load() -> Config:
        nonlocal loads
        loads += 1
        return configs.load(path)

    followed: list[Change] = []
    supervisor: Any = SimpleNamespace(config=old, error="the disk is full", follow=followed.append)
    reloader = Reloader(path, load)
    write_config(path, [looping("one"), looping("two")])
    reloader.ask()
    _follow(reloader, supervisor)
    assert (loads, followed) == (0, [])
    supervisor.error = ""
    _follow(reloader, supervisor)
    assert [stream.id for change in followed for stream in change.added] == ["two"]
