"""The embedded server: ours alone, durable, and gone when its owner is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.redis_embedded import attach, server_binary, start
from pipeline.backends.sink_redis import RedisSink
from pipeline.errors import ConfigError, SinkError
from tests.fixtures.events import segment
from tests.fixtures.redis import until

OWNER = """
import sys
from pathlib import Path
from pipeline.backends.redis_embedded import start
server = start(Path(sys.argv[1]))
print(server.pid, server.port, server.owned, flush=True)
sys.stdin.read()
"""


def owner(state_dir: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_server_comes_from_the_virtual_environment() -> None:
    assert server_binary().is_relative_to(sys.prefix)


def test_what_the_disk_refuses_is_said_and_no_server_is_left(tmp_path: Path) -> None:
    (tmp_path / "redis.json.new").mkdir()  # where it would say where it is
    with pytest.raises(
        SinkError, match=f"the embedded Redis in {tmp_path}/redis did not come up: Is a directory"
    ):
        start(tmp_path)
    assert [child for child in psutil.Process().children() if "valkey" in child.name()] == []


def test_it_is_safe_local_and_says_where_it_is(tmp_path: Path) -> None:
    server = start(tmp_path)
    try:
        assert server.owned
        assert json.loads((tmp_path / "redis.json").read_text()) == {
            "url": server.url,
            "pid": server.pid,
            "port": server.port,
        }
        sink = RedisSink(RedisSettings(server.url, on_unsafe="refuse"))
        assert sink.connect() == []
        sink.close()
        listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
    finally:
        server.stop()
    assert not (tmp_path / "redis.json").exists()
    assert attach(tmp_path) is None


def test_what_it_acknowledged_is_there_after_sigkill_and_a_new_start(tmp_path: Path) -> None:
    event = segment()
    server = start(tmp_path)
    sink = RedisSink(RedisSettings(server.url))
    sink.connect()
    ids = sink.publish("segments", [event])
    sink.close()
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.alive())
    again = start(tmp_path)
    try:
        assert again.url == server.url  # consumers find it where it was
        sink = RedisSink(RedisSettings(again.url))
        sink.connect()
        assert sink.entries("segments", "-", "+") == {ids[0]: event.id}
        sink.close()
    finally:
        again.stop()
        server.stop()


def test_who_comes_later_attaches_and_does_not_end_it(tmp_path: Path) -> None:
    server = start(tmp_path)
    try:
        later = start(tmp_path)
        assert (later.pid, later.owned) == (server.pid, False)
        later.stop()
        assert server.alive()
    finally:
        server.stop()


def test_two_owners_at_once_share_one_server(tmp_path: Path) -> None:
    both = [owner(tmp_path), owner(tmp_path)]
    said = [child.stdout.readline().split() for child in both if child.stdout]
    assert said[0][:2] == said[1][:2]
    assert sorted(line[2] for line in said) == ["False", "True"]
    for child in both:
        child.communicate("")


def test_it_ends_with_its_owner_even_by_sigkill(tmp_path: Path) -> None:
    child = owner(tmp_path)
    assert child.stdout is not None
    assert child.stdin is not None
    pid = int(child.stdout.readline().split()[0])
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    until(lambda: not psutil.pid_exists(pid))
    assert attach(tmp_path) is None


def test_it_does_not_hear_the_terminals_interrupt(tmp_path: Path) -> None:
    server = start(tmp_path)
    try:
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)
    finally:
        server.stop()


def test_an_address_that_somebody_else_took_over_is_not_believed(tmp_path: Path) -> None:
    other = start(tmp_path / "other")
    try:
        (tmp_path / "redis.json").write_text(json.dumps({"url": other.url, "pid": 1, "port": other.port}))
        assert attach(tmp_path) is None
        (tmp_path / "redis.json").write_text("torn {")
        assert attach(tmp_path) is None
    finally:
        other.stop()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port}.*taken"):
            start(tmp_path, port=port)
