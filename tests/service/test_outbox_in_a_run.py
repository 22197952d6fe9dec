"""A run whose outbox is full, or deleted under it, with Redis away: it says so, waits, and loses nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import status
from pipeline.outbox import Outbox
from tests.fixtures.events import gap
from tests.fixtures.redis import RedisServer, until
from tests.fixtures.service import Command, film, segments

Start = Callable[..., Command]
KEY = "framewarden:segments"


def config(folder: Path, server: RedisServer, **stream: Any) -> Path:
    film(folder / "one.mp4", 9, (0.5, 3.5), size=(320, 180), gop_s=0.5)
    path = folder / "run.yaml"
    keys = {
        "state_dir": "state",
        "redis": {"url": server.url},
        "outbox": {"max_bytes": 1_000_000},
        "streams": [{"id": "cam", "url": "one.mp4", **stream}],
    }
    path.write_text(json.dumps(keys))
    return path


def outbox_state(folder: Path) -> dict[str, Any]:
    try:
        return dict(status.read(folder / "state")["outbox"])
    except status.StatusError:
        return {}


def in_redis(server: RedisServer) -> set[str]:
    with server.client() as client:
        return {fields["id"] for _, fields in client.xrange(KEY)}


def test_a_full_outbox_is_said_and_takes_up_again_where_it_stopped_once_redis_is_back(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = config(tmp_path, redis_server)
    redis_server.kill()
    (tmp_path / "state").mkdir()
    with Outbox(tmp_path / "state" / "outbox.sqlite") as outbox:
        outbox.accept([gap() for _ in range(1100)], now=1.0)  # of an earlier run that nobody could take
        assert outbox.counts().bytes > 1_000_000
    command = framewarden("run", settings, "--json", "--exit-at-end")
    until(lambda: outbox_state(tmp_path).get("state") == "blocked", 40)
    assert "bring Redis back or raise outbox.max_bytes" in outbox_state(tmp_path)["error"]
    assert "the outbox accepts nothing" in command.stderr
    assert command.lines == []  # nothing is said to have happened that was not accepted
    redis_server.start()
    assert command.end() == 0, command.stderr
    found = segments(command.events)
    assert [int(segment["media"]["start_s"]) for segment in found] == [0]
    sent = {event["id"] for event in command.events if event["type"] == "framewarden.segment.v1"}
    assert in_redis(redis_server) == sent
    with redis_server.client() as client:
        assert client.xlen("framewarden:health") >= 1100
    assert outbox_state(tmp_path)["state"] == "ok"


def test_a_deleted_outbox_loses_nothing_that_was_accepted(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = config(tmp_path, redis_server, pace="realtime", loop=True)
    redis_server.kill()
    command = framewarden("run", settings, "--json")
    command.wait_for(lambda c: bool(segments(c.events, "open")))
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / "state" / f"outbox.sqlite{suffix}").unlink(missing_ok=True)
    redis_server.start()
    early = {event["id"] for event in command.events if event["type"] == "framewarden.segment.v1"}
    until(lambda: early <= in_redis(redis_server), 20)
    assert command.terminate() == 0, command.stderr
    sent = {event["id"] for event in command.events if event["type"] == "framewarden.segment.v1"}
    assert in_redis(redis_server) == sent
