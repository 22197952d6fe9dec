"""The publisher with real servers that are killed, emptied and slow to come: nothing accepted is lost."""

import random
import shlex
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import redis

from pipeline.backends.redis_connect import RedisDownError, RedisSettings
from pipeline.backends.sink_redis import ACL, RedisSink
from pipeline.client import Consumer
from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.outbox import Outbox
from pipeline.service import publisher as module
from pipeline.service.publisher import Publisher
from tests.fixtures.events import gap, segment
from tests.fixtures.redis import RedisFactory, RedisServer, until

KEY = "framewarden:segments"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same loops, at a pace for tests."""
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "CHECK_S", 0.05)
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.1)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        yield outbox


@contextmanager
def running(outbox: Outbox, server: RedisServer, **settings: str) -> Iterator[Publisher]:
    with publishing(outbox, RedisSettings(server.url, **settings)) as publisher:
        yield publisher


@contextmanager
def publishing(
    outbox: Outbox, options: RedisSettings, wall: Callable[[], float] = time.time
) -> Iterator[Publisher]:
    stop = threading.Event()
    publisher = Publisher(outbox, lambda: RedisSink(options, wall=wall), stop=stop, rng=random.Random(1))
    thread = threading.Thread(target=publisher.run)
    thread.start()
    try:
        yield publisher
    finally:
        stop.set()
        thread.join()


def stored(server: RedisServer, key: str = KEY) -> list[str]:
    """Event ids in Redis, in order, repeats dropped as consumers do."""
    with server.client() as client:
        return list(dict.fromkeys(fields["id"] for _, fields in client.xrange(key)))


def names(events: Iterable[Event]) -> list[str]:
    return [event.id for event in events]


def test_events_of_both_topics_are_delivered_in_order(outbox: Outbox, redis_server: RedisServer) -> None:
    flagged, holes = [segment() for _ in range(450)], [gap() for _ in range(30)]
    outbox.accept([*flagged[:200], *holes, *flagged[200:]], now=1.0)
    with running(outbox, redis_server) as publisher:
        assert publisher.drain(15.0)
        assert publisher.state.state == "connected"
    assert stored(redis_server) == names(flagged)
    assert stored(redis_server, "framewarden:health") == names(holes)
    counts = outbox.counts()
    assert (counts.pending, counts.held, counts.delivered) == (0, 480, 480)


def test_events_that_come_while_it_runs_are_delivered_without_being_asked(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    with running(outbox, redis_server):
        events = [segment(), segment()]
        for event in events:
            outbox.accept([event], now=1.0)
        until(lambda: stored(redis_server) == names(events))


def test_nothing_is_lost_when_the_server_is_killed_again_and_again(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    events = [segment() for _ in range(300)]
    with running(outbox, redis_server) as publisher:
        for begin in range(0, 300, 60):
            before = outbox.counts().delivered
            for event in events[begin : begin + 60]:
                outbox.accept([event], now=1.0)
            until(lambda before=before: outbox.counts().delivered > before)  # type: ignore[misc]
            redis_server.kill()
            redis_server.start()
        until(lambda: outbox.counts().pending == 0 and publisher.state.connects == 6)
    assert stored(redis_server) == names(events)


def test_a_server_that_comes_late_is_waited_for_and_the_state_says_why(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    redis_server.kill()
    event = segment()
    outbox.accept([event], now=1.0)
    with running(outbox, redis_server) as publisher:
        until(lambda: publisher.state.state == "down")
        assert "refused" in str(publisher.state.error)
        assert publisher.drain(30.0) is False  # at once: it is down
        redis_server.start()
        until(lambda: outbox.counts().pending == 0)
        assert (publisher.state.state, publisher.state.error) == ("connected", None)
    assert stored(redis_server) == [event.id]


def test_entries_that_a_crash_took_from_a_server_without_aof_are_published_again(
    outbox: Outbox, redis_factory: RedisFactory
) -> None:
    """Acknowledged writes are gone after SIGKILL: the outbox still holds them."""
    server = redis_factory(appendonly="no")
    events = [segment() for _ in range(40)]
    with running(outbox, server) as publisher:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        assert any("appendonly" in text for text in publisher.state.warnings)
        server.kill()
        server.start()
        assert stored(server) == []
        until(lambda: stored(server) == names(events))
        assert publisher.state.republished == 40


def test_flushall_is_noticed_without_a_reconnect_and_groups_come_back(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    events = [segment() for _ in range(10)]
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        client.flushall()
        until(lambda: stored(redis_server) == names(events))
        until(lambda: len(client.xinfo_groups(KEY)) == 1)
        assert publisher.state.connects == 1


@pytest.mark.parametrize("empty", ["flushall", "del"])
def test_new_events_never_overtake_what_was_lost_with_the_stream(
    empty: str, outbox: Outbox, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the next look at what the server holds: the first new event finds out."""
    monkeypatch.setattr(module, "CHECK_S", 600.0)
    old, new = [segment() for _ in range(5)], [segment() for _ in range(5)]
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept(old, now=1.0)
        assert publisher.drain(10.0)
        client.flushall() if empty == "flushall" else client.delete(KEY)
        outbox.accept(new, now=2.0)
        until(lambda: set(names(new)) <= set(stored(redis_server)))
        assert stored(redis_server) == [*names(old), *names(new)]
        assert publisher.state.connects == 1


