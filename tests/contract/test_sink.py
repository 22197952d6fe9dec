"""The Redis sink against real servers: what was written is there, and every refusal names its cure."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.backends.redis_connect import RedisDownError, RedisSettings
from pipeline.backends.sink_redis import ACL, RedisSink
from pipeline.errors import ConfigError
from tests.fixtures.events import gap, segment
from tests.fixtures.redis import RedisFactory, RedisServer, free_port


@pytest.fixture
def sink(redis_server: RedisServer) -> Iterator[RedisSink]:
    sink = RedisSink(RedisSettings(redis_server.url))
    sink.connect()
    yield sink
    sink.close()


def test_a_safe_server_gives_no_warning(redis_server: RedisServer) -> None:
    sink = RedisSink(RedisSettings(redis_server.url))
    assert sink.connect() == []
    sink.close()


def test_events_are_entries_with_plain_fields_in_order(sink: RedisSink, redis_server: RedisServer) -> None:
    events = [segment(), segment(), segment()]
    ids = sink.publish("segments", events)
    health = sink.publish("health", [gap()])
    with redis_server.client() as client:
        found = client.xrange("framewarden:segments")
        assert [redis_id for redis_id, _ in found] == ids
        assert [fields for _, fields in found] == [event.fields() for event in events]
        assert json.loads(found[0][1]["event"])["data"]["category"] == "sexual"
        assert [redis_id for redis_id, _ in client.xrange("framewarden:health")] == health


def test_the_review_group_reads_from_the_first_entry_even_if_it_comes_later(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    event = segment()
    with redis_server.client() as client:
        client.xgroup_destroy("framewarden:segments", "review")
        sink.publish("segments", [event])
        sink.ensure_groups()
        sink.ensure_groups()
        answer = client.xreadgroup("review", "somebody", {"framewarden:segments": ">"})
        assert [fields["id"] for _, fields in answer[0][1]] == [event.id]


def test_the_prefix_begins_every_key(redis_server: RedisServer) -> None:
    sink = RedisSink(RedisSettings(redis_server.url, prefix="site-a"))
    sink.connect()
    sink.publish("segments", [segment()])
    sink.close()
    with redis_server.client() as client:
        assert set(client.keys("*")) == {"site-a:segments", "site-a:health"}


def test_unsafe_settings_are_named_with_their_cure(redis_factory: RedisFactory) -> None:
    server = redis_factory(appendonly="no", maxmemory="50mb", maxmemory_policy="allkeys-lru")
    sink = RedisSink(RedisSettings(server.url))
    warnings = sink.connect()
    sink.close()
    assert len(warnings) == 2
    assert "appendonly yes" in warnings[0]
    assert "allkeys-lru" in warnings[1]
    assert "noeviction" in warnings[1]


def test_nothing_is_written_to_an_unsafe_server_when_that_is_refused(redis_factory: RedisFactory) -> None:
    server = redis_factory(appendonly="no")
    sink = RedisSink(RedisSettings(server.url, on_unsafe="refuse"))
    with pytest.raises(ConfigError, match=r"on_unsafe.*appendonly yes"):
        sink.connect()
    sink.close()
    with server.client() as client:
        assert client.keys("*") == []


def test_a_full_server_refuses_the_whole_batch_and_takes_it_later(redis_factory: RedisFactory) -> None:
    server = redis_factory()
    sink = RedisSink(RedisSettings(server.url))
    sink.connect()
    events = [segment(), segment()]
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(RedisDownError, match="raise maxmemory") as caught:
            sink.publish("segments", events)
        assert caught.value.reason == "oom"
        assert client.xlen("framewarden:segments") == 0
        client.config_set("maxmemory", "0")
    assert len(sink.publish("segments", events)) == 2
    sink.close()


def test_a_replica_is_named_as_such(redis_factory: RedisFactory) -> None:
    master, replica = redis_factory(), redis_factory()
    sink = RedisSink(RedisSettings(replica.url))
    sink.connect()
    with replica.client() as client:
        client.replicaof("127.0.0.1", master.port)
        with pytest.raises(RedisDownError, match=r"readonly.*name the master") as caught:
            sink.publish("segments", [segment()])
    sink.close()
    assert caught.value.reason == "readonly"


def test_a_wrong_password_is_told_apart_and_never_shown(redis_factory: RedisFactory) -> None:
    server = redis_factory(requirepass="right")
    url = f"redis://:c4nary/@w@127.0.0.1:{server.port}/0".replace("/@w", "%2F%40w")
    sink = RedisSink(RedisSettings(url))
    with pytest.raises(RedisDownError, match="check user and password") as caught:
        sink.connect()
    sink.close()
    assert caught.value.reason == "auth"
    shown = " ".join([str(caught.value), repr(sink.settings), sink.url, repr(caught.value.__cause__)])
    assert "c4nary" not in shown
    no_password = RedisSink(RedisSettings(f"redis://127.0.0.1:{server.port}/0"))
    with pytest.raises(RedisDownError, match="auth"):
        no_password.connect()
    no_password.close()


@pytest.mark.parametrize("password", ["", "kept"])
def test_a_server_that_reads_its_data_is_said_to_be_loading(
    redis_factory: RedisFactory, password: str
) -> None:
    """It answers four times while it does so: asking it how it is must not come after that."""
    server = redis_factory(requirepass=password)
    sink = RedisSink(RedisSettings(server.url))
    with (
        server.loading(keys=4096, key_us=1000),
        pytest.raises(RedisDownError, match="comes back by itself") as caught,
    ):
        sink.connect()
    sink.close()
    assert caught.value.reason == "loading"


def permitted(server: RedisServer, rights: str) -> tuple[list[str], int]:
    """All that the sink does, as a user with these rights: the warnings, and how much was trimmed by size."""
    url = server.url.replace("//", "//framewarden:secret@")
    with server.client() as client, closing(RedisSink(RedisSettings(url))) as sink:
        client.execute_command(*rights.split())
        warnings = sink.connect()
        ids = sink.publish("segments", [segment(), segment()])
        assert sink.topic("segments") is not None
        assert set(sink.entries("segments", ids[0], ids[1])) == set(ids)
        assert sink.acknowledged("segments") == "0-0"
        client.xreadgroup("review", "a", {"framewarden:segments": ">"})
        client.xack("framewarden:segments", "review", *ids)
        return warnings, sink.trim("segments", older_than_s=60.0, max_bytes=10)


RIGHTS = ACL.format(user="framewarden", prefix="framewarden").replace("PASSWORD", "secret")
EACH = [word for word in RIGHTS.split() if word.startswith("+")]


def test_the_documented_rights_are_enough(redis_server: RedisServer) -> None:
    assert permitted(redis_server, RIGHTS) == ([], 1)


@pytest.mark.parametrize("right", EACH)
def test_without_any_one_of_the_documented_rights_something_is_refused(
    redis_server: RedisServer, right: str
) -> None:
    """Or left out, as trimming by size is without ``+memory``."""
    rights = RIGHTS.replace(f" {right}", "")
    if right == "+memory|usage":
        assert permitted(redis_server, rights) == ([], 0)
        return
    with pytest.raises(RedisDownError) as caught:
        permitted(redis_server, rights)
    assert caught.value.reason == "permission"


def test_missing_rights_are_named_on_connecting_with_the_command_that_gives_them(
    redis_server: RedisServer,
) -> None:
    with pytest.raises(RedisDownError, match=r"XADD framewarden:segments.*XTRIM.*\+xadd") as caught:
        permitted(redis_server, RIGHTS + " -xadd -xtrim")
    assert caught.value.reason == "permission"
    with redis_server.client() as client:
        assert client.xlen("framewarden:segments") == 0


def test_nobody_listening_is_refused_at_once() -> None:
    sink = RedisSink(RedisSettings(f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(RedisDownError, match="is it running") as caught:
        sink.connect()
    sink.close()
    assert caught.value.reason == "refused"


def test_a_port_that_accepts_and_says_nothing_ends_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.backends.redis_connect.ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        sink = RedisSink(RedisSettings(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))
        began = time.monotonic()
        with pytest.raises(RedisDownError) as caught:
            sink.connect()
        sink.close()
    assert caught.value.reason == "timeout"
    assert time.monotonic() - began < 3


def test_a_key_of_another_program_is_named(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("framewarden:segments", "theirs")
    sink = RedisSink(RedisSettings(redis_server.url))
    with pytest.raises(RedisDownError, match=r"choose another redis\.prefix"):
        sink.connect()
    sink.close()


def test_a_broken_connection_is_never_opened_again_behind_the_callers_back(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    """Otherwise entries could be written to a successor before anybody compared what it holds."""
    sink.publish("segments", [segment()])
    redis_server.kill()
    redis_server.start()
    for _ in range(3):
        with pytest.raises(RedisDownError):
            sink.publish("segments", [segment()])
    with redis_server.client() as client:
        assert client.xlen("framewarden:segments") == 1
    sink.connect()
    assert len(sink.publish("segments", [segment()])) == 1


def test_acknowledged_is_the_lowest_bound_over_all_groups(sink: RedisSink, redis_server: RedisServer) -> None:
    key = "framewarden:segments"
    ids = sink.publish("segments", [segment() for _ in range(4)])
    assert sink.acknowledged("segments") == "0-0"
    with redis_server.client() as client:
        client.xreadgroup("review", "a", {key: ">"}, count=3)
        client.xack(key, "review", ids[0], ids[2])
        bound = sink.acknowledged("segments")
        assert bound is not None
        ms, n = (int(part) for part in ids[1].split("-"))
        assert bound == (f"{ms}-{n - 1}" if n else f"{ms - 1}-{2**64 - 1}")
        client.xack(key, "review", ids[1])
        assert sink.acknowledged("segments") == ids[2]
        client.xgroup_create(key, "archive", id="0")
        assert sink.acknowledged("segments") == "0-0"


def test_taken_is_what_every_group_acknowledged_and_somebody_deleted_then(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    """Trimming deletes nothing in this sense: what was trimmed may never have been seen."""
    key = "framewarden:segments"
    ids = sink.publish("segments", [segment() for _ in range(5)])
    with redis_server.client() as client:
        client.xreadgroup("review", "a", {key: ">"}, count=4)
        client.xack(key, "review", *ids[:3])
        assert sink.taken("segments", ids) == set()
        client.xtrim(key, maxlen=4, approximate=False)
        assert sink.taken("segments", ids[:1]) == set()
        client.xdel(key, ids[1])
        assert sink.taken("segments", ids) == {ids[0], ids[1]}
        client.xdel(key, ids[3], ids[4])
        assert sink.taken("segments", ids) == set(ids[:3])
        client.xgroup_create(key, "archive", id="0")
        assert sink.taken("segments", ids) == set()


def test_only_what_every_group_acknowledged_is_trimmed_and_only_by_age(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    key = "framewarden:segments"
    ids = sink.publish("segments", [segment() for _ in range(3)])
    with redis_server.client() as client:
        assert sink.trim("segments", older_than_s=-60.0) == 0
        client.xreadgroup("review", "a", {key: ">"}, count=3)
        client.xack(key, "review", ids[0], ids[2])
        assert sink.trim("segments", older_than_s=60.0) == 0
        assert sink.trim("segments", older_than_s=-60.0) == 1
        assert [redis_id for redis_id, _ in client.xrange(key)] == ids[1:]


def test_trimming_before_the_first_entry_of_a_millisecond_deletes_only_what_is_before(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    key = "framewarden:segments"
    with redis_server.client() as client:
        for redis_id in ("5-0", "6-0", "7-0"):
            client.xadd(key, {"id": redis_id}, id=redis_id)
        client.xreadgroup("review", "a", {key: ">"}, count=3)
        client.xack(key, "review", "5-0", "7-0")
        assert sink.acknowledged("segments") == f"5-{2**64 - 1}"
        assert sink.trim("segments", older_than_s=0.0) == 1
        assert [redis_id for redis_id, _ in client.xrange(key)] == ["6-0", "7-0"]
