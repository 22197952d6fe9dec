"""The queue in Redis as an operator sees it: how much waits for whom, and what died."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from pipeline.backends import dead_letters
from pipeline.backends.dead_letters import DeadLetter
from pipeline.backends.read_redis import TOPICS
from pipeline.backends.redis_connect import RedisSettings, mapped, open_client
from pipeline.backends.sink_redis import RedisSink
from pipeline.outbox import split_id

COUNTED = 10_000
"""Entries that are counted one by one; beyond, it is "more than"."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """``unread`` entries were given to nobody yet (``COUNTED`` means: or more); ``pending`` ones were given
    and not acknowledged, the oldest of them ``oldest_s`` seconds ago."""

    name: str
    members: int
    unread: int
    pending: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class TopicState:
    """A stream. ``oldest_s`` is the age of its first entry; ``bytes`` None: it does not say."""

    key: str
    entries: int
    bytes: int | None
    oldest_s: float | None
    groups: tuple[GroupState, ...]


class Queue:
    """The queue of one prefix. Every method raises ``RedisDownError`` for whatever Redis or the network does.

    :raises ConfigError: the URL cannot be understood."""

    def __init__(self, settings: RedisSettings, *, wall: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self._wall = wall
        self._client: Any = open_client(settings)

    def topics(self) -> list[TopicState]:
        """The streams that there are."""
        return [state for topic in TOPICS if (state := self._topic(self.settings.key(topic))) is not None]

    def trim(self, *, older_than_s: float, max_bytes: int | None) -> dict[str, int]:
        """Delete what every group has acknowledged and is this old or too much; how many of each topic."""
        sink = RedisSink(self.settings, wall=self._wall)
        try:
            sink.connect()
            return {
                self.settings.key(topic): sink.trim(topic, older_than_s=older_than_s, max_bytes=max_bytes)
                for topic in TOPICS
            }
        finally:
            sink.close()

    def dead(self, limit: int | None = None) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        return dead_letters.dead_letters(self._client, self.settings, limit=limit)

    def dead_count(self) -> int:
        """How many there are."""
        with mapped(self.settings.shown):
            return int(self._client.xlen(self.settings.key(dead_letters.DLQ)))

    def letter(self, dlq_id: str) -> DeadLetter:
        """One dead letter. :raises ConfigError: there is none of that id."""
        return dead_letters.dead_letter(self._client, self.settings, dlq_id)

    def requeue(self, letter: DeadLetter) -> str:
        """Give it to all groups again; its new Redis id. :raises ConfigError: it is no event."""
        return dead_letters.requeue(self._client, self.settings, letter)

    def drop(self, letter: DeadLetter) -> None:
        """Delete it."""
        dead_letters.drop(self._client, self.settings, letter)

    def close(self) -> None:
        """Close the connection."""
        with mapped(self.settings.shown):
            self._client.close()

    def _topic(self, key: str) -> TopicState | None:
        with mapped(self.settings.shown):
            try:
                info = self._client.xinfo_stream(key)
            except redis.ResponseError as exc:
                if "no such key" in str(exc):
                    return None
                raise
            groups = tuple(self._group(key, found) for found in self._client.xinfo_groups(key))
            first = info["first-entry"]
            age = None if first is None else self._age(str(first[0]))
            return TopicState(key, int(info["length"]), self._bytes(key), age, groups)

    def _group(self, key: str, found: dict[str, Any]) -> GroupState:
        # Not XINFO's lag: after a trim it counts entries that are gone.
        unread = self._client.xrange(key, f"({found['last-delivered-id']}", "+", count=COUNTED)
        waiting = self._client.xpending(key, found["name"])
        oldest = self._age(str(waiting["min"])) if waiting["pending"] else None
        return GroupState(
            str(found["name"]), int(found["consumers"]), len(unread), int(found["pending"]), oldest
        )

    def _age(self, redis_id: str) -> float:
        return max(0.0, self._wall() - split_id(redis_id)[0] / 1000)

    def _bytes(self, key: str) -> int | None:
        try:
            return int(self._client.memory_usage(key) or 0)
        except redis.exceptions.NoPermissionError:
            return None
