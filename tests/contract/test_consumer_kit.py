"""Heartbeat, retries and dead letters of the consumer kit, against a real server."""

import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pipeline.backends.queue_redis import Queue
from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.sink_redis import RedisSink
from pipeline.client import ACL, Consumer, Delivery, Event
from pipeline.errors import ConfigError, SinkError
from tests.fixtures.events import segment
from tests.fixtures.history import History
from tests.fixtures.redis import RedisServer, until

KEY = "framewarden:segments"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def sink(redis_server: RedisServer) -> Iterator[RedisSink]:
    sink = RedisSink(RedisSettings(redis_server.url))
    sink.connect()
    yield sink
    sink.close()


@pytest.fixture
def queue(redis_server: RedisServer) -> Iterator[Queue]:
    queue = Queue(RedisSettings(redis_server.url))
    yield queue
    queue.close()


def everything(consumer: Consumer) -> list[Delivery]:
    return list(consumer.deliveries(follow=False))


def test_a_consumer_that_works_long_is_not_robbed_not_even_of_what_it_only_fetched(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    """It holds three, works on the first, and lives two and a half times as long as others wait before they
    claim. Its beats may come a second late: a machine has other things to do."""
    events = [segment() for _ in range(3)]
    sink.publish("segments", events)
    with (
        Consumer(redis_server.url, name="slow", claim_idle_s=2) as slow,
        Consumer(redis_server.url, name="eager", claim_idle_s=2) as eager,
        redis_server.client() as client,
    ):
        working = slow.deliveries(follow=False)
        first = next(working)
        begun = client.time()
        while client.time()[0] + client.time()[1] / 1e6 < begun[0] + begun[1] / 1e6 + 5:
            assert everything(eager) == []
        assert [delivery.attempts for delivery in [first, *working]] == [1, 1, 1]
        assert {row["times_delivered"] for row in client.xpending_range(KEY, "review", "-", "+", 9)} == {1}


def test_without_a_sign_of_life_it_is_robbed(sink: RedisSink, redis_server: RedisServer) -> None:
    """What keeps the one above its own is the heartbeat: one that holds nothing longer than 0 s has none."""
    sink.publish("segments", [event := segment()])
    with (
        Consumer(redis_server.url, name="hangs", claim_idle_s=0.3, hold_s=0) as hangs,
        Consumer(redis_server.url, name="heir", claim_idle_s=0.3) as heir,
    ):
        held = next(hangs.deliveries(follow=False))
        found: list[Delivery] = []

        def robbed() -> bool:
            found.extend(everything(heir))
            return bool(found)

        until(robbed)
        assert [(found[0].event.id, found[0].attempts)] == [(event.id, 2)]
        hangs.beat()  # late, and no longer its own: it does not take it back
        with redis_server.client() as client:
            assert client.xpending_range(KEY, "review", "-", "+", 9)[0]["consumer"] == "heir"
        assert heir.ack(found[0])
        assert hangs.ack(held)  # harmless


def test_what_failed_comes_again_and_at_last_becomes_a_dead_letter(
    sink: RedisSink, redis_server: RedisServer, queue: Queue
) -> None:
    sink.publish("segments", [bad := segment(), good := segment()])
    with Consumer(redis_server.url, name="desk", claim_idle_s=0, max_attempts=3) as consumer:
        tried = []
        for delivery in consumer.deliveries():
            if delivery.event.id == good.id:
                consumer.ack(delivery)
                continue
            tried.append(delivery.attempts)
            if consumer.fail(delivery, "the database said no"):
                break
        assert tried == [1, 2, 3]
        assert everything(consumer) == []
    letter = queue.dead()[0]
    assert (letter.topic, letter.group, letter.consumer, letter.attempts) == ("segments", "review", "desk", 3)
    assert letter.why == "the database said no"
    assert letter.fields == bad.fields()
    with redis_server.client() as client:
        assert client.xpending(KEY, "review")["pending"] == 0
        assert client.xlen(KEY) == 2  # other groups may still handle it


def test_what_kills_every_consumer_becomes_a_dead_letter_too(
    sink: RedisSink, redis_server: RedisServer, queue: Queue
) -> None:
    sink.publish("segments", [poison := segment()])
    given = []
    for number in range(5):
        with Consumer(redis_server.url, name=f"c{number}", claim_idle_s=0, max_attempts=3) as consumer:
            given += [delivery.attempts for delivery in islice(consumer.deliveries(follow=False), 1)]
    assert given == [1, 2, 3]
    assert [letter.fields["id"] for letter in queue.dead()] == [poison.id]
    assert "without acknowledging" in queue.dead()[0].why


def test_what_is_no_event_is_a_dead_letter_at_once_and_cannot_be_requeued(
    redis_server: RedisServer, sink: RedisSink, queue: Queue
) -> None:
    with redis_server.client() as client:
        client.xadd(KEY, {"event": "{", "id": "x"})
    with Consumer(redis_server.url) as consumer:
        assert everything(consumer) == []
    (letter,) = queue.dead()
    assert letter.fields == {"event": "{", "id": "x"}
    with pytest.raises(ConfigError, match=rf"is no event.*dlq drop {letter.dlq_id}"):
        queue.requeue(letter)
    queue.drop(letter)
    assert queue.dead_count() == 0


def test_a_requeued_dead_letter_is_given_again_and_the_other_groups_drop_it_as_a_repeat(
    sink: RedisSink, redis_server: RedisServer, queue: Queue
) -> None:
    sink.publish("segments", [event := segment()])
    with (
        Consumer(redis_server.url, group="archive") as archive,
        Consumer(redis_server.url, max_attempts=1) as desk,
    ):
        for delivery in archive.deliveries(follow=False):
            archive.ack(delivery)
        assert [desk.fail(delivery, "no") for delivery in desk.deliveries(follow=False)] == [True]
        queue.requeue(queue.dead()[0])
        assert queue.dead() == []
        assert everything(archive) == []
        again = everything(desk)
        assert [delivery.event.id for delivery in again] == [event.id]
        assert desk.ack(again[0])
    assert sink.acknowledged("segments") == again[0].redis_id


def test_an_acknowledgement_that_redis_could_not_hear_is_told_later(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    sink.publish("segments", [segment()])
    with Consumer(redis_server.url) as consumer, redis_server.client() as client:
        (delivery,) = everything(consumer)
        redis_server.kill()
        assert consumer.ack(delivery) is False
        redis_server.start()
        assert client.xpending(KEY, "review")["pending"] == 1
        assert everything(consumer) == []
        assert client.xpending(KEY, "review")["pending"] == 0


def test_repeats_of_what_is_being_worked_on_are_acknowledged_with_it(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    event = segment()
    ids = sink.publish("segments", [event, event, event])
    with Consumer(redis_server.url) as consumer:
        held = everything(consumer)
        assert [delivery.redis_id for delivery in held] == [ids[0]]
        assert sink.acknowledged("segments") not in ids
        assert consumer.ack(held[0])
    assert sink.acknowledged("segments") == ids[2]


def test_a_repeat_of_what_failed_does_not_count_as_handled(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    event = segment()
    sink.publish("segments", [event, event])
    with Consumer(redis_server.url, claim_idle_s=0) as consumer:
        first = next(consumer.deliveries(follow=False))
        consumer.fail(first, "not yet")
        again = everything(consumer)
        assert [delivery.event.id for delivery in again] == [event.id]


def test_a_consumer_that_dies_at_random_loses_and_repeats_nothing_that_it_wrote_down(
    sink: RedisSink, redis_server: RedisServer
) -> None:
    """It ends after each third delivery, now and then before it acknowledges the last."""
    history = History(seed=5)
    sink.publish("segments", [e for e in history.take(120) if e.topic == "segments"])
    history.accepted = [event for event in history.accepted if event.topic == "segments"]
    book: dict[str, Event] = {}
    for life in range(200):
        with Consumer(redis_server.url, name="desk", max_attempts=99) as consumer:
            batch = list(islice(consumer.deliveries(follow=False), 3))
            for delivery in batch:
                book.setdefault(delivery.event.id, delivery.event)
                if life % 3 == 0 and delivery is batch[-1]:
                    break  # it is written down, and then the consumer dies
                consumer.ack(delivery)
        if not batch:
            break
    assert history.check(book.values()).good


def test_the_documented_rights_are_enough_for_a_consumer_and_do_not_let_it_forge_events(
    sink: RedisSink, redis_server: RedisServer, queue: Queue
) -> None:
    command = ACL.format(user="reviewer", prefix="framewarden").replace("PASSWORD", "secret")
    url = redis_server.url.replace("//", "//reviewer:secret@")
    with redis_server.client() as client:
        client.execute_command(*shlex.split(command))
    sink.publish("segments", [segment(), segment()])
    with Consumer(url, group="second", claim_idle_s=0.1, max_attempts=1) as consumer:
        one, two = everything(consumer)
        consumer.beat()
        assert consumer.ack(one)
        assert consumer.fail(two, "no")
    assert queue.dead_count() == 1
    forger = RedisSink(RedisSettings(url))
    with pytest.raises(SinkError, match=r"permission"):
        forger.connect()
    forger.close()


def test_the_documented_rights_are_the_ones_that_are_printed() -> None:
    from pipeline.backends import client_redis, sink_redis

    said = (DOCS / "redis.md").read_text()
    for user, rights in (
        ("framewarden", sink_redis.ACL),
        ("reviewer", client_redis.ACL),
        ("operator", sink_redis.OPERATOR_ACL),
    ):
        assert rights.format(user=user, prefix="framewarden") in said.splitlines()


def test_the_example_in_the_documentation_runs_and_loses_nothing(
    sink: RedisSink, redis_server: RedisServer, tmp_path: Path
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "consumers.md").read_text(), re.DOTALL)
    assert len(program.strip().splitlines()) <= 25
    opened = segment()
    events = [
        opened,
        segment(opened.segment_id, 2, "update"),
        segment(opened.segment_id, 3, "closed"),
        segment(),
    ]
    sink.publish("segments", [*events, events[0]])
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", program, redis_server.url, str(tmp_path / "book.sqlite")],
            check=True,
            timeout=60,
        )
    book = sqlite3.connect(tmp_path / "book.sqlite")
    rows = book.execute("SELECT segment, rev, state FROM item ORDER BY segment").fetchall()
    book.close()
    assert rows == sorted([(opened.segment_id, 3, "closed"), (events[3].segment_id, 1, "open")])
    with redis_server.client() as client:
        assert client.xpending(KEY, "review")["pending"] == 0
