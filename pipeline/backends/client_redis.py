"""The Redis side of the consumer kit; ``pipeline.client`` is its public face."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from pipeline.backends.read_redis import PAGE, TOPICS, Entry, Repeats, event_of, order, wait_again
from pipeline.backends.redis_connect import RedisDownError, RedisSettings, mapped, open_client
from pipeline.events import Event

BLOCK_MS = 500


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that a group's consumer was given. ``attempts`` counts how often anybody was given it."""

    event: Event
    topic: str
    redis_id: str
    attempts: int


class Consumer:
    """A member of a consumer group. Each event goes to one member of each group.

    ``name`` tells members apart and must be the same after a restart for the consumer to get its own
    unfinished events back at once (default: the host's name; give each of several on one host a name of its
    own). What any member leaves unacknowledged for ``claim_idle_s`` is given to another. Not thread-safe.

    :raises ConfigError: the URL cannot be understood.
    :raises SinkError: Redis cannot be reached."""

    def __init__(
        self,
        url: str,
        *,
        group: str = "review",
        name: str | None = None,
        prefix: str = "framewarden",
        ca: str | None = None,
        topics: Sequence[str] = TOPICS,
        claim_idle_s: float = 60.0,
    ) -> None:
        self.group = group
        self.name = name or socket.gethostname()
        self.topics = tuple(topics)
        self._settings = RedisSettings(url, prefix, ca)
        self._claim_idle_ms = int(claim_idle_s * 1000)
        self._client: Any = open_client(self._settings)
        self._repeats = Repeats()
        self._in_hand: set[tuple[str, str]] = set()
        self._own: dict[str, str] = {}
        self._claim_from: dict[str, str] = {}
        self._ensure_group()

    def deliveries(self, *, follow: bool = True, stop: threading.Event | None = None) -> Iterator[Delivery]:
        """Own unacknowledged events first, then those left behind by silent members, then new ones.

        Without ``follow`` it ends when nothing is left; with it, when ``stop`` is set, and it then outlives
        restarts of Redis."""
        stop = stop or threading.Event()
        self._own = dict.fromkeys(self.topics, "0")
        tries = 0
        while not stop.is_set():
            try:
                old = self._unfinished() or self._claimed()
                entries = old or self._new(block=follow)
                tries = 0
            except RedisDownError as error:
                if not follow:
                    raise
                self._own = dict.fromkeys(self.topics, "0")  # what was on its way is ours already
                wait_again(error, tries, stop)
                tries += 1
                continue
            yield from self._given(entries, fresh=not old)
            if not entries and not follow:
                return

    def ack(self, delivery: Delivery) -> None:
        """It is durably handled: nobody is to get it again.

        :raises SinkError: Redis did not hear of it; it will be given again."""
        self._ack(delivery.topic, delivery.redis_id)

    def close(self) -> None:
        """Close the connection; what is unacknowledged stays this consumer's."""
        with contextlib.suppress(RedisDownError), mapped(self._settings.shown):
            self._client.close()

    def __enter__(self) -> "Consumer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unfinished(self) -> list[Entry]:
        """The next page of what this consumer was given before and never acknowledged."""
        for topic in list(self._own):
            if entries := self._read_group(topic, self._own[topic], block=False):
                self._own[topic] = entries[-1][1]
                return entries
            del self._own[topic]
        return []

    def _claimed(self) -> list[Entry]:
        """What members that fell silent left behind, now this consumer's."""
        entries: list[Entry] = []
        for topic in self.topics:
            key, start = self._settings.key(topic), self._claim_from.get(topic, "0-0")
            with self._asking():
                answer = self._client.xautoclaim(
                    key, self.group, self.name, self._claim_idle_ms, start_id=start, count=PAGE
                )
                self._claim_from[topic] = str(answer[0])
                entries += [(topic, str(redis_id), fields or {}) for redis_id, fields in answer[1]]
        return [entry for entry in entries if entry[:2] not in self._in_hand]

    def _new(self, *, block: bool) -> list[Entry]:
        # One key a call: in a cluster the keys live in different slots. Only the last one may wait.
        entries: list[Entry] = []
        for topic in self.topics:
            wait = block and not entries and topic == self.topics[-1]
            entries += self._read_group(topic, ">", block=wait)
        return entries

    def _read_group(self, topic: str, position: str, *, block: bool) -> list[Entry]:
        where = {self._settings.key(topic): position}
        with self._asking():
            answer = self._client.xreadgroup(
                self.group, self.name, where, count=PAGE, block=BLOCK_MS if block else None
            )
            return [(topic, str(redis_id), fields or {}) for _, page in answer for redis_id, fields in page]
        return []

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """A question to the group; when the group has gone (FLUSHALL) it is made again, and nothing was
        found."""
        with mapped(self._settings.shown):
            try:
                yield
            except redis.ResponseError as exc:
                if "NOGROUP" not in str(exc):
                    raise
                self._ensure_group()

    def _given(self, entries: list[Entry], fresh: bool) -> Iterator[Delivery]:
        """The entries as deliveries; repeats and what is no event of ours are acknowledged unseen."""
        for topic, redis_id, fields in sorted(entries, key=order):
            if (topic, redis_id) in self._in_hand:
                continue
            event = event_of(redis_id, fields)
            if event is None or not self._repeats.first(event):
                self._ack(topic, redis_id)
                continue
            self._in_hand.add((topic, redis_id))
            yield Delivery(event, topic, redis_id, 1 if fresh else self._attempts(topic, redis_id))

    def _attempts(self, topic: str, redis_id: str) -> int:
        with mapped(self._settings.shown):
            found = self._client.xpending_range(
                self._settings.key(topic), self.group, min=redis_id, max=redis_id, count=1
            )
        return int(found[0]["times_delivered"]) if found else 1

    def _ack(self, topic: str, redis_id: str) -> None:
        with mapped(self._settings.shown):
            self._client.xack(self._settings.key(topic), self.group, redis_id)
        self._in_hand.discard((topic, redis_id))

    def _ensure_group(self) -> None:
        for topic in self.topics:
            with mapped(self._settings.shown):
                try:
                    self._client.xgroup_create(self._settings.key(topic), self.group, id="0", mkstream=True)
                except redis.ResponseError as exc:
                    if "BUSYGROUP" not in str(exc):
                        raise
