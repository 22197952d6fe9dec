"""The thread that puts what was decided into the outbox, and only then says that it happened."""

import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import Closed
from pipeline.outbox import Outbox, OutboxError
from pipeline.service.crew import Channel
from pipeline.service.orders import Done
from pipeline.service.plan import RECORDS
from pipeline.service.report import Recording

OUTBOX_RETRY_S = 1.0


class Recorder:
    """Takes recordings from the inference thread. ``waits`` while that thread waits for the disk; ``error``
    says why nothing is accepted now."""

    def __init__(self, outbox: Outbox, send: Callable[[Any], None]) -> None:
        self.error = ""
        self.waits = False
        self._outbox = outbox
        self._send = send
        self._channel: Channel[tuple[Recording, list[Done]]] = Channel(size=RECORDS)
        self._given_up = threading.Event()

    def put(self, recording: Recording, done: list[Done]) -> None:
        """Record this, then say that these streams have ended. Waits while the backlog is full.

        :raises Closed: nothing is recorded any more."""
        self.waits = True
        self._channel.send((recording, done))
        self.waits = False

    def close(self) -> None:
        """Nothing more comes."""
        self._channel.close()

    def give_up(self) -> None:
        """What the disk does not take now is not tried again."""
        self._given_up.set()

    def run(self) -> None:
        """One transaction for all that waits.

        :raises OutboxError: it was given up."""
        while True:
            try:
                parts = self._channel.receive_all(None)
            except Closed:
                return
            whole = Recording()
            for recording, _ in parts:
                whole.add(recording)
            self._accept(whole)
            for event in whole.events:
                self._send(("event", event.body))
            for _, done in parts:
                for one in done:
                    self._send(one)

    def _accept(self, whole: Recording) -> None:
        """Put it into the outbox, trying for as long as it takes: what is flagged is not given up for a full
        disk.

        Meanwhile recordings pile up to their bound, then inference waits, and live frames are dropped and
        counted."""
        while True:
            try:
                self._outbox.accept(
                    whole.events, now=time.time(), progress=whole.progress, finished=whole.finished
                )
            except OutboxError as error:
                self.error = str(error)
                if self._given_up.wait(OUTBOX_RETRY_S):
                    raise
            else:
                self.error = ""
                return
