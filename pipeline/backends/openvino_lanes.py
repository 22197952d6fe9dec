"""Requests of OpenVINO, each on a thread of its own, and the pictures that they score."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import frontend, properties
from openvino.properties import hint

from pipeline.engines import Manifest
from pipeline.errors import ModelError
from pipeline.flow.classify import Turn

FAILED_S = 0.5
"""How soon it is noticed that a request has failed."""
ERRORS = (
    RuntimeError,
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
)
"""What OpenVINO raises."""


class Lanes:
    """Requests that are run at the same time, ``threads`` at most, each on one thread.

    A model without a batch size of its own has some for single pictures and some for ``pairs``, which read
    the weights once for two: 8 % less CPU a picture in int8, 4 % in bf16, 3 % in f32, and the same scores
    (open-nsfw, AVX-512). One with a batch size of its own has one, on all threads."""

    def __init__(
        self,
        model: Any,
        manifest: Manifest,
        fixed: int | None,
        threads: int,
        kind: Any,
        *,
        pairs: bool,
    ) -> None:
        """``kind`` is OpenVINO's type for all that the graph leaves open.

        :raises ModelError: it cannot be compiled."""
        self._threads = threads
        counts = {1: threads} if fixed is None else {fixed: 1}  # of requests, by the pictures that each takes
        if fixed is None and pairs and _takes_two(model, manifest):
            counts = {2: max(1, threads // 2), 1: (threads + 1) // 2}
        self._requests = {
            size: _compile(model, manifest, size, threads if fixed else lanes, lanes, kind)
            for size, lanes in counts.items()
        }

    def infer(self, pixels: NDArray[np.float32], turn: Turn) -> NDArray[np.float32]:
        """The raw output for the pictures; each request has its turn. Only this thread calls the requests:
        the binding sets itself up at its first call, and two threads in that wait for ever."""
        idle = {size: list(requests) for size, requests in self._requests.items()}  # greatest first
        running = dict[int, _Running]()  # by the number of its first picture
        parts, ended, begun = dict[int, NDArray[np.float32]](), SimpleQueue[int](), 0
        try:
            while begun < len(pixels) or running:
                size = 0
                if len(running) < self._threads:
                    size = next((n for n, free in idle.items() if free and n <= len(pixels) - begun), 0)
                if size:
                    request, part = idle[size].pop(), pixels[begun : begun + size]
                    running[begun] = _Running(request, size, _start(request, part, turn, ended, begun))
                    begun += size
                elif running:
                    first = _first_ended(running, ended)
                    one = running[first]
                    one.request.wait()  # for its error, if it had one
                    parts[first] = np.array(one.request.get_output_tensor(0).data, np.float32)
                    idle[one.size].append(running.pop(first).request)
                else:
                    raise RuntimeError("no request takes these pictures: the engine was closed")
        finally:
            for one in running.values():  # after one that failed: they still read the pixels
                with suppress(*ERRORS):
                    one.request.wait()
                one.turn.close()
        return parts[0] if len(parts) == 1 else np.concatenate([parts[first] for first in sorted(parts)])

    def close(self) -> None:
        """Free the requests."""
        self._requests.clear()


class _Running(NamedTuple):
    """A request that scores ``size`` pictures, and its turn."""

    request: Any
    size: int
    turn: ExitStack


def _takes_two(model: Any, manifest: Manifest) -> bool:
    """Whether the graph gives a row for each of two pictures: some have a batch of one written into them."""
    try:
        model.reshape([2, *manifest.spec.slot_shape()])
    except ERRORS:
        return False
    return shape(model.outputs[0]) == [2, len(manifest.labels)]


def _start(
    request: Any, pixels: NDArray[np.float32], turn: Turn, ended: "SimpleQueue[int]", first: int
) -> ExitStack:
    """Enter the turn, which is returned, and begin. When the request ends, so does the turn, and ``ended`` is
    given ``first``."""
    having = ExitStack()
    having.enter_context(turn())
    request.set_callback(_end, (having, ended, first))  # no cycle: it would be for ever
    try:
        # Shared: the pixels are ours, and what comes out is copied before the request is used again.
        request.start_async(pixels, share_inputs=True)
    except ERRORS:
        having.close()  # nothing will end that could
        raise
    return having


def _end(of: "tuple[ExitStack, SimpleQueue[int], int]") -> None:
    having, ended, first = of
    try:
        having.close()
    finally:
        ended.put(first)


def _first_ended(running: Mapping[int, _Running], ended: "SimpleQueue[int]") -> int:
    """Wait for one of them. OpenVINO says nothing of the end of one that fails: that is looked for."""
    while True:
        try:
            first = ended.get(timeout=FAILED_S)
        except Empty:
            done = [first for first, one in running.items() if one.request.wait_for(0)]
        else:
            done = [first] if first in running else []  # else it was found to have ended before it said so
        if done:
            return done[0]


def _compile(model: Any, manifest: Manifest, size: int, threads: int, lanes: int, kind: Any) -> list[Any]:
    """``lanes`` requests that each score ``size`` pictures and may do so at the same time."""
    settings = {
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.enable_cpu_pinning: False,  # workers would pin their threads to the same cores
        hint.inference_precision: kind,
        properties.inference_num_threads: threads,
        properties.num_streams: lanes,
    }
    try:
        model.reshape([size, *manifest.spec.slot_shape()])
        compiled = ov.Core().compile_model(model, "CPU", settings)
        return [compiled.create_infer_request() for _ in range(lanes)]
    except ERRORS as exc:
        raise ModelError(
            f"model {manifest.name}: OpenVINO cannot compile it for batches of {size}: {last_line(exc)}"
        ) from exc


def shape(port: Any) -> list[int | None]:
    """A port's sizes; None where one is open."""
    return [None if size.is_dynamic else size.get_length() for size in port.partial_shape]


def last_line(exc: Exception) -> str:
    """OpenVINO puts source locations first and the problem last."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
