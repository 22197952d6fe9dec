"""The other ways to Redis, with real servers: TLS, Sentinel, a cluster, and the errors of each."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.backends.redis_connect import RedisDownError, RedisSettings, open_client, shown_url
from pipeline.backends.sink_redis import RedisSink
from pipeline.client import Consumer, read
from pipeline.errors import ConfigError
from tests.fixtures.events import gap, segment
from tests.fixtures.redis import RedisFactory, RedisServer, until
from tests.fixtures.tls import HOUR, Authority, terminated


def refusal(settings: RedisSettings) -> RedisDownError:
    """The error of connecting, which must fail."""
    sink = RedisSink(settings)
    with pytest.raises(RedisDownError) as caught:
        sink.connect()
    sink.close()
    return caught.value


def test_tls_with_an_authority_of_ones_own(redis_server: RedisServer, tmp_path: Path) -> None:
    own = Authority(tmp_path)
    with terminated(redis_server.port, own.context()) as tls:
        url = f"rediss://127.0.0.1:{tls.port}/0"
        sink = RedisSink(RedisSettings(url, ca=str(own.ca)))
        assert sink.connect() == []
        sink.publish("segments", [event := segment()])
        sink.close()
        assert [found.id for _, found in read(url, ca=str(own.ca))] == [event.id]
        with Consumer(url, ca=str(own.ca)) as consumer:
            assert [delivery.event.id for delivery in consumer.deliveries(follow=False)] == [event.id]


@pytest.mark.parametrize(
    ("host", "valid", "known", "says"),
    [
        ("127.0.0.1", (-HOUR, HOUR), "other", r"unable to get local issuer|self-signed|signature failure"),
        ("127.0.0.1", (-HOUR, HOUR), "", r"unable to get local issuer|self-signed"),
        ("redis.example", (-HOUR, HOUR), "own", "IP address mismatch.*127.0.0.1"),
        ("127.0.0.1", (-2 * HOUR, -HOUR), "own", "certificate has expired"),
        ("127.0.0.1", (HOUR, 2 * HOUR), "own", "not yet valid"),
    ],
    ids=["another authority", "the system's authorities", "another name", "expired", "not valid yet"],
)
def test_a_certificate_that_is_not_right_is_refused_with_the_reason_and_the_cure(
    redis_server: RedisServer,
    tmp_path: Path,
    host: str,
    valid: tuple[timedelta, timedelta],
    known: str,
    says: str,
) -> None:
    own, other = Authority(tmp_path), Authority(tmp_path, "somebody else")
    ca = {"own": str(own.ca), "other": str(other.ca), "": None}[known]
    with terminated(redis_server.port, own.context(host, valid)) as tls:
        error = refusal(RedisSettings(f"rediss://user:c4nary@127.0.0.1:{tls.port}/0", ca=ca))
        assert error.reason == "tls"
        assert re.search(says, str(error)), str(error)
        assert "check redis.tls.ca, the host name and the certificate's dates" in str(error)
        assert "c4nary" not in str(error)
    with redis_server.client() as client:
        assert client.keys("*") == []


def test_tls_to_a_port_without_it_ends_within_the_deadline_and_says_so(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain server waits for the rest of what it takes for a command."""
    monkeypatch.setattr("pipeline.backends.redis_connect.ANSWER_S", 0.3)
    error = refusal(RedisSettings(f"rediss://127.0.0.1:{redis_server.port}/0"))
    assert error.reason == "timeout"
    assert "with or without TLS" in str(error)


def test_a_certificate_file_that_is_missing_is_named(redis_server: RedisServer) -> None:
    with pytest.raises(ConfigError, match=r"redis\.tls\.ca: '/no/such/ca\.pem': .*No such file"):
        RedisSink(RedisSettings(f"rediss://127.0.0.1:{redis_server.port}/0", ca="/no/such/ca.pem"))


def test_sentinel_names_the_master(redis_factory: RedisFactory) -> None:
    master = redis_factory()
    sentinel = redis_factory(sentinel=f"monitor main 127.0.0.1 {master.port} 1")
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"
    sink = RedisSink(RedisSettings(url))
    assert sink.connect() == []
    sink.publish("segments", [event := segment()])
    sink.close()
    with Consumer(url) as consumer:
        assert [delivery.event.id for delivery in consumer.deliveries(follow=False)] == [event.id]
    with master.client() as client:
        assert client.xlen("framewarden:segments") == 1
    assert refusal(RedisSettings(url.replace("main", "other"))).reason == "no_master"


def test_closing_leaves_no_connection_to_the_sentinel(redis_factory: RedisFactory) -> None:
    master = redis_factory()
    sentinel = redis_factory(sentinel=f"monitor main 127.0.0.1 {master.port} 1")
    sink = RedisSink(RedisSettings(f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0"))
    with sentinel.client() as watcher:
        alone = len(watcher.client_list())
        sink.connect()
        assert len(watcher.client_list()) == alone + 1
        sink.close()  # it is still held here: nothing is left to the garbage collector
        until(lambda: len(watcher.client_list()) == alone, 5)


def test_a_cluster_takes_and_gives_events(redis_factory: RedisFactory) -> None:
    server = redis_factory(cluster_enabled="yes")
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: "'cluster_state': 'ok'" in str(client.execute_command("CLUSTER INFO")))
    url = f"redis+cluster://127.0.0.1:{server.port}"
    sink = RedisSink(RedisSettings(url))
    assert sink.connect() == []
    events = [segment(), segment()]
    ids = sink.publish("segments", events)
    sink.publish("health", [hole := gap()])
    assert sink.entries("segments", ids[0], ids[1]) == {ids[0]: events[0].id, ids[1]: events[1].id}
    there = sink.topic("segments")
    assert there is not None
    assert there.length == 2
    assert there.run_id
    with Consumer(url) as consumer:
        found = []
        for delivery in consumer.deliveries(follow=False):
            consumer.ack(delivery)
            found.append(delivery.event.id)
        assert set(found) == {events[0].id, events[1].id, hole.id}
    assert sink.acknowledged("segments") == ids[1]
    sink.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://u:pw@h:1", "scheme is to be one of redis, rediss"),
        ("localhost:6379", "scheme"),
        ("redis+sentinel://u:pw@h1,h2:2/svc", "'h1' is not HOST:PORT"),
        ("redis+cluster://u:pw@", "HOST:PORT"),
        ("redis+sentinel://h:1/svc/x", "is not a Redis URL"),
    ],
)
def test_a_url_that_cannot_be_understood_is_a_config_error_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_client(RedisSettings(url))
    assert "pw" not in str(caught.value)


def test_a_shown_url_has_no_secret_whatever_the_password_holds() -> None:
    assert shown_url("rediss://u:p/a@s?s@host:6379/0") == "rediss://***@host:6379/0"
    assert shown_url("redis://h:1/0?password=x&db=2") == "redis://h:1/0?password=***&db=***"