def test_entries_trimmed_by_length_before_anybody_read_them_are_published_again(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    events = [segment() for _ in range(10)]
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        client.xreadgroup("review", "desk", {KEY: ">"}, count=4)
        client.xtrim(KEY, maxlen=2, approximate=False)
        until(lambda: set(stored(redis_server)) == set(names(events)))


def test_what_every_group_acknowledged_leaves_the_outbox_and_the_rest_stays(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept([segment() for _ in range(5)], now=1.0)
        assert publisher.drain(10.0)
        entries = client.xreadgroup("review", "desk", {KEY: ">"}, count=4)[0][1]
        client.xack(KEY, "review", *(redis_id for redis_id, _ in entries[:3]))
        until(lambda: outbox.counts().held == 2)
        assert client.xlen(KEY) == 5  # kept for readers until it is old


def test_entries_that_a_consumer_acknowledged_and_deleted_are_not_published_again(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    """The third of five is acknowledged and deleted while the first two are still being worked on."""
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept([segment() for _ in range(5)], now=1.0)
        assert publisher.drain(10.0)
        entries = client.xreadgroup("review", "desk", {KEY: ">"})[0][1]
        with client.pipeline() as pipe:
            pipe.xack(KEY, "review", entries[2][0]).xdel(KEY, entries[2][0]).execute()
        until(lambda: outbox.counts().held == 4)
        assert publisher.state.republished == 0
        assert client.xlen(KEY) == 4


def test_what_all_have_acknowledged_goes_by_size_and_what_one_group_needs_stays(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    outbox.max_bytes = 60_000
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept([segment() for _ in range(20)], now=1.0)
        assert publisher.drain(10.0)
        client.xgroup_create(KEY, "archive", id="0")
        for group, count in (("review", 20), ("archive", 5)):
            entries = client.xreadgroup(group, "desk", {KEY: ">"}, count=count)[0][1]
            client.xack(KEY, group, *(redis_id for redis_id, _ in entries))
        outbox.accept([segment() for _ in range(100)], now=1.0)
        assert publisher.drain(10.0)
        until(lambda: client.xlen(KEY) == 115)  # the five that both have done with
        for group in ("review", "archive"):
            entries = client.xreadgroup(group, "desk", {KEY: ">"}, count=200)[0][1]
            client.xack(KEY, group, *(redis_id for redis_id, _ in entries))
        until(lambda: client.memory_usage(KEY) < 80_000)
        assert 10 < client.xlen(KEY) < 60
        assert publisher.state.republished == 0


def test_what_every_group_acknowledged_goes_by_age_and_what_one_group_needs_stays(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    """At first everything is younger than the hour that it is kept for, then all of it is two hours old."""
    outbox.keep_s, ahead_s, asked = 3600.0, 0.0, 0
    events = [segment() for _ in range(6)]

    def wall() -> float:
        nonlocal asked
        asked += 1
        return time.time() + ahead_s

    def look() -> None:
        """Let the publisher keep house, from now on, over both topics."""
        since = asked
        until(lambda: asked >= since + 4)

    with (
        publishing(outbox, RedisSettings(redis_server.url), wall) as publisher,
        redis_server.client() as client,
    ):
        outbox.accept(events, now=time.time())
        assert publisher.drain(10.0)
        client.xgroup_create(KEY, "archive", id="0")
        for group, done in (("review", 6), ("archive", 4)):
            entries = client.xreadgroup(group, "desk", {KEY: ">"})[0][1]
            client.xack(KEY, group, *(redis_id for redis_id, _ in entries[:done]))
        look()
        assert stored(redis_server) == names(events)
        ahead_s = 7200.0
        look()
        assert stored(redis_server) == names(events[4:])
        client.xack(KEY, "archive", *(redis_id for redis_id, _ in entries[4:]))
        until(lambda: client.xlen(KEY) == 0)
        assert publisher.state.republished == 0


def read(server: RedisServer, count: int = 100) -> list[str]:
    """A reader takes and acknowledges the next entries; the events' ids."""
    with server.client() as client:
        found = client.xreadgroup("review", "desk", {KEY: ">"}, count=count)
        entries = found[0][1] if found else []
        if entries:
            client.xack(KEY, "review", *(redis_id for redis_id, _ in entries))
    return [fields["id"] for _, fields in entries]


def test_what_was_trimmed_unread_is_published_again_although_a_later_entry_was_acknowledged(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    events = [segment() for _ in range(10)]
    with running(outbox, redis_server) as publisher:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        seen = read(redis_server, 4)
        with redis_server.client() as client:
            client.xtrim(KEY, maxlen=2, approximate=False)
        seen += read(redis_server)
        assert seen == names(events[:4] + events[8:])
        until(lambda: publisher.state.republished >= 4)  # and what was acknowledged just before, perhaps
        assert publisher.drain(10.0)
        assert set(seen + read(redis_server)) == set(names(events))
        until(lambda: outbox.counts().held == 0)


def test_what_a_reader_was_given_but_never_saw_is_published_again(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    """Trimmed while it was pending: the kit acknowledges what has no body, nothing else would ever do."""
    events = [segment() for _ in range(3)]
    seen: list[str] = []
    with running(outbox, redis_server) as publisher:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        with redis_server.client() as client:
            client.xreadgroup("review", "desk", {KEY: ">"}, count=2)
            client.xtrim(KEY, maxlen=1, approximate=False)
        done = threading.Event()
        with Consumer(redis_server.url, name="desk", topics=["segments"]) as kit:
            for delivery in kit.deliveries(stop=done):
                seen.append(delivery.event.id)
                kit.ack(delivery)
                if len(seen) == 3:
                    done.set()
        assert sorted(seen) == sorted(names(events))
        until(lambda: outbox.counts().held == 0)


def test_what_consumers_delete_after_acknowledging_it_is_not_published_again(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    events = [segment() for _ in range(6)]
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        for _ in range(5):
            (entry,) = client.xreadgroup("review", "desk", {KEY: ">"}, count=1)[0][1]
            client.xack(KEY, "review", entry[0])
            client.xdel(KEY, entry[0])
        until(lambda: outbox.counts().held == 1)
        assert publisher.state.republished == 0


def test_a_stream_that_another_service_has_made_again_after_flushall_gets_back_what_it_held(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    """Its reader goes on meanwhile, and deletes what it has done with."""
    events = [segment() for _ in range(10)]
    with running(outbox, redis_server) as publisher, redis_server.client() as client:
        outbox.accept(events, now=1.0)
        assert publisher.drain(10.0)
        other = RedisSink(RedisSettings(redis_server.url))
        other.connect()
        with client.pipeline(transaction=True) as pipe:  # at once, so that this publisher cannot come between
            pipe.flushall()
            pipe.xgroup_create(KEY, "review", id="0", mkstream=True)
            pipe.execute()
        other.publish("segments", [segment()])
        entries = client.xreadgroup("review", "desk", {KEY: ">"})[0][1]
        client.xack(KEY, "review", *(redis_id for redis_id, _ in entries))
        client.xdel(KEY, *(redis_id for redis_id, _ in entries))
        until(lambda: publisher.state.republished == 10)
        assert publisher.drain(10.0)
        assert set(names(events)) <= set(stored(redis_server))


def test_a_cluster_s_node_that_comes_back_without_what_it_took_is_given_it_again(
    outbox: Outbox, tmp_path: Path
) -> None:
    """A cluster's client connects by itself; a reader goes on at once."""
    settings = {"cluster-enabled": "yes", "appendonly": "no", "dbfilename": "dump.rdb"}
    (tmp_path / "node").mkdir()
    server = RedisServer(tmp_path / "node", settings)
    server.start()
    try:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            until(lambda: client.cluster("info")["cluster_state"] == "ok")
        first, second, third = ([segment() for _ in range(5)] for _ in range(3))
        with publishing(outbox, RedisSettings(f"redis+cluster://127.0.0.1:{server.port}")) as publisher:
            outbox.accept(first, now=1.0)
            assert publisher.drain(10.0)
            seen = read(server)
            with server.client() as client:
                client.save()
            outbox.accept(second, now=1.0)
            assert publisher.drain(10.0)
            server.kill()
            server.start()
            outbox.accept(third, now=1.0)
            wanted = set(names(first + second + third))

            def all_seen() -> bool:
                with suppress(redis.RedisError):  # it comes up
                    seen.extend(read(server))
                return wanted <= set(seen)

            until(all_seen, 30.0)
    finally:
        server.kill()


class CutSink(RedisSink):
    """A real sink whose first reply is lost after Redis has taken the events."""

    cuts = 1

    def publish(self, topic: str, events: Sequence[Event]) -> list[str]:
        ids = super().publish(topic, events)
        if CutSink.cuts > 0:
            CutSink.cuts -= 1
            raise RedisDownError("lost", "the connection was cut before the reply")
        return ids


def test_a_reply_that_was_lost_gives_a_repeat_and_no_loss(outbox: Outbox, redis_server: RedisServer) -> None:
    events = [segment(), segment()]
    outbox.accept(events, now=1.0)
    stop = threading.Event()
    stop.set()  # one connection, what is pending, and out
    publisher = Publisher(outbox, lambda: CutSink(RedisSettings(redis_server.url)), stop=stop)
    publisher.run()
    assert publisher.state.state == "down"
    publisher.run()
    assert outbox.counts().pending == 0
    with redis_server.client() as client:
        assert client.xlen(KEY) == 4
    assert stored(redis_server) == names(events)


def test_the_publisher_of_the_next_run_goes_on_where_the_last_one_was_killed(
    outbox: Outbox, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Half was delivered and recorded; the rest waits in the file for whoever opens it."""
    events = [segment() for _ in range(6)]
    sink = RedisSink(RedisSettings(redis_server.url))
    sink.connect()
    outbox.accept(events, now=1.0)
    rows = outbox.pending(limit=3)
    ids = sink.publish("segments", [row.event for row in rows])
    outbox.delivered([(row.seq, redis_id) for row, redis_id in zip(rows, ids, strict=True)], now=1.0)
    sink.close()
    with Outbox(tmp_path / "outbox.sqlite") as successor, running(successor, redis_server) as publisher:
        assert publisher.drain(10.0)
        assert publisher.state.republished == 0
    with redis_server.client() as client:
        assert [fields["id"] for _, fields in client.xrange(KEY)] == names(events)


def test_an_outbox_of_an_older_version_that_is_found_is_drained_oldest_first(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Three events wait in it; the fourth was delivered to a server that does not hold it any more."""
    path = tmp_path / "outbox.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parents[1] / "fixtures" / "outbox-1.sql").read_text())
    with Outbox(path) as outbox:
        held = [row.event for row in outbox.held("segments", 9)]
        waiting = [row.event for row in outbox.pending()]
        with running(outbox, redis_server) as publisher:
            until(lambda: publisher.state.republished == 1)
            assert publisher.drain(10.0)
    flagged = names([*held, *(event for event in waiting if event.topic == "segments")])
    assert len(flagged) == 3
    assert stored(redis_server) == flagged
    assert stored(redis_server, "framewarden:health") == names(
        event for event in waiting if event.topic == "health"
    )


def test_the_documented_rights_are_enough_to_publish_again_and_to_trim(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    url = redis_server.url.replace("//", "//framewarden:secret@")
    settings = RedisSettings(url, on_unsafe="refuse")
    rights = ACL.format(user="framewarden", prefix="framewarden").replace("PASSWORD", "secret")
    outbox.max_bytes = 60_000
    events = [segment() for _ in range(20)]
    with redis_server.client() as client:
        client.execute_command(*shlex.split(rights))
        with publishing(outbox, settings) as publisher:
            outbox.accept(events, now=1.0)
            assert publisher.drain(10.0)
            client.flushall()
            until(lambda: stored(redis_server) == names(events))
            until(lambda: len(client.xinfo_groups(KEY)) == 1)
            outbox.accept([segment() for _ in range(100)], now=1.0)
            assert publisher.drain(10.0)
            entries = client.xreadgroup("review", "desk", {KEY: ">"})[0][1]
            client.xack(KEY, "review", *(redis_id for redis_id, _ in entries))
            until(lambda: client.xlen(KEY) < 60)
            assert (publisher.state.connects, publisher.state.error) == (1, None)


def test_an_unsafe_server_gets_nothing_when_that_is_refused(
    outbox: Outbox, redis_factory: RedisFactory
) -> None:
    server = redis_factory(appendonly="no")
    outbox.accept([segment()], now=1.0)
    settings = RedisSettings(server.url, on_unsafe="refuse")
    publisher = Publisher(outbox, lambda: RedisSink(settings), stop=threading.Event())
    with pytest.raises(ConfigError, match="appendonly yes"):
        publisher.run()
    with server.client() as client:
        assert client.keys("*") == []
    assert outbox.counts().pending == 1


def test_a_server_that_becomes_unsafe_later_gets_nothing_until_it_is_safe_again(
    outbox: Outbox, redis_server: RedisServer
) -> None:
    with running(outbox, redis_server, on_unsafe="refuse") as publisher, redis_server.client() as client:
        until(lambda: publisher.state.state == "connected")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.client_kill_filter(_type="normal", skipme=True)
        until(lambda: "allkeys-lru" in str(publisher.state.error))
        outbox.accept([event := segment()], now=1.0)
        assert publisher.drain(0.2) is False
        assert client.xlen(KEY) == 0
        client.config_set("maxmemory-policy", "noeviction")
        until(lambda: stored(redis_server) == [event.id])
