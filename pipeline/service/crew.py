"""Threads that end together, and the channel between them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pipeline.errors import Closed

T = TypeVar("T")


class Channel(Generic[T]):
    """A queue of many senders and one receiver that can be closed from either end.

    ``size`` 0 means unbounded: then something else (the frame pool) must be the bound."""

    def __init__(self, size: int = 0) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._closed = False
        self._changed = threading.Condition()

    def send(self, item: T) -> None:
        """Append, waiting while the channel is full.

        :raises Closed: the receiver has gone."""
        with self._changed:
            while self._size and len(self._items) >= self._size and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Closed("the channel is closed")
            self._items.append(item)
            self._changed.notify_all()

    def receive_all(self, timeout: float | None) -> list[T]:
        """Everything that waits; at least one item, unless ``timeout`` seconds pass (then an empty list).

        :raises Closed: closed, and nothing is left."""
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(timeout)
            if not self._items and self._closed:
                raise Closed("the channel is closed")
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items

    def close(self) -> None:
        """No more sends; what was sent can still be received."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def contained(run: Callable[[], T]) -> T | Exception:
    """Run it; what it raises is given, not raised, so that a surprise in one stream costs that stream alone.

    :raises Closed: the other end has gone."""
    try:
        return run()
    except Closed:
        raise
    except Exception as error:  # noqa: BLE001 - the caller logs it and lets its stream fail or try again
        return error


class Closable(Protocol):
    def close(self) -> None: ...


class Crew:
    """Threads of one worker: the first failure stops all, every one is joined, errors come out as a group.

    ``Closed`` is not a failure: it is how a thread learns to end."""

    def __init__(self, stop: threading.Event, *closed_on_failure: Closable) -> None:
        self.stop = stop
        self.failed = threading.Event()
        self._closables = closed_on_failure
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, run: Callable[..., None], *args: Any, name: str) -> threading.Thread:
        """Run ``run(*args)`` in a thread of its own."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._guard, args=(run, *args), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _guard(self, run: Callable[..., None], *args: Any) -> None:
        try:
            run(*args)
        except Closed:
            pass
        except BaseException as error:  # noqa: BLE001 - recorded here and raised again by __exit__
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._errors.append(error)
        self.failed.set()
        self.stop.set()
        for closable in self._closables:
            closable.close()

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._errors:
            raise self._errors[0]

    def join(self, timeout_s: float) -> bool:
        """Wait for every thread; False when one is still alive after ``timeout_s`` seconds."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Closed):
            self._fail(error)
        self.stop.set()
        self.join(timeout_s=30)
        others = [e for e in self._errors if e is not error]
        if others:
            raise BaseExceptionGroup("a worker's threads failed", others) from error
