"""Which batch sizes get a CUDA graph, on a stream that runs in main memory and counts what a launch costs.

The stream stands in for CuPy's; that the real one records TensorRT is for a GPU to say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.backends.tensorrt_graphs import Graphs

LAUNCH = 5.0
"""What one launch takes, by the clock of these tests; a copy takes 1 a picture."""


class CannotRecord(Exception):
    """What CUDA says of work that has no place in a graph."""


class Stream:
    """Does what is queued at once, or records it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[Any] = []
        self.recording: list[Callable[[], None]] | None = None

    def queue(self, work: Callable[[], None], cost: float) -> None:
        if self.recording is not None:
            self.recording.append(work)
            return
        self.now += cost
        work()

    def begin_capture(self) -> None:
        self.recording = []

    def end_capture(self) -> "Recorded":
        recorded, self.recording = self.recording, None
        assert recorded is not None
        return Recorded(recorded)

    def record(self, event: Any) -> None:
        self.events.append(event)

    def synchronize(self) -> None:
        if self.recording is not None:
            raise CannotRecord


class Recorded:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self, stream: Stream) -> None:
        stream.queue(self._replay, LAUNCH)

    def _replay(self) -> None:
        for one in self._work:
            one()


class Array:
    """Of ``values``; what a batch needs of CuPy's."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values
        self.nbytes = values.nbytes

    @property
    def data(self) -> "Array":
        return self

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> "Array":
        return Array(self.values[part])

    def copy_from_device_async(self, source: "Array", size: int, stream: Stream) -> None:
        count = size // self.values[0].nbytes

        def copy() -> None:
            self.values[:count] = source.values[:count]

        stream.queue(copy, float(count))


class Sums:
    """An engine of ``kernels`` launches that sums each picture up."""

    def __init__(self, stream: Stream, kernels: int = 4) -> None:
        self.out = np.zeros(8)
        self.launched = 0
        self._stream = stream
        self._kernels = kernels

    def enqueue(self, batch: Array) -> bool:
        for _ in range(self._kernels):
            self._stream.queue(lambda: self._sum(batch), LAUNCH)
            self.launched += 1
        return True

    def _sum(self, batch: Array) -> None:
        self.out[: len(batch)] = batch.values.sum(axis=1)


def graphs_of(stream: Stream, enqueue: Callable[[Array], bool]) -> Graphs:
    return Graphs(stream, Array(np.zeros((8, 3))), enqueue, (CannotRecord,), clock=lambda: stream.now)


def test_a_graph_is_kept_where_its_copy_costs_less_than_the_launches_that_it_saves() -> None:
    """4 launches take 20; a graph 5 and 1 a picture: 6 for one, 13 for eight. 2 launches take 10."""
    stream = Stream()
    graphs = graphs_of(stream, Sums(stream, kernels=4).enqueue)
    graphs.prepare(Array(np.ones((8, 3))), [1, 4, 8])
    assert graphs.sizes == [1, 4, 8]
    graphs = graphs_of(stream, Sums(stream, kernels=2).enqueue)
    graphs.prepare(Array(np.ones((8, 3))), [1, 4, 8])
    assert graphs.sizes == [1, 4]


def test_a_graph_scores_the_batch_that_it_is_given_and_says_when_it_has_been_read() -> None:
    stream = Stream()
    engine = Sums(stream)
    graphs = graphs_of(stream, engine.enqueue)
    graphs.prepare(Array(np.ones((8, 3))), [2])
    launched = engine.launched
    assert graphs.launch(Array(np.array([[1.0, 2, 3], [4, 5, 6]])), "copied")
    assert engine.out[:2].tolist() == [6, 15]
    assert stream.events == ["copied"]
    assert engine.launched == launched, "the graph launches; the engine is not asked again"


def test_a_size_without_a_graph_is_left_to_the_engine() -> None:
    stream = Stream()
    graphs = graphs_of(stream, Sums(stream).enqueue)
    graphs.prepare(Array(np.ones((8, 3))), [2])
    assert not graphs.launch(Array(np.ones((3, 3))), "copied")
    assert stream.events == []


@pytest.mark.parametrize("how", ["waits", "refuses"])
def test_an_engine_that_cannot_be_recorded_goes_on_without_graphs(how: str) -> None:
    stream = Stream()
    engine = Sums(stream)

    def enqueue(batch: Array) -> bool:
        if how == "waits":
            stream.synchronize()
        return engine.enqueue(batch) and (how != "refuses" or stream.recording is None)

    graphs = graphs_of(stream, enqueue)
    graphs.prepare(Array(np.ones((8, 3))), [1, 2])
    assert graphs.sizes == []
    assert stream.recording is None, "the stream records no longer"
    assert enqueue(Array(np.full((1, 3), 2.0)))
    assert engine.out[0] == 6
