"""What the supervisor itself puts into the outbox: kept until the disk takes it, in order."""

import time
from collections.abc import Iterable

import structlog

from pipeline.events import Event
from pipeline.outbox import Outbox, OutboxError
from pipeline.service.state import OnEvent, close_left_open


class Records:
    """Closes what dead workers left open, then says the rest. ``error``: why nothing is accepted now.

    What waits is a few events a stream at most: while there is an ``error``, a stream with events here goes
    to no worker, quarantine's time is not told (one event says it later), and no new config is taken."""

    def __init__(self, outbox: Outbox, on_event: OnEvent) -> None:
        self.outbox = outbox
        self.error = ""
        self._on_event = on_event
        self._left_open: set[str] = set()
        self._waiting: list[Event] = []

    def accept(self, events: Iterable[Event]) -> None:
        """Say these, now or as soon as the outbox takes them."""
        self._waiting += events
        self.flush()

    def close_open(self, stream: str) -> None:
        """A worker died with this stream: close what it left open."""
        self._left_open.add(stream)
        self.flush()

    def blocked(self, stream: str) -> bool:
        """Whether older events of this stream must come first."""
        return stream in self._left_open or any(event.stream == stream for event in self._waiting)

    def flush(self) -> None:
        """Try again."""
        if not self._left_open and not self._waiting:
            return
        try:
            for stream in sorted(self._left_open):
                close_left_open(self.outbox, stream, self._on_event)
                self._left_open.discard(stream)
            if self._waiting:
                self.outbox.accept(self._waiting, now=time.time())
        except OutboxError as error:
            if not self.error:
                structlog.get_logger().error("outbox.refused", why=str(error))
            self.error = str(error)
            return
        said, self._waiting, self.error = self._waiting, [], ""
        for event in said:
            self._on_event(event)
