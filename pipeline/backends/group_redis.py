"""A consumer group in Redis: what its members are given, and what they say of it. Policy is the kit's."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import redis
import structlog

from pipeline.backends.read_redis import PAGE, Entry
from pipeline.backends.redis_connect import RedisSettings, mapped, open_client
from pipeline.outbox import split_id

log = structlog.get_logger(__name__)

BLOCK_MS = 500
_ROWS = 1000


class Group:
    """One member's view of its group. Every method raises ``RedisDownError`` for whatever Redis does.

    ``no_stream`` says that a topic was looked for and is not there (yet)."""

    def __init__(self, settings: RedisSettings, group: str, member: str, topics: Sequence[str]) -> None:
        self.settings = settings
        self.no_stream = False
        self.client: Any = open_client(settings)
        self._group = group
        self._member = member
        self._topics = tuple(topics)
        self._claim_from: dict[str, str] = {}
        self.ensure()

    def read(self, topic: str, position: str, *, block: bool) -> list[Entry]:
        """A page of the member's own unacknowledged entries beyond ``position``; with ``>`` of new ones."""
        where = {self.settings.key(topic): position}
        with self._asking():
            answer = self.client.xreadgroup(
                self._group, self._member, where, count=PAGE, block=BLOCK_MS if block else None
            )
            return [(topic, str(redis_id), fields or {}) for _, page in answer for redis_id, fields in page]
        return []

    def new(self, *, block: bool) -> list[Entry]:
        """New entries of all topics."""
        # One key a call: in a cluster the keys live in different slots. Only the last one may wait.
        entries: list[Entry] = []
        for topic in self._topics:
            wait = block and not entries and topic == self._topics[-1]
            entries += self.read(topic, ">", block=wait)
        return entries

    def claim(self, idle_s: float) -> list[Entry]:
        """A page of what any member left unacknowledged for ``idle_s``; it is this member's now."""
        entries: list[Entry] = []
        for topic in self._topics:
            key, start = self.settings.key(topic), self._claim_from.get(topic, "0-0")
            with self._asking():
                answer = self.client.xautoclaim(
                    key, self._group, self._member, int(idle_s * 1000), start_id=start, count=PAGE
                )
                self._claim_from[topic] = str(answer[0])
                entries += [(topic, str(redis_id), fields or {}) for redis_id, fields in answer[1]]
                if gone := list(answer[2]) if len(answer) > 2 else []:
                    log.error("entries were deleted before they were acknowledged", topic=topic, ids=gone)
        return entries

    def attempts(self, entries: list[Entry]) -> dict[tuple[str, str], int]:
        """How often each of these entries, all of them this member's, was given to anybody."""
        found: dict[tuple[str, str], int] = {}
        for topic in {entry[0] for entry in entries}:
            ids = sorted((entry[1] for entry in entries if entry[0] == topic), key=split_id)
            with self._asking():
                for row in self._pending(topic, ids[0], ids[-1]):
                    found[topic, str(row["message_id"])] = int(row["times_delivered"])
        return found

    def renew(self, topic: str, ids: Sequence[str]) -> None:
        """Begin the idle time anew of those of ``ids`` that are still this member's."""
        if not ids:
            return
        low, high = min(ids, key=split_id), max(ids, key=split_id)
        with self._asking():
            rows = self._pending(topic, low, high)
            mine = sorted({str(row["message_id"]) for row in rows} & set(ids), key=split_id)
            if mine:  # JUSTID: the number of deliveries stays
                self.client.xclaim(self.settings.key(topic), self._group, self._member, 0, mine, justid=True)

    def ack(self, topic: str, redis_id: str) -> None:
        """Nobody in the group is to get it again."""
        with mapped(self.settings.shown):
            self.client.xack(self.settings.key(topic), self._group, redis_id)

    def ensure(self) -> None:
        """Make the group where there is a stream. The stream itself is the publisher's to make: after a
        FLUSHALL what was in it comes first."""
        for topic in self._topics:
            with mapped(self.settings.shown):
                try:
                    self.client.xgroup_create(self.settings.key(topic), self._group, id="0")
                except redis.ResponseError as exc:
                    if "requires the key to exist" in str(exc):
                        self.no_stream = True
                    elif "BUSYGROUP" not in str(exc):
                        raise

    def close(self) -> None:
        """Close the connection."""
        with mapped(self.settings.shown):
            self.client.close()

    def _pending(self, topic: str, low: str, high: str) -> list[dict[str, Any]]:
        """What is this member's, from one id to another."""
        rows: list[dict[str, Any]] = []
        while True:
            page = self.client.xpending_range(
                self.settings.key(topic),
                self._group,
                min=low,
                max=high,
                count=_ROWS,
                consumername=self._member,
            )
            rows += page
            if len(page) < _ROWS:
                return rows
            low = f"({page[-1]['message_id']}"

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """A question to the group; when the group has gone (FLUSHALL) it is made again, and nothing was
        found."""
        with mapped(self.settings.shown):
            try:
                yield
            except redis.ResponseError as exc:
                if "NOGROUP" not in str(exc):
                    raise
                self.ensure()
