"""Ctrl-C and SIGTERM: the first one asks for a graceful end, a second Ctrl-C ends the process at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

SHOW_CURSOR = b"\x1b[?25h"
INTERRUPTED = 130


class Stopper:
    """Within the ``with`` block the two signals set ``event``. ``interrupted`` tells Ctrl-C from SIGTERM."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.interrupted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.interrupted:
                if sys.stderr.isatty():
                    os.write(2, SHOW_CURSOR)
                os._exit(INTERRUPTED)  # workers end when their supervisor has gone
            self.interrupted = True
        self.event.set()


@contextlib.contextmanager
def on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """Within the ``with`` block SIGHUP calls ``reload`` instead of ending the process."""
    before = signal.signal(signal.SIGHUP, lambda *_: reload())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
