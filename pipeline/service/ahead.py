"""What is decoded beside the readers: closer looks at live streams; and keyframes and sequences of files,
before their turn on cores that would be idle."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.errors import Closed
from pipeline.service.crew import contained

T = TypeVar("T")


class Ahead:
    """The threads that decode beside the readers, ``run`` is the work of one, and ``places`` for what is
    decoded ahead: so many keyframes or sequences at most, each counted from the start of its decoding until
    its pictures are taken or forgotten. A closer look needs no place.

    While ``paused`` no place is given: what is live on the worker goes first."""

    def __init__(self, threads: int, places: int) -> None:
        self.paused = False
        self.threads = threads
        self.places = places
        self._free = places
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def reserve(self) -> bool:
        """Take a place, if one is free; it is to be given back by ``release``."""
        with self._changed:
            granted = not self.paused and not self._closed and self._free > 0
            self._free -= granted
        return granted

    def release(self) -> None:
        """Give a place back."""
        with self._changed:
            self._free += 1

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Do it in another thread; what is decoded ahead has reserved its place."""
        started = Future[T]()
        with self._changed:
            if self._closed:
                started.cancel()
            else:
                self._waiting.append((started, work))
                self._changed.notify()
        return started

    def finished(self, started: Future[T]) -> T | None:
        """Wait for it and give its place back; None when it was cancelled. What it raised is raised."""
        try:
            with suppress(CancelledError):
                return started.result()
            return None
        finally:
            self.release()

    def give_up(self, started: Future[Any]) -> None:
        """It is not wanted: see that it has ended, and give its place back."""
        end(started)
        self.release()

    def run(self) -> None:
        """Do what was started, until ``close``."""
        while (taken := self._take()) is not None:
            started, work = taken
            if started.set_running_or_notify_cancel():
                try:
                    outcome = contained(work)
                except Closed as closed:  # for whoever waits for it
                    outcome = closed
                if isinstance(outcome, Exception):
                    started.set_exception(outcome)
                else:
                    started.set_result(outcome)

    def close(self) -> None:
        """Nothing more is done; what still waits is cancelled."""
        with self._changed:
            self._closed = True
            for started, _ in self._waiting:
                started.cancel()
            self._changed.notify_all()

    def _take(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return None if self._closed else self._waiting.popleft()


def end(started: Future[Any]) -> None:
    """Cancel it, or wait until it has ended: what it reads may be closed next."""
    if not started.cancel():
        started.exception()
