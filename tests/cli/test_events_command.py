"""``events`` against a real Redis."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from pipeline.backends import redis_embedded
from pipeline.events import Event
from tests.cli.command import ROOT, framewarden
from tests.fixtures.redis import RedisServer

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("segment-open", "segment-update", "segment-closed", "stream-lost")


def golden(name: str) -> Event:
    return Event.from_json(json.dumps(json.loads((GOLDEN / f"{name}.json").read_text())))


def add(server: RedisServer, *names: str, prefix: str = "framewarden") -> None:
    with server.client() as client:
        for name in names:
            event = golden(name)
            topic = "segments" if event.segment_id else "health"
            client.xadd(f"{prefix}:{topic}", event.fields())


def test_without_a_group_everything_is_printed_and_nothing_acknowledged(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    add(redis_server, *NAMES, "segment-open")  # the last one a repeat, as after a lost reply
    for _ in range(2):
        found = framewarden("events", "--redis", redis_server.url, "--json", cwd=tmp_path)
        assert found.code == 0
        assert sorted(found.out.splitlines()) == sorted(golden(name).body for name in NAMES)
    with redis_server.client() as client:
        assert client.xinfo_groups("framewarden:segments") == []


def test_from_leaves_out_what_is_older(redis_server: RedisServer, tmp_path: Path) -> None:
    add(redis_server, "segment-open", "segment-closed")
    with redis_server.client() as client:
        last = client.xinfo_stream("framewarden:segments")["last-generated-id"]
    found = framewarden("events", "--redis", redis_server.url, "--from", last, "--json", cwd=tmp_path)
    assert found.out.splitlines() == [golden("segment-closed").body]
    wrong = framewarden("events", "--redis", redis_server.url, "--from", "yesterday", cwd=tmp_path)
    assert wrong.code == 2
    assert "'yesterday' is not a Redis id" in wrong.err


def test_a_group_prints_each_event_once_and_acknowledges_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    add(redis_server, *NAMES)
    first = framewarden("events", "--redis", redis_server.url, "--group", "desk", cwd=tmp_path)
    assert (first.code, len(first.out.splitlines())) == (0, len(NAMES))
    again = framewarden("events", "--redis", redis_server.url, "--group", "desk", cwd=tmp_path)
    assert (again.code, again.out) == (0, "")
    with redis_server.client() as client:
        assert client.xpending("framewarden:segments", "desk")["pending"] == 0


def test_a_config_names_server_and_prefix(redis_server: RedisServer, tmp_path: Path) -> None:
    add(redis_server, "segment-closed", prefix="acme")
    (tmp_path / "fw.yaml").write_text(
        f"redis: {{url: '{redis_server.url}', prefix: acme}}\nstreams: [{{id: a, url: a.mp4}}]"
    )
    found = framewarden("events", "fw.yaml", "--json", cwd=tmp_path)
    assert found.out.splitlines() == [golden("segment-closed").body]


def test_the_embedded_server_is_started_on_its_data_and_stopped_again(tmp_path: Path) -> None:
    (tmp_path / "fw.yaml").write_text("state_dir: st\nstreams: [{id: a, url: a.mp4}]")
    never = framewarden("events", "fw.yaml", cwd=tmp_path)
    assert never.code == 2
    assert "no run has kept events here" in never.err
    server = redis_embedded.start(tmp_path / "st")
    try:
        with redis.Redis(port=server.port, protocol=2) as client:
            client.xadd("framewarden:segments", golden("segment-closed").fields())
    finally:
        server.stop()
    found = framewarden("events", "fw.yaml", "--json", cwd=tmp_path)
    assert (found.code, found.out.splitlines()) == (0, [golden("segment-closed").body])
    assert redis_embedded.attach(tmp_path / "st") is None


def test_a_server_that_refuses_is_one_line_without_the_password(tmp_path: Path) -> None:
    found = framewarden("events", "--redis", "redis://:hunter2@127.0.0.1:1/0", cwd=tmp_path)
    assert (found.code, found.out, found.err.count("\n")) == (1, "", 1)
    assert "refused" in found.err
    assert "hunter2" not in found.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_follow_waits_for_more_until_a_signal_ends_it(
    redis_server: RedisServer, tmp_path: Path, number: int, code: int
) -> None:
    add(redis_server, "segment-open")
    command = [sys.executable, "-m", "pipeline", "events", "--redis", redis_server.url, "--follow", "--json"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == golden("segment-open").body
        add(redis_server, "segment-closed")
        assert process.stdout.readline().strip() == golden("segment-closed").body
        process.send_signal(number)
        assert process.wait(20) == code
