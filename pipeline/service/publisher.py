"""Carries events from the outbox to Redis: at least once, in order, for as long as it takes.

One thread runs it, in the supervisor. It never gives up and stops no other thread: while Redis is away the
outbox holds everything. What Redis has taken stays in the outbox until every consumer group has
acknowledged it, and it was still there then: what was lost unread looks as if it were acknowledged as soon as
something later is. After each connect, and every few seconds, the publisher compares what it wrote with what
the server holds, and publishes again, in the old order, what a crash, a failover or a FLUSHALL has taken
away.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import structlog

from pipeline.errors import ConfigError, FramewardenError, SinkError
from pipeline.events import Event
from pipeline.outbox import Outbox, OutboxError, Row, split_id

log = structlog.get_logger(__name__)

TOPICS = ("segments", "health")
POLL_S = 0.1
CHECK_S = 5.0
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 5.0
BATCH = 200
_PAGE = 1000


class Topic(Protocol):
    """A Redis stream as the server holds it."""

    @property
    def run_id(self) -> str: ...
    @property
    def added(self) -> int | None: ...
    @property
    def last_id(self) -> str: ...
    @property
    def length(self) -> int: ...


class Sink(Protocol):
    """What the publisher needs of ``RedisSink``; any method may raise ``SinkError``."""

    url: str

    def connect(self) -> list[str]: ...
    def publish(self, topic: str, events: Sequence[Event]) -> list[str]: ...
    def ensure_groups(self) -> None: ...
    def topic(self, topic: str) -> Topic | None: ...
    def entries(self, topic: str, first: str, last: str) -> dict[str, str]: ...
    def acknowledged(self, topic: str) -> str | None: ...
    def taken(self, topic: str, ids: Sequence[str]) -> set[str]: ...
    def trim(
        self, topic: str, *, older_than_s: float, max_bytes: int | None = None, until: str | None = None
    ) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PublisherState:
    """How delivery goes. ``error`` is one line with its cure; ``republished`` counts what Redis had lost."""

    state: Literal["starting", "connected", "down"] = "starting"
    url: str = ""
    error: str | None = None
    warnings: tuple[str, ...] = ()
    connects: int = 0
    republished: int = 0


class Publisher:
    """Publishes the outbox until ``stop`` is set, and then, if connected, what is left in it.

    ``open_sink`` makes an unconnected sink, anew for each connection. ``state`` may be read from any
    thread."""

    def __init__(
        self,
        outbox: Outbox,
        open_sink: Callable[[], Sink],
        *,
        stop: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.outbox = outbox
        self.state = PublisherState()
        self._open_sink = open_sink
        self._stop = stop
        self._monotonic = monotonic
        self._wall = wall
        self._rng = rng or random.Random()
        self._known: dict[str, Topic | None] = {}
        self._added: dict[str, int] = {}  # entries that the server must have counted by now
        self._unrecorded: list[tuple[int, str]] = []
        self._moved = threading.Condition()

    def run(self) -> None:
        """Publish until ``stop``.

        :raises ConfigError: the sink's address cannot be understood, or it refuses the first server that it
            finds. (A server that is unsafe later, after a failover, gets nothing and is asked again.)"""
        failures = 0
        while True:
            try:
                self._serve()
                return
            except (SinkError, OutboxError, ConfigError) as error:
                if isinstance(error, ConfigError) and self.state.connects == 0:
                    raise
                failures = 0 if self.state.state == "connected" else failures + 1
                self._down(error)
            delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures, 10))
            if self._stop.wait(delay * self._rng.uniform(0.5, 1.0)):
                return

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was accepted is delivered (True), or Redis is down or time is over (False)."""
        deadline = self._monotonic() + timeout_s
        with self._moved:
            while self.outbox.counts().pending > 0:
                left = deadline - self._monotonic()
                if left <= 0 or self.state.state == "down":
                    return False
                self._moved.wait(min(left, POLL_S))
        return True

    def _serve(self) -> None:
        """One connection, from opening until ``stop``."""
        sink = self._open_sink()
        try:
            self._up(sink.url, tuple(sink.connect()))
            self._keep_house(sink)
            checked = self._monotonic()
            while True:
                stopping, helped = self._stop.is_set(), False
                try:
                    while self._deliver(sink):
                        pass
                except SinkError as error:
                    helped = self._helped(sink, error)
                    if not helped:
                        raise
                if stopping and not helped:
                    return
                if helped or self._monotonic() - checked >= CHECK_S:
                    self._keep_house(sink)
                    checked = self._monotonic()
                self._stop.wait(POLL_S)
        finally:
            with contextlib.suppress(SinkError):
                sink.close()

    def _deliver(self, sink: Sink) -> bool:
        """Publish the oldest pending events; False when there were none."""
        self._record()
        rows = self.outbox.pending(BATCH)
        for topic in TOPICS:
            if mine := [row for row in rows if row.event.topic == topic]:
                ids = sink.publish(topic, [row.event for row in mine])
                self._unrecorded = list(zip((row.seq for row in mine), ids, strict=True))
                self._added[topic] = self._added.get(topic, 0) + len(ids)
                self._record()
        with self._moved:
            self._moved.notify_all()
        return bool(rows)

    def _helped(self, sink: Sink, error: SinkError) -> bool:
        """Whether what the sink refused may go better now: it was full and some of what every group had
        acknowledged has gone, or it was emptied and is to be compared."""
        if error.reason == "oom":
            return self._keep_house(sink, older_than_s=0.0) > 0
        return error.reason == "emptied"

    def _record(self) -> None:
        """Note what Redis has taken. If the disk refuses, it is noted first next time, not published
        again."""
        if self._unrecorded:
            self.outbox.delivered(self._unrecorded, now=self._wall())
            self._unrecorded = []

    def _keep_house(self, sink: Sink, older_than_s: float | None = None) -> int:
        """Forget what was acknowledged, find what was lost, and let Redis go of what is old; how much that
        was."""
        trimmed = 0
        for topic in TOPICS:
            there = sink.topic(topic)
            anew = self._anew(topic, there)
            bound = sink.acknowledged(topic)
            count = 0 if bound is None else self._forget(sink, topic, bound, anew)
            if not self._whole(sink, topic, there, anew):
                count += self._find(sink, topic, anew)
            if bound is None or count:
                sink.ensure_groups()
            if count:
                self.state = replace(self.state, republished=self.state.republished + count)
                log.warning("redis lost entries; publishing them again", topic=topic, entries=count)
            self._known[topic] = there  # last: what was not compared to its end is compared again
            self._added[topic] = (there.added if there else None) or 0
            if bound is not None:  # not beyond it: what is still held must be there when it is forgotten
                age_s = self.outbox.keep_s if older_than_s is None else older_than_s
                trimmed += sink.trim(topic, older_than_s=age_s, max_bytes=self.outbox.max_bytes, until=bound)
        self.outbox.prune(self._wall())
        return trimmed

    def _anew(self, topic: str, there: Topic | None) -> bool:
        """Whether the server is another one, or one that was restarted, or has made the stream again: then
        what it says of acknowledgements and deletions may not be of what we wrote."""
        known = self._known.get(topic)
        if known is None:
            return False
        if there is None or there.run_id != known.run_id:
            return True
        return there.added is not None and there.added < self._added.get(topic, 0)

    def _forget(self, sink: Sink, topic: str, bound: str, anew: bool) -> int:
        """Forget what is there up to ``bound``, which every group has acknowledged. How much was not there
        and is pending again."""
        count, after = 0, "0-0"
        while rows := self.outbox.held(topic, _PAGE, after, bound):
            after = rows[-1].redis_id or after
            absent = _absent(sink, topic, rows)
            count += self._again(sink, topic, absent, anew)
            gone = {row.seq for row in absent}
            self.outbox.remove(row.seq for row in rows if row.seq not in gone)
        return count

    def _whole(self, sink: Sink, topic: str, there: Topic | None, anew: bool) -> bool:
        """Whether the server holds all that we wrote.

        A restart or a failover takes the newest entries, FLUSHALL and trimming the oldest: with both ends
        of what we wrote in place and nothing else strange, all of it is there."""
        count, ends = self.outbox.held_ends(topic)
        return not ends or (
            there is not None
            and not anew
            and split_id(there.last_id) >= split_id(ends[-1].redis_id or "")
            and there.length >= count
            and not any(_absent(sink, topic, [row]) for row in ends)
        )

    def _find(self, sink: Sink, topic: str, anew: bool) -> int:
        """Make what the server no longer holds pending again, page by page: an outbox may hold a day's
        events. How much it is."""
        count, after = 0, "0-0"
        while rows := self.outbox.held(topic, _PAGE, after):
            after = rows[-1].redis_id or after
            count += self._again(sink, topic, _absent(sink, topic, rows), anew)
        return count

    def _again(self, sink: Sink, topic: str, absent: list[Row], anew: bool) -> int:
        """Make these pending again, but for those that consumers have deleted after acknowledging them. How
        many.

        After a restart or failover the server's books may be wrong, too: then a repeat, which consumers drop,
        is better than a loss."""
        if not absent:  # as a rule; each write waits for its turn with the workers
            return 0
        lost = {row.redis_id or "": row.seq for row in absent}
        taken = sink.taken(topic, list(lost)) if not anew else set()
        self.outbox.remove(lost[redis_id] for redis_id in taken)
        again = [seq for redis_id, seq in lost.items() if redis_id not in taken]
        self.outbox.undelivered(again)
        return len(again)

    def _up(self, url: str, warnings: tuple[str, ...]) -> None:
        for text in warnings:
            if text not in self.state.warnings:
                log.warning("redis is not safe", redis=url, why=text)
        log.info("redis connected", redis=url)
        self.state = replace(
            self.state,
            state="connected",
            url=url,
            error=None,
            warnings=warnings,
            connects=self.state.connects + 1,
        )

    def _down(self, error: FramewardenError) -> None:
        if self.state.error != str(error):
            what = "the outbox cannot be used" if isinstance(error, OutboxError) else "redis is down"
            log.warning(f"{what}; events stay in the outbox", error=str(error))
        self.state = replace(self.state, state="down", error=str(error))
        with self._moved:
            self._moved.notify_all()


def _absent(sink: Sink, topic: str, rows: list[Row]) -> list[Row]:
    """Those of the rows, in order of their Redis ids, that the server does not hold."""
    there = sink.entries(topic, rows[0].redis_id or "-", rows[-1].redis_id or "+")
    return [row for row in rows if there.get(row.redis_id or "") != row.event.id]
