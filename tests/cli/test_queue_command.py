"""``queue`` against a real Redis: what waits, what may go, and the dead."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.sink_redis import RedisSink
from pipeline.client import Consumer
from pipeline.events import Event
from tests.cli.command import Result, framewarden
from tests.fixtures.events import gap, segment
from tests.fixtures.redis import RedisFactory, RedisServer, until

KEY = "framewarden:segments"


@pytest.fixture
def sink(redis_server: RedisServer) -> Iterator[RedisSink]:
    sink = RedisSink(RedisSettings(redis_server.url))
    sink.connect()
    yield sink
    sink.close()


class Queue:
    """``framewarden queue`` on one server."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._url, self._folder = server.url, folder

    def __call__(self, *args: str) -> Result:
        return framewarden("queue", *args, "--redis", self._url, cwd=self._folder)


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Queue:
    return Queue(redis_server, tmp_path)


def handled(server: RedisServer, count: int) -> None:
    """The group ``review`` acknowledges so many of both topics."""
    with Consumer(server.url) as consumer:
        for number, delivery in enumerate(consumer.deliveries(follow=False)):
            if number < count:
                consumer.ack(delivery)


def dead(server: RedisServer, sink: RedisSink, count: int) -> list[Event]:
    """So many dead letters."""
    events = [segment() for _ in range(count)]
    sink.publish("segments", events)
    with Consumer(server.url, max_attempts=1) as consumer:
        for delivery in consumer.deliveries(follow=False):
            assert consumer.fail(delivery, "no such table: item")
    return events


def test_status_says_who_has_how_much_to_do(queue: Queue, sink: RedisSink, redis_server: RedisServer) -> None:
    sink.publish("segments", [segment() for _ in range(5)])
    handled(redis_server, 2)
    with redis_server.client() as client:
        client.xgroup_create(KEY, "archive", id="0")
    sink.publish("segments", [segment()])
    found = json.loads(queue("status", "--json").out)
    segments, health = found["topics"]
    assert (segments["key"], segments["entries"], health["entries"]) == (KEY, 6, 0)
    assert segments["bytes"] > 1000
    groups = {group["name"]: group for group in segments["groups"]}
    assert (groups["review"]["unread"], groups["review"]["pending"]) == (1, 3)
    assert 0 <= groups["review"]["oldest_s"] < 60
    assert (groups["archive"]["unread"], groups["archive"]["pending"]) == (6, 0)
    text = queue("status").out
    assert "group review: 1 unread, 3 not acknowledged" in text
    assert "dead letters: 0" in text


def test_status_of_an_empty_server_says_so(queue: Queue) -> None:
    found = queue("status")
    assert (found.code, found.out.splitlines()[0]) == (0, "nothing: no run has published here")


def test_trim_takes_only_what_every_group_has_acknowledged(
    queue: Queue, sink: RedisSink, redis_server: RedisServer
) -> None:
    ids = sink.publish("segments", [segment() for _ in range(5)])
    handled(redis_server, 3)
    assert queue("trim", "--older-than", "3600").out.splitlines()[0] == f"{KEY}: 0 deleted"
    assert queue("trim", "--older-than", "0").out.splitlines()[0] == f"{KEY}: 3 deleted"
    assert queue("trim", "--max-bytes", "0").out.splitlines()[0] == f"{KEY}: 0 deleted"
    with redis_server.client() as client:
        assert [redis_id for redis_id, _ in client.xrange(KEY)] == ids[3:]


def test_trim_by_size_takes_the_oldest(queue: Queue, sink: RedisSink, redis_server: RedisServer) -> None:
    sink.publish("segments", [segment() for _ in range(200)])
    handled(redis_server, 200)
    with redis_server.client() as client:
        half = int(client.memory_usage(KEY)) // 2
        queue("trim", "--max-bytes", str(half))
        assert 60 < client.xlen(KEY) < 130
        assert client.memory_usage(KEY) < half * 1.3


def test_trim_wants_to_know_what(queue: Queue) -> None:
    found = queue("trim")
    assert (found.code, found.out) == (2, "")
    assert "--older-than SECONDS, --max-bytes N, or both" in found.err


