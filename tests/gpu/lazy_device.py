"""A device in main memory that does its work late and in any order that CUDA would allow.

Streams hold what was queued; nothing happens until somebody takes a step. Events are versions: a wait is for
the record that was the latest when the wait was queued, and passes at once when there was none, as CUDA's."""

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.device_surface import DeviceSurface
from pipeline.flow.resize import Colour, Plane
from tests.gpu.cpu_kernel import planar

Launch = Callable[[str, tuple[int, int], tuple[int, int], NDArray[np.void]], None]


@dataclass(eq=False)
class LazyEvent:
    """How many records were queued, and the latest that was reached."""

    recorded: int = 0
    reached: int = 0


@dataclass(eq=False)
class LazyStream:
    """Work in order: each entry says whether it can be done now, and does it."""

    queue: deque[tuple[Callable[[], bool], Callable[[], None]]] = field(default_factory=deque)

    def do(self, work: Callable[[], None]) -> None:
        """Queue some work."""
        self.queue.append((lambda: True, work))

    def record(self, event: LazyEvent) -> None:
        event.recorded += 1
        version = event.recorded

        def reach() -> None:
            event.reached = max(event.reached, version)

        self.do(reach)

    def wait_event(self, event: LazyEvent) -> None:
        version = event.recorded
        self.queue.append((lambda: event.reached >= version, lambda: None))

    def step(self) -> bool:
        """Do the next piece of work; False when there is none or it has to wait."""
        if not self.queue or not self.queue[0][0]():
            return False
        self.queue.popleft()[1]()
        return True


class LazyDevice:
    """Implements ``cuda_device.Device``. ``step`` and ``drain`` are what makes it work."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._threads = threading.local()
        self._lock = threading.Lock()
        self.streams: list[LazyStream] = []
        self.uploads = self.stream()
        self._uploaded: list[DeviceSurface] = []

    def stream(self) -> LazyStream:
        with self._lock:
            self.streams.append(LazyStream())
            return self.streams[-1]

    def step(self, rng: random.Random) -> bool:
        """One piece of work of a stream drawn at random; False when no stream could go on."""
        streams = list(self.streams)
        return any(stream.step() for stream in rng.sample(streams, len(streams)))

    def drain(self, rng: random.Random) -> None:
        """Do all that is queued."""
        while self.step(rng):
            pass
        assert not any(stream.queue for stream in self.streams), "streams wait for each other"

    def event(self) -> LazyEvent:
        return LazyEvent()

    def current_stream(self) -> LazyStream:
        if not hasattr(self._threads, "stream"):
            self._threads.stream = self.stream()
        stream: LazyStream = self._threads.stream
        return stream

    def empty(self, shape: tuple[int, ...], *, half: bool) -> NDArray[Any]:
        return np.full(shape, np.nan, np.float16 if half else np.float32)

    def address(self, array: NDArray[Any]) -> int:
        return int(array.ctypes.data)

    def launch(
        self,
        name: str,
        grid: tuple[int, int],
        block: tuple[int, int],
        to: NDArray[np.void],
        stream: LazyStream,
    ) -> None:
        arguments = to.copy()
        stream.do(lambda: self._launch(name, grid, block, arguments))

    def copy(self, target: NDArray[Any], source: NDArray[Any], stream: LazyStream) -> None:
        stream.do(lambda: np.copyto(target, source))

    def upload(self, planes: list[Plane], colour: Colour) -> DeviceSurface:
        surface = planar([plane.copy() for plane in planes], colour)
        self._uploaded.append(surface)  # CuPy's pool reuses such memory in the stream's order only
        return DeviceSurface(surface.planes, colour, surface.deep, stream=self.uploads)
