"""ONNX Runtime on the CPU, f32: the reference that every other engine is checked against.

It also runs graphs of other precisions, to check them before an engine is made from them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

from pipeline import engines
from pipeline.backends.classify_common import HostClassifier, check_input, check_output, pick
from pipeline.engines import Manifest
from pipeline.errors import BackendError, ModelError
from pipeline.flow.classify import Turn

PRECISIONS = ("f32",)
_ERRORS = (
    states.DeviceReset,
    states.EPFail,
    states.EngineError,
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.ModelLoadCanceled,
    states.ModelLoaded,
    states.ModelRequiresCompilation,
    states.NoModel,
    states.NoSuchFile,
    states.NotFound,
    states.NotImplemented,
    states.RuntimeException,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A session, what it is given and asked for, and the model's own batch size, if it has one."""

    session: Any
    given: str
    wanted: str
    fixed: int | None


def open_classifier(
    manifest: Manifest, *, threads: int, max_batch: int, precision: str = "f32", graph: Path | None = None
) -> HostClassifier:
    """Load the model for batches of 1..``max_batch`` on ``threads`` threads. ``precision`` names what
    ``graph``, a file made from the model, computes in; without one it is f32.

    :raises ModelError: weights missing or wrong, unreadable, or not what the manifest says."""
    weights = engines.weights(manifest)
    engine = f"onnxruntime-{precision}"
    half = precision == "f16"
    loaded = load(graph or weights, manifest, threads, ["CPUExecutionProvider"], half=half)

    def run(pixels: NDArray[np.float32], _: Turn) -> NDArray[np.float32]:
        with errors_of(f"{manifest.name} on {engine}"):
            feeds = {loaded.given: pixels.astype(np.float16) if half else pixels}
            (raw,) = loaded.session.run([loaded.wanted], feeds)
        return np.asarray(raw, np.float32)

    return HostClassifier(
        manifest,
        engine=engine,
        sha256=engines.sha256_of(weights),
        run=run,
        sizes=range(1, max_batch + 1) if loaded.fixed is None else [loaded.fixed],
        max_batch=max_batch,
    )


def load(path: Path, manifest: Manifest, threads: int, providers: list[Any], *, half: bool = False) -> Loaded:
    """A session on the first of ``providers`` that works, names with their options; its input is float32, or
    float16 with ``half``.

    :raises ModelError: the file is unreadable, or not what the manifest says."""
    session = _session(path, manifest, threads, providers)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    given = inputs[pick(manifest, "input", [item.name for item in inputs], manifest.input_name)]
    if len(inputs) > 1:
        raise ModelError(
            f"model {manifest.name}: has {len(inputs)} inputs; only a picture can be given to it"
        )
    wanted = outputs[pick(manifest, "output", [item.name for item in outputs], manifest.output_name)]
    fixed = check_input(manifest, _shape(given.shape), given.type == f"tensor(float{'16' if half else ''})")
    check_output(manifest, _shape(wanted.shape))
    return Loaded(session, given.name, wanted.name, fixed)


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """ONNX Runtime's errors while it scores, as ours."""
    try:
        yield
    except _ERRORS as exc:
        raise BackendError(f"{what}: {_first_line(exc)}") from exc


def _session(path: Path, manifest: Manifest, threads: int, providers: list[Any]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; stderr is for people
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders want those cycles
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except (*_ERRORS, UnicodeDecodeError) as exc:  # the latter: a damaged file's error text
        raise ModelError(
            f"model {manifest.name}: ONNX Runtime cannot load {path}: {_first_line(exc)}"
        ) from exc


def _shape(shape: list[Any]) -> list[int | None]:
    """ONNX Runtime's shape, in which a size that is left open is a name or None."""
    return [size if isinstance(size, int) and size > 0 else None for size in shape]


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0]
