"""The consumer kit against a real server: every event reaches somebody, and nobody twice."""

import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.sink_redis import RedisSink
from pipeline.client import Consumer, Event, read
from pipeline.errors import ConfigError, SinkError
from tests.fixtures.events import gap, segment
from tests.fixtures.redis import RedisServer, free_port


@pytest.fixture
def sink(redis_server: RedisServer) -> Iterator[RedisSink]:
    sink = RedisSink(RedisSettings(redis_server.url))
    sink.connect()
    yield sink
    sink.close()


def got(consumer: Consumer) -> list[str]:
    """What there is now, acknowledged."""
    found = []
    for delivery in consumer.deliveries(follow=False):
        consumer.ack(delivery)
        found.append(delivery.event.id)
    return found


def names(events: list[Event]) -> list[str]:
    return [event.id for event in events]


def test_a_group_gets_everything_once_in_order(sink: RedisSink, redis_server: RedisServer) -> None:
    events = [segment() for _ in range(250)]
    sink.publish("segments", events)
    with Consumer(redis_server.url) as consumer:
        assert got(consumer) == names(events)
        assert got(consumer) == []
    with Consumer(redis_server.url, group="archive") as other:
        assert got(other) == names(events)


def test_both_topics_are_consumed_unless_one_is_chosen(sink: RedisSink, redis_server: RedisServer) -> None:
    flagged, hole = segment(), gap()
    sink.publish("segments", [flagged])
    sink.publish("health", [hole])
    with Consumer(redis_server.url, group="a", topics=["segments"]) as consumer:
        assert got(consumer) == [flagged.id]
    with Consumer(redis_server.url, group="b") as consumer:
        assert set(got(consumer)) == {flagged.id, hole.id}


def test_what_was_not_acknowledged_comes_first_after_a_restart(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    events = [segment() for _ in range(3)]
    sink.publish("segments", events)
    with Consumer(redis_server.url, name="desk-1") as consumer:
        first = list(islice(consumer.deliveries(follow=False), 3))
        assert [delivery.attempts for delivery in first] == [1, 1, 1]
        consumer.ack(first[1])
    sink.publish("segments", [new := segment()])
    with Consumer(redis_server.url, name="desk-2") as other:
        assert got(other) == [new.id]
    with Consumer(redis_server.url, name="desk-1") as again:
        second = list(again.deliveries(follow=False))
        assert [delivery.event.id for delivery in second] == [events[0].id, events[2].id]
        assert [delivery.attempts for delivery in second] == [2, 2]


def test_what_a_silent_member_left_behind_is_given_to_another(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    events = [segment(), segment()]
    sink.publish("segments", events)
    with Consumer(redis_server.url, name="dead") as dead:
        assert len(list(dead.deliveries(follow=False))) == 2
    with Consumer(redis_server.url, name="slow", claim_idle_s=600) as patient:
        assert got(patient) == []
    with Consumer(redis_server.url, name="heir", claim_idle_s=0) as heir:
        assert got(heir) == names(events)


def test_an_event_in_hand_is_not_given_again_to_the_same_consumer(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    sink.publish("segments", [segment()])
    with Consumer(redis_server.url, claim_idle_s=0) as consumer:
        in_hand = list(consumer.deliveries(follow=False))
        assert len(in_hand) == 1
        assert list(consumer.deliveries(follow=False)) == []
        assert sink.acknowledged("segments") != in_hand[0].redis_id
        consumer.ack(in_hand[0])
    assert sink.acknowledged("segments") == in_hand[0].redis_id


def test_repeats_in_redis_are_dropped_and_acknowledged(sink: RedisSink, redis_server: RedisServer) -> None:
    opened = segment()
    closed = segment(opened.segment_id, 2, "closed")
    ids = sink.publish("segments", [opened, closed, opened, closed])
    with Consumer(redis_server.url) as consumer:
        assert got(consumer) == [opened.id, closed.id]
    assert sink.acknowledged("segments") == ids[-1]
    assert names([event for _, event in read(redis_server.url)]) == [opened.id, closed.id]


def test_reading_acknowledges_nothing_and_merges_the_topics_in_order(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    written: list[tuple[str, str]] = []
    for _ in range(3):
        for topic, event in (("segments", segment()), ("health", gap())):
            written += [(redis_id, event.id) for redis_id in sink.publish(topic, [event])]
    written.sort(key=lambda pair: tuple(map(int, pair[0].split("-"))))
    found = [(redis_id, event.id) for redis_id, event in read(redis_server.url)]
    assert sorted(found) == sorted(written)
    assert [redis_id for redis_id, _ in found] == [redis_id for redis_id, _ in written]
    assert sink.acknowledged("segments") == "0-0"


def test_reading_begins_where_it_is_told(sink: RedisSink, redis_server: RedisServer) -> None:
    events = [segment() for _ in range(3)]
    ids = sink.publish("segments", events)
    assert [event.id for _, event in read(redis_server.url, from_id=ids[1])] == names(events[1:])
    assert list(read(redis_server.url, from_id="9999999999999")) == []
    with pytest.raises(ConfigError, match="'yesterday' is not a Redis id"):
        list(read(redis_server.url, from_id="yesterday"))


def test_following_sees_what_comes_later_and_ends_when_told(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    old, new = segment(), segment()
    sink.publish("segments", [old])
    stop = threading.Event()
    follower = read(redis_server.url, follow=True, stop=stop)
    assert next(follower)[1].id == old.id
    sink.publish("segments", [new])
    assert next(follower)[1].id == new.id
    stop.set()
    assert list(follower) == []


def test_a_follower_and_a_consumer_outlive_a_restart_of_redis(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    first, second = segment(), segment()
    sink.publish("segments", [first])
    follower = read(redis_server.url, follow=True)
    with Consumer(redis_server.url) as consumer:
        deliveries = consumer.deliveries()
        assert next(follower)[1].id == first.id
        consumer.ack(next(deliveries))
        redis_server.kill()
        redis_server.start()
        sink.connect()
        sink.publish("segments", [second])
        assert next(follower)[1].id == second.id
        assert next(deliveries).event.id == second.id


def test_a_consumer_goes_on_after_flushall_took_its_group_away(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    sink.publish("segments", [segment()])
    with Consumer(redis_server.url) as consumer, redis_server.client() as client:
        assert len(got(consumer)) == 1
        client.flushall()
        assert got(consumer) == []
        assert client.keys("*") == []  # the stream is the publisher's to make
        sink.ensure_groups()
        sink.publish("segments", [new := segment()])
        assert got(consumer) == [new.id]


def test_what_is_no_event_is_passed_over(sink: RedisSink, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        for fields in ({"event": "{"}, {"other": "x"}, {"event": '{"data": {}}'}):
            client.xadd("framewarden:segments", fields)
    sink.publish("segments", [good := segment()])
    assert [event.id for _, event in read(redis_server.url)] == [good.id]
    with Consumer(redis_server.url) as consumer:
        assert got(consumer) == [good.id]


def test_an_entry_that_was_trimmed_before_it_was_acknowledged_stops_nobody(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    events = [segment(), segment()]
    sink.publish("segments", events)
    with Consumer(redis_server.url, name="desk") as consumer, redis_server.client() as client:
        assert len(list(consumer.deliveries(follow=False))) == 2
        client.xtrim("framewarden:segments", maxlen=1, approximate=False)
    with Consumer(redis_server.url, name="desk") as again:
        assert got(again) == [events[1].id]


def test_no_server_is_an_error_at_once() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(SinkError, match="refused"):
        Consumer(url)
    with pytest.raises(SinkError, match="refused"):
        next(read(url, follow=True))
