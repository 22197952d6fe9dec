"""The consumer kit: reads framewarden's events from Redis, safely and each once.

    with Consumer("redis://127.0.0.1:6379/0", group="review", name="desk-1") as consumer:
        for delivery in consumer.deliveries():
            store(delivery.event)               # upsert by (segment_id, rev); the highest rev is the truth
            consumer.ack(delivery)              # only when it is durably yours

A consumer in a group first gets again what it was given and never acknowledged, then what consumers that
fell silent left behind, then what is new. ``read`` only looks, and acknowledges nothing. Redis may hold an
event twice after a lost reply: both drop repeats by (``segment_id``, ``rev``), other events by their id,
over the last 100,000. ``docs/consumers.md`` tells the rest.
"""

import threading
from collections.abc import Sequence
from typing import Self, TypedDict, Unpack

from pipeline.backends.client_redis import ACL, Delivery, Member
from pipeline.backends.read_redis import read
from pipeline.events import Event
from pipeline.service.crew import Crew

__all__ = ["ACL", "Consumer", "Delivery", "Event", "Options", "read"]

_SHORTEST_BEAT_S = 0.05
_LONGEST_BEAT_S = 20.0


class Options(TypedDict, total=False):
    """What a consumer may be told: the group's and its own name, the keys' prefix, a file of authorities, the
    topics (``segments``, ``health``), and the limits of claiming, holding and trying."""

    group: str
    name: str | None
    prefix: str
    ca: str | None
    topics: Sequence[str]
    claim_idle_s: float
    hold_s: float
    max_attempts: int


class Consumer(Member):
    """A member of a consumer group. Each event goes to one member of each group.

    ``name`` tells members apart and must be the same after a restart for the consumer to get its own
    unfinished events back at once (default: the host's name; give each of several on one host a name of its
    own). What a member leaves unacknowledged is given to another ``claim_idle_s`` after its last sign of
    life: a thread gives one for all that it holds, so that work may take long, but for no event longer than
    ``hold_s``. An event that was given ``max_attempts`` times in vain goes to ``<prefix>:dlq``.

    Use it from one thread. :raises ConfigError: the URL cannot be understood.
    :raises SinkError: Redis cannot be reached."""

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        super().__init__(url, **options)
        self._ended = threading.Event()
        self._beating = Crew(self._ended)
        self._beating.start(self._keep_beating, name=f"heartbeat {self.name}")

    def close(self) -> None:
        """Close the connection; what is unacknowledged stays this consumer's."""
        self._ended.set()
        self._beating.join(timeout_s=10)
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_beating(self) -> None:
        pause = min(_LONGEST_BEAT_S, max(_SHORTEST_BEAT_S, self.claim_idle_s / 3))
        while not self._ended.wait(pause):
            self.beat()
