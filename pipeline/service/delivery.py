"""Redis for a run: the server that the config names or one of our own, and the thread that publishes to
it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import structlog

from pipeline.backends import redis_embedded
from pipeline.backends.redis_connect import RedisSettings
from pipeline.backends.redis_embedded import EmbeddedRedis
from pipeline.backends.sink_redis import RedisSink
from pipeline.config import Config
from pipeline.outbox import Outbox
from pipeline.service.crew import Crew
from pipeline.service.publisher import Publisher

log = structlog.get_logger(__name__)


class Place:
    """Where to publish: the server that the config names, or the embedded one, started again when it dies."""

    def __init__(self, config: Config, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._embedded = self._start() if config.redis.url is None else None

    def open_sink(self) -> RedisSink:
        """An unconnected sink. The publisher's thread calls it; a server that it starts lives as long as it.

        :raises SinkError: the embedded server does not come up again."""
        if self._embedded is not None and self._embedded.ended():
            log.warning("the embedded redis has died; starting it again", pid=self._embedded.pid)
            self._embedded = self._start()
        rules = self._config.redis
        return RedisSink(
            RedisSettings(
                url=self._embedded.url if self._embedded else str(rules.url),
                prefix=rules.prefix,
                ca=str(rules.tls.ca) if rules.tls.ca else None,
                on_unsafe=rules.on_unsafe,
            )
        )

    def close(self) -> None:
        """End the embedded server, if it is ours."""
        if self._embedded is not None:
            self._embedded.stop()

    def _start(self) -> EmbeddedRedis:
        port = self._config.redis.embedded.port
        return redis_embedded.start(self._config.redis_dir(), port=port, stop=self._stop)


class Delivery:
    """The publisher's thread from start to end of a run."""

    def __init__(self, outbox: Outbox, place: Place) -> None:
        self._stop = threading.Event()
        self.publisher = Publisher(outbox, place.open_sink, stop=self._stop)
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
def redis_for(config: Config, stop: threading.Event) -> Iterator[Place]:
    """Where to publish. Starts the embedded server when the config names none, and ends it at the end.

    :raises ConfigError: there is no embedded server for this machine. :raises SinkError: it did not start."""
    place = Place(config, stop)
    try:
        yield place
    finally:
        place.close()
