"""TensorRT, or TensorRT-RTX, on a GPU: the batch stays where the pool put it, only scores come back.

Nothing of TensorRT's runtime is touched before a GPU has been found: without one it crashes.
Written to what TensorRT 10.16, 11.4 and TensorRT-RTX 1.7 share (``SURFACE``)."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from pipeline import engines
from pipeline.backends import build_tensorrt
from pipeline.backends.classify_common import SLACK, Reading, plain_pictures
from pipeline.backends.cuda_device import load_cupy, on_gpu, open_stream
from pipeline.backends.tensorrt_graphs import Graphs
from pipeline.engine_cache import Key, accepted, key_of, stale
from pipeline.engines import Manifest
from pipeline.errors import BackendError, ConfigError, ModelError
from pipeline.flow.classify import ModelInfo, Scores, Turn

ENGINES = ("tensorrt", "tensorrt-rtx")
PRECISIONS = ("int8", "f16", "f32")
PLAN = "model.plan"
RECIPE = "1"
GRAPH_SIZES = (1, 2, 4, 8, 16)
"""Batch sizes for which a graph is tried; launches weigh most in small batches."""
SURFACE: dict[str, tuple[str, ...]] = {
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        "create_execution_context", "num_io_tensors", "get_tensor_name", "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_profile_shape",
    ),
    "IExecutionContext": (
        "set_input_shape", "set_tensor_address", "set_input_consumed_event", "execute_async_v3",
    ),
    "TensorIOMode": ("INPUT",),
}  # fmt: skip
"""What is used of both packages' classes. A test holds this against the real bindings and this file."""


def open_classifier(
    manifest: Manifest,
    *,
    threads: int,
    max_batch: int,
    precision: str | None = None,
    engine: str | None = None,
    plan: tuple[str, str, Path] | None = None,
    gpu: int = 0,
) -> "TensorRtClassifier":
    """Load a plan onto the GPU: ``plan`` (engine, precision, file), or the fastest (of ``engine``, of
    ``precision``) that ``engine build`` made here and found within the manifest's tolerance. ``threads`` are
    not used.

    :raises BackendError: there is no usable GPU. :raises ModelError: no plan, or not for this one."""
    stream = open_stream(gpu)  # first of all: it fails in words where there is no GPU
    name, kind, path = plan or _kept(manifest, engine, precision, gpu, max_batch)
    return TensorRtClassifier(manifest, name, path, kind, stream, max_batch, gpu)


def key(manifest: Manifest, engine: str, precision: str, max_batch: int, gpu: int = 0) -> Key:
    """What a plan for batches of 1..``max_batch``, for the GPU of that number, is kept under."""
    cuda = load_cupy().cuda.runtime
    device = cuda.getDeviceProperties(gpu)
    name = device["name"].decode()
    return key_of(
        manifest,
        engines.sha256_of(engines.weights(manifest)),
        engine,
        precision,
        runtime=f"{engine} {build_tensorrt.load(engine).__version__}, driver {cuda.driverGetVersion()}",
        target=f"{name} sm_{device['major']}{device['minor']}",
        recipe=RECIPE,
        max_batch=max_batch,
    )