def test_dead_letters_are_listed_shown_requeued_and_dropped(
    queue: Queue, sink: RedisSink, redis_server: RedisServer
) -> None:
    first, second, third = dead(redis_server, sink, 3)
    lines = queue("dlq", "list").out.splitlines()
    assert len(lines) == 3
    assert f"review {first.id} attempts=1: no such table: item" in lines[0]
    assert len(queue("dlq", "list", "--limit", "2").out.splitlines()) == 2
    listed = [json.loads(line) for line in queue("dlq", "list", "--json").out.splitlines()]
    names = [letter["dlq_id"] for letter in listed]
    shown = json.loads(queue("dlq", "show", names[1]).out)
    assert shown["fields"]["id"] == second.id
    assert shown["why"] == "no such table: item"
    assert "in segments" in queue("dlq", "requeue", names[0]).out
    assert queue("dlq", "drop", names[1]).out == f"{names[1]} is deleted\n"
    with Consumer(redis_server.url) as consumer:
        assert [delivery.event.id for delivery in consumer.deliveries(follow=False)] == [first.id]
    assert queue("dlq", "requeue", "--all").code == 0
    assert queue("dlq", "list").out == ""
    with redis_server.client() as client:
        assert [fields["id"] for _, fields in client.xrange(KEY)][3:] == [first.id, third.id]


def test_a_dead_letter_that_is_not_there_is_named(queue: Queue) -> None:
    for wrong in ("1-1", "yesterday"):
        found = queue("dlq", "show", wrong)
        assert (found.code, found.out) == (2, "")
        assert f"{wrong!r}: there is no such dead letter" in found.err


@pytest.mark.parametrize("args", [("dlq", "drop"), ("dlq", "drop", "1-1", "--all"), ("dlq", "requeue")])
def test_dropping_wants_ids_or_all(queue: Queue, args: tuple[str, ...]) -> None:
    found = queue(*args)
    assert found.code == 2
    assert "by their ids, or all of them: --all" in found.err


def test_a_config_names_the_server_and_the_prefix(redis_server: RedisServer, tmp_path: Path) -> None:
    sink = RedisSink(RedisSettings(redis_server.url, prefix="acme"))
    sink.connect()
    sink.publish("health", [gap()])
    sink.close()
    (tmp_path / "fw.yaml").write_text(
        f"redis: {{url: '{redis_server.url}', prefix: acme}}\nstreams: [{{id: a, url: a.mp4}}]"
    )
    found = framewarden("queue", "status", "-c", "fw.yaml", cwd=tmp_path)
    assert "acme:health: 1 entries" in found.out
    other = framewarden("queue", "status", "--redis", redis_server.url, "--prefix", "acme", cwd=tmp_path)
    assert other.out == found.out
    both = framewarden("queue", "status", "-c", "fw.yaml", "--redis", redis_server.url, cwd=tmp_path)
    assert both.code == 2


def test_the_printed_rights_are_enough_for_every_queue_command(
    sink: RedisSink, redis_server: RedisServer, tmp_path: Path
) -> None:
    dead(redis_server, sink, 2)
    line = framewarden("queue", "acl", cwd=tmp_path).out.splitlines()[2].replace("PASSWORD", "secret")
    with redis_server.client() as client:
        client.execute_command(*shlex.split(line))
    url = redis_server.url.replace("//", "//operator:secret@")
    commands: list[tuple[str, ...]] = [
        ("status",), ("trim", "--older-than", "0", "--max-bytes", "1"), ("dlq", "list"),
        ("dlq", "requeue", "--all"),
    ]  # fmt: skip
    for command in commands:
        found = framewarden("queue", *command, "--redis", url, cwd=tmp_path)
        assert (found.code, found.err) == (0, ""), command
    dead(redis_server, sink, 1)
    assert framewarden("queue", "dlq", "drop", "--all", "--redis", url, cwd=tmp_path).code == 0


def test_the_printed_rights_for_a_cluster_are_enough_for_service_and_consumer(
    redis_factory: RedisFactory, tmp_path: Path
) -> None:
    server = redis_factory(cluster_enabled="yes")
    lines = framewarden("queue", "acl", "--cluster", cwd=tmp_path).out.splitlines()
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: client.cluster("info")["cluster_state"] == "ok")
        for line in lines:
            client.execute_command(*shlex.split(line.replace("PASSWORD", "secret")))
    url = f"redis+cluster://{{}}:secret@127.0.0.1:{server.port}"
    sink = RedisSink(RedisSettings(url.format("framewarden"), on_unsafe="refuse"))
    assert sink.connect() == []
    sink.publish("segments", [event := segment()])
    with Consumer(url.format("reviewer")) as consumer:
        (delivery,) = consumer.deliveries(follow=False)
        assert delivery.event.id == event.id
        assert consumer.ack(delivery)
    assert sink.acknowledged("segments") == delivery.redis_id
    sink.close()


def test_no_server_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    found = framewarden("queue", "status", "--redis", "redis://:hunter2@127.0.0.1:1/0", cwd=tmp_path)
    assert (found.code, found.out, found.err.count("\n")) == (1, "", 1)
    assert "hunter2" not in found.err
