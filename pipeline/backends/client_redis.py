"""The Redis side of the consumer kit; ``pipeline.client`` is its public face and gives it its heartbeat."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from pipeline.backends.dead_letters import bury
from pipeline.backends.group_redis import BLOCK_MS, Group
from pipeline.backends.read_redis import TOPICS, Entry, Repeats, event_of, order, wait_again
from pipeline.backends.redis_connect import RedisDownError, RedisSettings
from pipeline.events import Event

log = structlog.get_logger(__name__)

ACL = (
    "ACL SETUSER {user} on >PASSWORD resetkeys ~{prefix}:segments ~{prefix}:health resetchannels -@all +ping"
    " +xreadgroup +xack +xautoclaim +xclaim +xpending +xrange +xgroup|create +client|setname"
    ' clearselectors "(+xadd ~{prefix}:dlq)"'
)
"""The rights that a consumer needs, for ``redis-cli``: it can write dead letters, and no events."""

Place = tuple[str, str]
"""Topic and Redis id of an entry."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that a group's consumer was given. ``attempts`` counts how often anybody was given it."""

    event: Event
    topic: str
    redis_id: str
    attempts: int


class Member:
    """A member of a consumer group, without the thread that keeps what it holds its own (``beat``).

    Iterate and acknowledge in one thread; ``beat`` may come from another."""

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
        hold_s: float = 600.0,
        max_attempts: int = 5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.group = group
        self.name = name or socket.gethostname()
        self.topics = tuple(topics)
        self.max_attempts = max_attempts
        self.hold_s = hold_s
        self.claim_idle_s = claim_idle_s
        self._settings = RedisSettings(url, prefix, ca)
        self._monotonic = monotonic
        self._group = Group(self._settings, group, self.name, self.topics)
        self._done = Repeats()
        self._lock = threading.Lock()
        self._held: dict[Place, float | None] = {}  # since when it is worked on; None: fetched, not yet given
        self._given_out: dict[tuple[str, int], list[Place]] = {}  # by event, with the repeats met meanwhile
        self._unsaid: set[Place] = set()  # acknowledgements that Redis has not heard
        self._own: dict[str, str] = {}

    def deliveries(self, *, follow: bool = True, stop: threading.Event | None = None) -> Iterator[Delivery]:
        """Own unacknowledged events first, then those left behind by silent members, then new ones.

        Without ``follow`` it ends when nothing is left; with it, when ``stop`` is set, and it then outlives
        restarts of Redis. What was given ``max_attempts`` times in vain becomes a dead letter instead."""
        stop = stop or threading.Event()
        self._own = dict.fromkeys(self.topics, "0")
        tries = 0
        while not stop.is_set():
            try:
                self._say_again()
                self._group.no_stream = False
                found, counts = self._next(block=follow)
                entries = [entry for entry in found if self._wanted(entry, counts)]
                tries = 0
            except RedisDownError as error:
                if not follow:
                    raise
                self._own = dict.fromkeys(self.topics, "0")  # what was on its way is ours already
                wait_again(error, tries, stop)
                tries += 1
                continue
            yield from self._give(entries, counts)
            if not found and not follow:
                return
            if not found and self._group.no_stream:
                stop.wait(BLOCK_MS / 1000)

    def ack(self, delivery: Delivery) -> bool:
        """It is durably handled: nobody is to get it again. False when Redis is away: it is told later.

        (If this process ends before, the event is given again: handle repeats.)"""
        self._done.first(delivery.event)
        places = self._release(delivery)
        try:
            for place in places:
                self._ack(place)
        except RedisDownError:
            self._unsaid.update(places)
            return False
        return True

    def fail(self, delivery: Delivery, why: str) -> bool:
        """It could not be handled: it is given again, to any member, after ``claim_idle_s``. True when it was
        given ``max_attempts`` times: then it is a dead letter, with the reason.

        :raises SinkError: it was to become a dead letter, and Redis is away; it will be given again."""
        places = self._release(delivery)
        if delivery.attempts < self.max_attempts:
            log.warning("a consumer failed", event_id=delivery.event.id, attempts=delivery.attempts, why=why)
            return False
        fields = delivery.event.fields()
        self._bury((delivery.topic, delivery.redis_id, fields), delivery.attempts, why)
        for place in places[1:]:
            self._ack(place)
        return True

    def beat(self) -> None:
        """Tell Redis that what this member holds is being worked on, so that nobody claims it.

        What was held for ``hold_s`` is no longer spoken for: a consumer may hang. Redis being away is no
        error."""
        now = self._monotonic()
        with self._lock:
            held = [
                place for place, since in self._held.items() if since is None or now - since < self.hold_s
            ]
        with contextlib.suppress(RedisDownError):
            for topic in self.topics:
                self._group.renew(topic, [redis_id for of, redis_id in held if of == topic])

    def close(self) -> None:
        """Close the connection; what is unacknowledged stays this consumer's."""
        with contextlib.suppress(RedisDownError):
            self._say_again()
        with contextlib.suppress(RedisDownError):
            self._group.close()

    # ---- what there is ------------------------------------------------------------------------------------

    def _next(self, *, block: bool) -> tuple[list[Entry], dict[Place, int]]:
        """The next entries, and how often each was given if it was given before."""
        old = self._unfinished()
        if not old:
            claimed = self._group.claim(self.claim_idle_s)
            old = [entry for entry in claimed if not self._worked_on(entry[:2])]
        entries = old or self._group.new(block=block)
        with self._lock:
            for topic, redis_id, _ in entries:
                self._held.setdefault((topic, redis_id), None)
        return sorted(entries, key=order), self._group.attempts(old)

    def _unfinished(self) -> list[Entry]:
        """The next page of what this consumer was given before and never acknowledged."""
        for topic in list(self._own):
            if entries := self._group.read(topic, self._own[topic], block=False):
                self._own[topic] = entries[-1][1]
                return entries
            del self._own[topic]
        return []

    def _worked_on(self, place: Place) -> bool:
        return self._held.get(place) is not None

    # ---- what becomes of it -------------------------------------------------------------------------------

    def _wanted(self, entry: Entry, counts: dict[Place, int]) -> bool:
        """Whether an entry is to be given out. Repeats are acknowledged, hopeless ones buried."""
        topic, redis_id, fields = entry
        place = (topic, redis_id)
        if self._worked_on(place):
            return False
        event = event_of(redis_id, fields)
        attempts = counts.get(place, 1)
        if event is None and fields:
            self._bury(entry, attempts, "it is no event")
        elif event is None or self._done.seen(event):
            self._ack(place)
        elif self._done.key(event) in self._given_out:
            self._repeat(event, place)
        elif attempts > self.max_attempts:
            self._bury(entry, attempts, "its consumers ended without acknowledging it")
        else:
            return True
        return False

    def _give(self, entries: list[Entry], counts: dict[Place, int]) -> Iterator[Delivery]:
        for topic, redis_id, fields in entries:
            event, place = event_of(redis_id, fields), (topic, redis_id)
            if event is None:
                continue
            key = self._done.key(event)
            if self._done.seen(event) or key in self._given_out:  # since the page was read, or within it
                self._repeat(event, place)
                continue
            self._given_out[key] = [place]
            with self._lock:
                self._held[place] = self._monotonic()
            yield Delivery(event, topic, redis_id, counts.get(place, 1))

    def _repeat(self, event: Event, place: Place) -> None:
        """Acknowledged soon, or together with the one that is being worked on."""
        if (twins := self._given_out.get(self._done.key(event))) is None:
            self._unsaid.add(place)
            return
        twins.append(place)
        with self._lock:
            self._held[place] = self._monotonic()

    def _release(self, delivery: Delivery) -> list[Place]:
        """It is in hand no longer; its own place comes first, then those of its repeats."""
        places = self._given_out.pop(self._done.key(delivery.event), [])
        own = (delivery.topic, delivery.redis_id)
        with self._lock:
            for place in [own, *places]:
                self._held.pop(place, None)
        return [own, *(place for place in places if place != own)]

    def _bury(self, entry: Entry, attempts: int, why: str) -> None:
        """Make an entry a dead letter. It is written first: after a crash between the two there are two."""
        log.error("an event became a dead letter", redis_id=entry[1], attempts=attempts, why=why)
        bury(self._group.client, self._settings, entry, (self.group, self.name), attempts, why)
        self._ack(entry[:2])

    def _ack(self, place: Place) -> None:
        self._group.ack(*place)
        with self._lock:
            self._held.pop(place, None)

    def _say_again(self) -> None:
        for place in list(self._unsaid):
            self._ack(place)
            self._unsaid.discard(place)