class TensorRtClassifier:
    """Implements ``Classifier``. Belongs to the one inference thread."""

    def __init__(
        self,
        manifest: Manifest,
        engine: str,
        plan: Path,
        precision: str,
        stream: Any,
        max_batch: int,
        gpu: int,
    ) -> None:
        self.info = ModelInfo(
            manifest.name,
            manifest.version,
            engines.sha256_of(engines.weights(manifest)),
            manifest.preprocess,
            f"{engine}-{precision}",
        )
        self.spec = manifest.spec
        self.categories = tuple(manifest.categories)
        self.max_batch = max_batch
        self.thresholds: tuple[float, ...] = ()
        self.side_by_side = False
        self.turn: Turn = nullcontext
        self._cupy = cupy = load_cupy()
        self._gpu = gpu
        self._stream = stream
        trt = build_tensorrt.load(engine)
        self._runtime = trt.Runtime(build_tensorrt.logger_of(trt))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise ModelError(
                f"plan {plan}: {engine} {trt.__version__} cannot load it on this GPU: it belongs to another "
                "version "
                f"or GPU; build it here: framewarden engine build {manifest.name} --engine {engine}"
            )
        self._names(trt, plan)
        self._context = self._engine.create_execution_context()
        half = self._engine.get_tensor_dtype(self._input) == trt.float16
        self.spec = replace(manifest.spec, half=half)  # the pool writes what the engine reads
        self._dtype = np.dtype(np.float16 if half else np.float32)
        raw_half = self._engine.get_tensor_dtype(self._output) == trt.float16
        self._raw_dtype = np.dtype(np.float16 if raw_half else np.float32)
        labels = len(manifest.labels)
        with on_gpu(self._gpu, "allocate the output"):
            self._raw = cupy.empty((max_batch, labels), self._raw_dtype)
            memory = cupy.cuda.alloc_pinned_memory(self._raw.nbytes)
            self._host = np.frombuffer(memory, self._raw_dtype, max_batch * labels).reshape(max_batch, labels)
            self._ready, self._consumed, self._done = (cupy.cuda.Event(disable_timing=True) for _ in range(3))
            buffer = cupy.zeros((max_batch, *self.spec.slot_shape()), self._dtype)
        self._graphs = Graphs(stream, buffer, self._enqueue, (cupy.cuda.runtime.CUDARuntimeError,))
        self._reading = Reading(manifest)
        self._try_out(manifest)

    def infer(self, pixels: Any) -> Scores:
        """Scores (n, categories) of a CuPy array (n, *slot), n from 1 to ``max_batch``.

        Waits for what the calling thread's current stream has queued, on the GPU; returns when the scores are
        in host memory, so the slots may be released.

        :raises BackendError: the engine failed, or gave something that is not 0..1."""
        if not 1 <= len(pixels) <= self.max_batch:
            raise ValueError(f"a batch of {len(pixels)} pictures; 1 to {self.max_batch} are allowed")
        if isinstance(pixels, np.ndarray):  # of a verification; the pool's batches are on the GPU
            with on_gpu(self._gpu, "upload a batch"):
                pixels = self._cupy.asarray(np.ascontiguousarray(pixels, self._dtype))
        return self._reading.scores(self._run(pixels), self.info.engine)

    def close(self) -> None:
        """Free the engine. Nothing may be scored after; to close again does nothing."""
        with on_gpu(self._gpu, "finish"):
            self._stream.synchronize()
        self._graphs.clear()
        self._context = self._engine = self._runtime = None  # in this order: each is made by the next

    def _run(self, pixels: Any) -> Any:
        if pixels.dtype != self._dtype or not pixels.flags.c_contiguous:
            raise BackendError(
                f"{self.info.name} on {self.info.engine} takes contiguous {self._dtype}, "
                f"the pool gave {pixels.dtype}"
            )
        count = len(pixels)
        with on_gpu(self._gpu, "score a batch"):
            current = self._cupy.cuda.get_current_stream()
            current.record(self._ready)
            self._stream.wait_event(self._ready)
            if not self._graphs.launch(pixels, self._consumed) and not self._enqueue(
                pixels, self._consumed.ptr
            ):
                why = build_tensorrt.logger_of(build_tensorrt.load(self.info.engine.rpartition("-")[0])).last
                raise BackendError(f"{self.info.name} on {self.info.engine} failed: {why}")
            current.wait_event(self._consumed)  # who writes these slots next, in this stream's order, waits
            size = count * self._host.shape[1] * self._raw_dtype.itemsize
            self._raw.data.copy_to_host_async(self._host.ctypes.data_as(_pointer()), size, self._stream)
            self._stream.record(self._done)
            self._done.synchronize()
        return self._host[:count].astype(np.float32)

    def _enqueue(self, pixels: Any, consumed: int = 0) -> bool:
        """Queue the engine for a batch; ``consumed`` is an event that says that it has been read, or 0."""
        context = self._context
        return bool(
            context.set_input_shape(self._input, tuple(pixels.shape))
            and context.set_tensor_address(self._input, int(pixels.data.ptr))
            and context.set_tensor_address(self._output, int(self._raw.data.ptr))
            and context.set_input_consumed_event(consumed)
            and context.execute_async_v3(self._stream.ptr)
        )

    def _names(self, trt: Any, plan: Path) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"plan {plan}: has inputs {inputs} and outputs {outputs}; one of each is needed")
        self._input, self._output = inputs[0], outputs[0]
        _, _, most = engine.get_tensor_profile_shape(self._input, 0)
        if tuple(most)[1:] != self.spec.slot_shape() or next(iter(most)) < self.max_batch:
            raise ModelError(
                f"plan {plan}: takes up to {tuple(most)}, "
                f"this needs {(self.max_batch, *self.spec.slot_shape())}; "
                f"build it again with --max-batch {self.max_batch}"
            )

    def _try_out(self, manifest: Manifest) -> None:
        """Score plain pictures, then record graphs and score them again: a graph that gives anything else is
        not used."""
        plain = self._cupy.asarray(plain_pictures(manifest).astype(self._dtype))
        first = self._all(plain)
        self._reading.check(first)
        with on_gpu(self._gpu, "record the engine's launches"):
            batch = self._cupy.zeros((self.max_batch, *self.spec.slot_shape()), self._dtype)
            self._cupy.cuda.get_current_stream().synchronize()
            self._graphs.prepare(batch, [size for size in GRAPH_SIZES if size <= self.max_batch])
        if not np.allclose(self._all(plain), first, atol=SLACK):
            self._graphs.clear()

    def _all(self, pixels: Any) -> Any:
        step = self.max_batch
        return np.concatenate([self._run(pixels[at : at + step]) for at in range(0, len(pixels), step)])


