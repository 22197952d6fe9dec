"""CUDA graphs of an engine: what it launches for a batch, recorded once a size and replayed by one call.

A graph is tied to the addresses that it was recorded with. So it reads a buffer of its own, and the batch is
copied there first, on the GPU. Whether that costs less than to launch each kernel is measured, size by
size."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any

TURNS = 9
"""Each way is timed so often, for each size."""

Enqueue = Callable[[Any], bool]
"""Queue the engine for a batch on the stream; False when it refuses."""


class Graphs:
    """The graphs of one engine on ``stream``, read from ``buffer``, an array of the greatest batch.

    ``failures`` are the errors by which CUDA says that something cannot be recorded."""

    def __init__(
        self,
        stream: Any,
        buffer: Any,
        enqueue: Enqueue,
        failures: tuple[type[Exception], ...],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._stream = stream
        self._buffer = buffer
        self._enqueue = enqueue
        self._failures = failures
        self._clock = clock
        self._graphs: dict[int, Any] = {}

    @property
    def sizes(self) -> list[int]:
        """Batch sizes that have a graph."""
        return sorted(self._graphs)

    def prepare(self, pixels: Any, sizes: Sequence[int]) -> None:
        """Record a graph for each size and keep those that are faster for the first of ``pixels``, a batch
        elsewhere on the GPU. An engine that cannot be recorded for one size has no graph at all."""
        for size in sizes:
            graph, batch = self._recorded(self._buffer[:size]), pixels[:size]
            if graph is None:
                self.clear()
                return
            if self._took(partial(self._replay, batch, graph)) < self._took(partial(self._enqueue, batch)):
                self._graphs[size] = graph

    def launch(self, pixels: Any, copied: Any) -> bool:
        """Queue copy and graph for a batch, ``copied`` being recorded between them; False, and nothing is
        queued, when its size has none."""
        graph = self._graphs.get(len(pixels))
        if graph is None:
            return False
        self._replay(pixels, graph, copied)
        return True

    def clear(self) -> None:
        """Go on without graphs."""
        self._graphs.clear()

    def _recorded(self, batch: Any) -> Any:
        """The graph of a batch, or None when it cannot be recorded; the stream is usable either way."""
        self._enqueue(batch)  # what is done once for a shape must not be in the graph
        self._stream.synchronize()
        graph = None
        self._stream.begin_capture()
        try:
            queued = self._enqueue(batch)
        except self._failures:
            queued = False
        finally:
            with suppress(*self._failures):
                graph = self._stream.end_capture()
        return graph if queued else None

    def _replay(self, pixels: Any, graph: Any, copied: Any = None) -> None:
        self._buffer.data.copy_from_device_async(pixels.data, pixels.nbytes, self._stream)
        if copied is not None:
            self._stream.record(copied)
        graph.launch(self._stream)

    def _took(self, queue: Callable[[], object]) -> float:
        """Median seconds from the call to the end of its work on the GPU."""
        taken = []
        for _ in range(TURNS):
            began = self._clock()
            queue()
            self._stream.synchronize()
            taken.append(self._clock() - began)
        return median(taken)
