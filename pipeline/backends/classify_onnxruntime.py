"""ONNX Runtime on the CPU, f32: the reference that every other engine is checked against.

It also runs graphs of other precisions, to check them before an engine is made from them."""

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


def open_classifier(
    manifest: Manifest, *, threads: int, max_batch: int, precision: str = "f32", graph: Path | None = None
) -> HostClassifier:
    """Load the model for batches of 1..``max_batch`` on ``threads`` threads. ``precision`` names what
    ``graph``, a file made from the model, computes in; without one it is f32.

    :raises ModelError: weights missing or wrong, unreadable, or not what the manifest says."""
    weights = engines.weights(manifest)
    path = graph or weights
    engine = f"onnxruntime-{precision}"
    session = _session(path, manifest, threads)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    given = inputs[pick(manifest, "input", [item.name for item in inputs], manifest.input_name)]
    if len(inputs) > 1:
        raise ModelError(
            f"model {manifest.name}: has {len(inputs)} inputs; only a picture can be given to it"
        )
    wanted = outputs[pick(manifest, "output", [item.name for item in outputs], manifest.output_name)]
    fixed = check_input(manifest, _shape(given.shape), given.type == "tensor(float)")
    check_output(manifest, _shape(wanted.shape))

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            (raw,) = session.run([wanted.name], {given.name: pixels})
        except _ERRORS as exc:
            raise BackendError(f"{manifest.name} on {engine}: {_first_line(exc)}") from exc
        return np.asarray(raw, np.float32)

    return HostClassifier(
        manifest,
        engine=engine,
        sha256=engines.sha256_of(weights),
        run=run,
        sizes=range(1, max_batch + 1) if fixed is None else [fixed],
        max_batch=max_batch,
    )


def _session(path: Path, manifest: Manifest, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors come as exceptions; stderr is for people
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoders want those cycles
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (*_ERRORS, UnicodeDecodeError) as exc:  # the latter: a damaged file's error text
        raise ModelError(
            f"model {manifest.name}: ONNX Runtime cannot load {path}: {_first_line(exc)}"
        ) from exc


def _shape(shape: list[Any]) -> list[int | None]:
    """ONNX Runtime's shape, in which a size that is left open is a name or None."""
    return [size if isinstance(size, int) and size > 0 else None for size in shape]


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0]
