"""Looking at the events in Redis without acknowledging any; and what that shares with the consumer kit."""

import contextlib
import heapq
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import structlog

from pipeline.backends.redis_connect import RedisDownError, RedisSettings, mapped, open_client
from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.outbox import split_id

log = structlog.get_logger(__name__)

TOPICS = ("segments", "health")
REMEMBERED = 100_000
PAGE = 100
_POLL_S = 0.2
_DELAYS_S = (0.25, 0.5, 1.0, 2.0, 5.0)

Entry = tuple[str, str, dict[str, str]]
"""Topic, Redis id, fields."""


class Repeats:
    """Remembers which events were seen, the latest ``REMEMBERED`` of them."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()

    @staticmethod
    def key(event: Event) -> tuple[str, int]:
        """What makes an event the same as another."""
        return event.segment_id or event.id, event.rev or 0

    def seen(self, event: Event) -> bool:
        """Whether this event was seen before."""
        return self.key(event) in self._seen

    def first(self, event: Event) -> bool:
        """Whether this event was not seen before; now it is."""
        key = self.key(event)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


def read(
    url: str,
    *,
    from_id: str | None = None,
    follow: bool = False,
    prefix: str = "framewarden",
    ca: str | None = None,
    topics: Sequence[str] = TOPICS,
    stop: threading.Event | None = None,
) -> Iterator[tuple[str, Event]]:
    """Look at events in the order in which Redis got them, as (Redis id, event); nothing is acknowledged.

    From ``from_id`` on (included; a Redis id or a Unix time in ms), by default from the first. Ends when
    nothing is left, or with ``follow`` when ``stop`` is set.

    :raises ConfigError: the URL or the id cannot be understood.
    :raises SinkError: Redis cannot be reached; with ``follow`` only if it could not be reached at first."""
    settings = RedisSettings(url, prefix, ca)
    stop = stop or threading.Event()
    client = open_client(settings)
    low = _start(from_id)
    positions = dict.fromkeys(topics, low)
    repeats = Repeats()
    with mapped(settings.shown):
        client.ping()
    try:
        tries = 0
        while not stop.is_set():
            seen = dict(positions)
            try:
                pages = [_range(client, settings, topic, positions[topic]) for topic in topics]
                for topic, redis_id, fields in heapq.merge(*pages, key=order):
                    positions[topic] = "(" + redis_id
                    event = event_of(redis_id, fields)
                    if event is not None and repeats.first(event):
                        yield redis_id, event
                tries = 0
            except RedisDownError as error:
                if not follow:
                    raise
                wait_again(error, tries, stop)
                tries += 1
                continue
            if not follow:
                return
            if seen == positions:
                stop.wait(_POLL_S)
    finally:
        with contextlib.suppress(RedisDownError), mapped(settings.shown):
            client.close()


def order(entry: Entry) -> tuple[int, int]:
    """Redis's order of entries."""
    return split_id(entry[1])


def _range(client: Any, settings: RedisSettings, topic: str, low: str) -> Iterator[Entry]:
    while page := _page(client, settings, topic, low):
        yield from page
        low = "(" + page[-1][1]


def _page(client: Any, settings: RedisSettings, topic: str, low: str) -> list[Entry]:
    with mapped(settings.shown):
        found = client.xrange(settings.key(topic), low, "+", count=PAGE)
    return [(topic, str(redis_id), fields or {}) for redis_id, fields in found]


def _start(from_id: str | None) -> str:
    if from_id is None:
        return "-"
    ms, _, n = from_id.partition("-")
    if not (ms.isdigit() and (n.isdigit() or not n)):
        raise ConfigError(f"{from_id!r} is not a Redis id: a Unix time in ms, or MS-NUMBER as Redis gives it")
    return from_id


def event_of(redis_id: str, fields: dict[str, str]) -> Event | None:
    """The event in an entry; None, with a warning, when there is none."""
    try:
        return Event.from_json(fields.get("event", ""))
    except ValueError as exc:
        log.warning("an entry in Redis is no event, or was deleted unread", redis_id=redis_id, why=str(exc))
        return None


def wait_again(error: RedisDownError, tries: int, stop: threading.Event) -> None:
    """Wait a little longer with each try, until ``stop``."""
    if tries == 0:
        log.warning("redis is down; trying again", error=str(error))
    stop.wait(_DELAYS_S[min(tries, len(_DELAYS_S) - 1)])
