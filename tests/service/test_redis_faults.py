"""What Redis and the network do to each other, with real servers: nothing is lost, repeated or turned around.

Each fault counts that it struck; the history checker judges what the consumer kit gave out."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.sink_redis import RedisSink
from pipeline.service import publisher as module
from tests.fixtures.carried import Carried, carrying
from tests.fixtures.proxy import Proxy, proxied
from tests.fixtures.redis import RedisFactory, RedisServer, free_port, until
from tests.fixtures.sentinel import watched

KEY = "framewarden:segments"
ANSWER_S = 2.5
"""Longer than a busy machine stands still."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same loops, at a pace for tests."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "CHECK_S", 0.1)
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.1)
    monkeypatch.setattr("pipeline.backends.read_redis._DELAYS_S", (0.05, 0.1))
    monkeypatch.setattr("pipeline.backends.redis_connect.ANSWER_S", ANSWER_S)


Fault = Callable[[Carried, RedisServer, Proxy], int]


def down(carried: Carried, *words: str) -> int:
    """Wait until the publisher says that one of the words is what is wrong; that is the strike."""
    until(
        lambda: any(word in str(carried.publisher.state.error) for word in words),
        why=lambda: f"{words} not said: {carried.publisher.state}",
    )
    return 1


def restarted(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    server.stop()
    carried.feed(10)
    struck = down(carried, "lost", "refused")
    server.start()
    return struck


def killed(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    before = carried.outbox.counts().delivered
    carried.feed(60)
    until(lambda: carried.outbox.counts().delivered > before)  # in the middle of its work
    server.kill()
    server.start()
    until(lambda: carried.publisher.state.connects >= 2)
    return 1


def full(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        carried.feed(10)
        struck = down(carried, "oom")
        client.config_set("maxmemory", "0")
    return struck


def emptied(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    """New events come at once: they must not overtake what was lost."""
    with server.client() as client:
        struck = int(client.flushall())
        carried.feed(30)
        until(lambda: client.exists(KEY))
    return struck


def deleted(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    with server.client() as client:
        struck = int(client.delete(KEY))
        carried.feed(30)
        until(lambda: client.exists(KEY))
    return struck


def read_only(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    """It is somebody's replica for a while, whom it cannot reach: it keeps what it has."""
    with server.client() as client:
        client.replicaof("127.0.0.1", free_port())
        carried.feed(10)
        struck = down(carried, "readonly")
        client.replicaof("NO", "ONE")
    return struck


def loading(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    with server.loading():
        carried.feed(10)
        return down(carried, "loading")


def password_changed(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    with server.client() as client:
        client.config_set("requirepass", "rotated")
        client.client_kill_filter(_type="normal", skipme=True)
        carried.feed(10)
        struck = down(carried, "auth")
        client.config_set("requirepass", "")
    return struck


def cut_before_the_reply(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    proxy.cut_reply_after(b"EXEC")  # XADDs come in a transaction, in several pieces
    carried.feed(10)
    until(lambda: proxy.struck["cut_reply"])
    until(lambda: carried.publisher.state.connects >= 2)
    with server.client() as client:
        until(lambda: carried.outbox.counts().pending == 0)
        entries = [*client.xrange(KEY), *client.xrange("framewarden:health")]
        names = [fields["id"] for _, fields in entries]
        assert len(names) > len(set(names))  # Redis had taken them: it holds them twice now
    return proxy.struck["cut_reply"]


def swallowed(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    proxy.black_hole = True
    carried.feed(10)
    down(carried, "timeout")
    proxy.heal()
    return proxy.struck["black_hole"]


def reset(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    proxy.reset()
    carried.feed(10)
    return proxy.struck["reset"]


def half_closed(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    proxy.half_close()
    carried.feed(10)
    return proxy.struck["half_close"]


def unreachable(carried: Carried, server: RedisServer, proxy: Proxy) -> int:
    proxy.refuse = True
    proxy.reset()
    carried.feed(10)
    down(carried, "lost", "refused")
    until(lambda: proxy.struck["refuse"])
    proxy.heal()
    return proxy.struck["refuse"]


FAULTS: list[Fault] = [
    restarted, killed, full, emptied, deleted, read_only, loading, password_changed, cut_before_the_reply,
    swallowed, reset, half_closed, unreachable,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_repeated_or_turned_around_and_it_goes_on_by_itself(
    fault: Fault, redis_server: RedisServer, tmp_path: Path
) -> None:
    before = threading.active_count()
    with proxied(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        make_streams(redis_server)
        with carrying(tmp_path, url, seed=11, consumer_url=redis_server.url) as carried:
            carried.feed(40, through=True)
            assert fault(carried, redis_server, proxy) > 0
            carried.feed(40)
            verdict = carried.verdict()
            assert carried.publisher.state.state == "connected"
        assert verdict.good, str(verdict)
        assert carried.slowest_s < ANSWER_S  # nobody who hands over waits for Redis
    until(lambda: threading.active_count() <= before + 1)  # the server's log reader


def make_streams(server: RedisServer) -> None:
    """So that the consumer finds its group from the start."""
    sink = RedisSink(RedisSettings(server.url))
    sink.connect()
    sink.close()


def test_a_server_that_takes_two_seconds_slows_nobody_who_hands_over(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.backends.redis_connect.ANSWER_S", 5.0)
    with proxied(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        with carrying(tmp_path, url, seed=12, consumer_url=redis_server.url) as carried:
            carried.feed(20, through=True)
            proxy.latency_s = 2.0
            carried.feed(30)
            assert carried.slowest_s < 2.0
            until(lambda: proxy.struck["latency"] >= 2)
            assert carried.publisher.state.state == "connected"
            proxy.heal()
            assert carried.verdict().good
            assert carried.publisher.state.connects == 1


def test_a_full_server_is_helped_by_letting_go_of_what_was_acknowledged(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Acknowledging frees nothing: without a trim by the publisher nothing would ever fit again."""
    with carrying(tmp_path, redis_server.url, seed=13) as carried, redis_server.client() as client:
        carried.feed(400, through=True)
        until(lambda: carried.outbox.counts().held == 0)
        assert client.xlen(KEY) > 300
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 1000)
        with pytest.raises(redis.OutOfMemoryError):
            client.set("other", "x" * 5000)
        carried.feed(100)
        verdict = carried.verdict()
        assert client.xlen(KEY) < 300
    assert verdict.good, str(verdict)


def test_an_absence_too_long_for_the_outbox_costs_only_updates_that_a_later_one_says_all_of(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Room for about 120 events, and 1,500 come: at the limit who hands over waits."""
    make_streams(redis_server)
    with carrying(tmp_path, redis_server.url, seed=16, max_bytes=300_000) as carried:
        carried.feed(20, through=True)
        redis_server.kill()
        down(carried, "lost", "refused")
        refused = threading.Event()
        feeder = threading.Thread(target=carried.feed, args=(1500,), kwargs={"refused": refused})
        feeder.start()
        assert refused.wait(30)
        counts = carried.outbox.counts()
        assert counts.bytes <= 300_000
        assert counts.pending > 80
        redis_server.start()
        feeder.join()
        verdict = carried.verdict(folded=True)
        folded = len(carried.history.accepted) - len(carried.seen)
    assert verdict.good, str(verdict)
    assert folded > 5  # the checker had something to allow


def test_a_failover_by_sentinel_loses_acknowledged_writes_and_they_are_published_again(
    redis_factory: RedisFactory, tmp_path: Path
) -> None:
    with watched(redis_factory) as pair:
        master, replica, follower = pair.master, pair.replica, pair.follower
        make_streams(master)
        with master.client() as client:
            client.xgroup_create(KEY, "archive", id="0")  # it reads nothing: all stays in the outbox
        with carrying(tmp_path, pair.url, seed=14) as carried:
            carried.feed(20, through=True)
            until(lambda: follower.xlen(KEY) == len(kept(master)))
            pair.between.black_hole = True
            carried.feed(30, through=True)  # acknowledged by the master alone
            lost = len(kept(master)) - int(follower.xlen(KEY))
            assert lost > 10
            pair.fail_over()
            carried.feed(20)
            verdict = carried.verdict()
            assert carried.publisher.state.republished >= lost
        assert pair.between.struck["black_hole"] > 0
        names = {fields["id"] for _, fields in kept(replica)}
        assert {event.id for event in carried.history.accepted if event.topic == "segments"} <= names
    assert verdict.good, str(verdict)


def kept(server: RedisServer) -> list[tuple[str, dict[str, str]]]:
    with server.client() as client:
        found: list[tuple[str, dict[str, str]]] = client.xrange(KEY)
        return found


def test_a_cluster_whose_node_is_killed_loses_nothing(redis_factory: RedisFactory, tmp_path: Path) -> None:
    server = redis_factory(cluster_enabled="yes")
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until(lambda: client.cluster("info")["cluster_state"] == "ok")
    url = f"redis+cluster://127.0.0.1:{server.port}"
    sink = RedisSink(RedisSettings(url))
    sink.connect()
    sink.close()
    with carrying(tmp_path, url, seed=15) as carried:
        carried.feed(30, through=True)
        server.kill()
        carried.feed(10)
        down(carried, "refused", "lost", "cluster_down")
        server.start()
        carried.feed(30)
        verdict = carried.verdict()
    assert verdict.good, str(verdict)