def _installed(engine: str | None) -> list[str]:
    """Which of the two packages, or of the one asked for, can be imported. :raises ConfigError: none."""
    found, why = [], None
    for name in (engine,) if engine else ENGINES:
        try:
            build_tensorrt.load(name)
        except ConfigError as error:
            why = why or error
        else:
            found.append(name)
    if why is not None and not found:
        raise why
    return found


def _kept(
    manifest: Manifest, engine: str | None, precision: str | None, gpu: int, max_batch: int
) -> tuple[str, str, Path]:
    """Engine, precision and file of the fastest accepted plan; a faster one that fits no longer is logged."""
    names = _installed(engine)
    passed: list[dict[str, str]] = []

    def build(name: str, kind: str) -> str:
        return (
            f"framewarden engine build {manifest.name} --engine {name} --precision {kind.replace('f', 'fp')} "
            f"--max-batch {max_batch} --out {manifest.name}.plan"
        )

    for kind in (precision,) if precision else PRECISIONS:
        for name in names:
            wanted = key(manifest, name, kind, max_batch, gpu)
            if (found := accepted(wanted, PLAN)) is not None:
                for one in passed:
                    structlog.get_logger().warning("engine.stale", model=manifest.name, **one)
                return name, kind, found
            if why := stale(wanted):
                passed.append({"engine": f"{name}-{kind}", "built_for": why, "cure": build(name, kind)})
    why = "; ".join(f"{one['engine']} was built for {one['built_for']}" for one in passed)
    why = why or f"none for batches of {max_batch} was built for this GPU, driver and version of {names[0]}"
    cure = passed[0]["cure"] if passed else build(names[0], "f16")
    raise ModelError(f"model {manifest.name}: no plan fits: {why}: {cure}")


def _pointer() -> Any:
    import ctypes

    return ctypes.c_void_p
