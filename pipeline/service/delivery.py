"""Redis for a run: the server that the config names or one of our own, and the thread that publishes to
it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from pipeline.backends import redis_embedded
from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.redis_embedded import EmbeddedRedis
from pipeline.backends.sink_redis import RedisSink
from pipeline.config import Config
from pipeline.outbox import Outbox
from pipeline.service.crew import Crew
from pipeline.service.publisher import Publisher


class Delivery:
    """The publisher's thread from start to end of a run."""

    def __init__(self, outbox: Outbox, settings: RedisSettings) -> None:
        self._stop = threading.Event()
        self.publisher = Publisher(outbox, lambda: RedisSink(settings), stop=self._stop)
        self._crew = Crew(self._stop)

    def __enter__(self) -> Self:
        self._crew.start(self.publisher.run, name="publisher")
        return self

    def check(self) -> None:
        """Raise what ended the publisher, if anything did: a Redis that the config refuses."""
        self._crew.check()

    def finish(self, timeout_s: float) -> bool:
        """Wait until all is delivered, Redis is down or the time is over; what is left stays in the
        outbox."""
        return self.publisher.drain(timeout_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._crew.join(timeout_s=10)


@contextmanager
def redis_for(config: Config, stop: threading.Event) -> Iterator[RedisSettings]:
    """Where to publish. Starts the embedded server when the config names none, and ends it at the end.

    :raises ConfigError: there is no embedded server for this machine. :raises SinkError: it did not start."""
    rules = config.redis
    embedded: EmbeddedRedis | None = None
    if rules.url is None:
        embedded = redis_embedded.start(config.redis_dir(), port=rules.embedded.port, stop=stop)
    try:
        yield RedisSettings(
            url=embedded.url if embedded else str(rules.url),
            prefix=rules.prefix,
            ca=str(rules.tls.ca) if rules.tls.ca else None,
            on_unsafe=rules.on_unsafe,
        )
    finally:
        if embedded:
            embedded.stop()
