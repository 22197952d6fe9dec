"""OpenVINO on the CPU: the fastest engine there.

bf16 and int8 keep 8 bits of a value, which moves a score by a few hundredths or more: too much where it is
near a threshold. So what they score near one is scored again in f32 (``bf16+f32``, ``int8+f32``)."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import structlog
from numpy.typing import NDArray
from openvino import frontend

from pipeline import engines
from pipeline.backends.classify_cascade import CascadeClassifier
from pipeline.backends.classify_common import HostClassifier, check_input, check_output, pick
from pipeline.backends.openvino_lanes import ERRORS, Lanes, last_line, shape
from pipeline.engine_cache import Key, accepted, key_of, report, stale
from pipeline.engines import Manifest
from pipeline.errors import BackendError, ModelError
from pipeline.flow.classify import Turn

PRECISIONS = ("int8", "bf16", "f32")
AGAIN = "+f32"
"""Of a precision's name: what it scores near a threshold is scored again in f32."""
GRAPH = "model.onnx"
INT8_RECIPE = "qdq-percentile-4"
"""How ``engine_build`` quantizes; raised when it does so otherwise."""


def available_precisions() -> tuple[str, ...]:
    """What this processor computes natively, fastest first."""
    capable = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(one for one in PRECISIONS if {"f32": "FP32"}.get(one, one.upper()) in capable)


def int8_key(manifest: Manifest) -> Key:
    """What an int8 engine of this model on this machine is kept under."""
    core = ov.Core()
    about = (core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES"))
    return key_of(
        manifest,
        engines.sha256_of(engines.weights(manifest)),
        "openvino",
        "int8",
        runtime=f"openvino {ov.__version__}",
        target=" ".join(map(str, about)),
        recipe=INT8_RECIPE,
    )


def open_classifier(
    manifest: Manifest,
    *,
    threads: int,
    max_batch: int,
    precision: str | None = None,
    graph: Path | None = None,
) -> HostClassifier | CascadeClassifier:
    """Compile the model for batches of 1..``max_batch`` on ``threads`` threads.

    ``precision`` ``bf16+f32`` or ``int8+f32`` scores again in f32 what the first scores near a threshold.
    None takes the fastest that this processor has and that decides as f32 does: int8 or int8+f32 when
    ``engine build`` made it here and found it right, bf16+f32 when the manifest has a tolerance for bf16,
    else f32. ``graph`` is a quantized ONNX file to use for int8 instead of the kept one.

    :raises ModelError: weights missing or wrong, unreadable, or not what the manifest says."""
    weights = engines.weights(manifest)
    if precision is None:
        precision = fastest(manifest)
        if "int8" not in precision:
            _tell_of_stale(manifest)
    first, again = precision.removesuffix(AGAIN), precision.endswith(AGAIN)
    margin = _margin(manifest, precision) if again else 0.0
    if first == "int8":
        used = _read(graph or _kept(manifest, precision), manifest)
        read = _read(weights, manifest) if again else used
    else:
        used = read = _read(weights, manifest)
    fast = _compiled(manifest, used, first, threads, max_batch)
    if not again:
        return fast
    exact = _compiled(manifest, read, "f32", threads, max_batch, pairs=False)  # few: no memory for pairs
    return CascadeClassifier(fast, exact, margin)


def _compiled(
    manifest: Manifest,
    read: tuple[Any, int | None],
    precision: str,
    threads: int,
    max_batch: int,
    *,
    pairs: bool = True,
) -> HostClassifier:
    """One engine. Engines of the same ``read`` share its weights: that saves 40 MB.

    Each thread has pictures of its own, unless the model has a batch size of its own. Threads that share a
    batch wait for each other after every layer (f32, AVX2, open-nsfw, 2 threads: 31 to 34 ms of CPU a picture
    instead of 28 to 30), and a thread with a picture can take turns with those that decode."""
    model, fixed = read
    engine = f"openvino-{precision}"
    half = precision == "bf16" or (precision == "int8" and "bf16" in available_precisions())
    kind = ov.Type.bf16 if half else ov.Type.f32  # of all that is not int8
    lanes = Lanes(model, manifest, fixed, threads, kind, pairs=pairs and max_batch > 1)

    def run(pixels: NDArray[np.float32], turn: Turn) -> NDArray[np.float32]:
        try:
            return lanes.infer(pixels, turn)
        except ERRORS as exc:
            raise BackendError(f"{manifest.name} on {engine}: {last_line(exc)}") from exc

    return HostClassifier(
        manifest,
        engine=engine,
        sha256=engines.sha256_of(engines.weights(manifest)),
        run=run,
        sizes=[] if fixed is None else [fixed],
        max_batch=max_batch,
        close=lanes.close,
    )


def fastest(manifest: Manifest) -> str:
    """The precision that is taken where none is asked for."""
    native = available_precisions()
    if "int8" in native and (right := _right(manifest)) is not None:
        return right[1]
    return f"bf16{AGAIN}" if "bf16" in native and "bf16" in manifest.tolerance else "f32"


def _tell_of_stale(manifest: Manifest) -> None:
    """Log that an int8 which was built here no longer fits."""
    if "int8" in available_precisions() and (why := stale(int8_key(manifest))):
        about = {"engine": "openvino-int8", "built_for": why, "cure": _build(manifest)}
        structlog.get_logger().warning("engine.stale", model=manifest.name, **about)


def untried(manifest: Manifest) -> str:
    """The command that builds an int8 engine, which may be cheaper; "" where it was tried, or cannot be."""
    possible = "int8" in available_precisions() and "int8" in manifest.tolerance
    return _build(manifest) if possible and report(int8_key(manifest)) is None else ""


def _right(manifest: Manifest) -> tuple[Path, str] | None:
    """The graph that was built here and found right, and as which precision: ``int8``, or ``int8+f32``."""
    key = int8_key(manifest)
    graph, precision = accepted(key, GRAPH), str((report(key) or {}).get("engine")).rpartition("-")[2]
    return (graph, precision) if graph is not None and precision in ("int8", f"int8{AGAIN}") else None


def _margin(manifest: Manifest, precision: str) -> float:
    """How near to a threshold a score of the first engine is not sure."""
    first = precision.removesuffix(AGAIN)
    if first in manifest.tolerance:
        return manifest.tolerance[first]
    verify = f"framewarden engine verify {manifest.name} --engine openvino-{first}"
    see = _build(manifest) if first == "int8" else verify
    raise ModelError(
        f"model {manifest.name}: tolerance.{first}: is missing; with {precision}, what is so near to a "
        f"threshold is scored again; to see the worst difference: {see}"
    )


def _kept(manifest: Manifest, precision: str) -> Path:
    """The graph that was built here, if it was found right alone or as ``precision`` is."""
    if (right := _right(manifest)) is not None:
        graph, as_what = right
        if as_what in ("int8", precision):
            return graph
        raise ModelError(
            f"model {manifest.name}: the int8 engine that was built here decides otherwise than f32, and is "
            f"right with f32 near the thresholds: use openvino-{as_what}"
        )
    key = int8_key(manifest)
    found = "was not built here"
    if report(key):
        found = "was built here, but is not within the manifest's tolerance"
    elif why := stale(key):
        found = f"was built here for {why}"
    raise ModelError(f"model {manifest.name}: an int8 engine {found}: {_build(manifest)}")


def _build(manifest: Manifest) -> str:
    return f"framewarden engine build {manifest.name} --engine openvino --precision int8"


def _read(path: Path, manifest: Manifest) -> tuple[Any, int | None]:
    """The model with only the wanted output, and its fixed batch size if it has one."""
    try:
        # Not core.read_model: that tries the readers of all formats, which print to stderr on a damaged file.
        reader = frontend.FrontEndManager().load_by_framework("onnx")
        model = reader.convert(reader.load(str(path)))
        given = model.inputs[
            pick(manifest, "input", [_name(port) for port in model.inputs], manifest.input_name)
        ]
        if len(model.inputs) > 1:
            raise ModelError(
                f"model {manifest.name}: has {len(model.inputs)} inputs; only a picture can be given to it"
            )
        wanted = pick(manifest, "output", [_name(port) for port in model.outputs], manifest.output_name)
        fixed = check_input(manifest, shape(given), given.element_type == ov.Type.f32)
        check_output(manifest, shape(model.outputs[wanted]))
        return ov.Model([model.outputs[wanted].node], model.get_parameters(), manifest.name), fixed
    except ERRORS as exc:
        raise ModelError(f"model {manifest.name}: OpenVINO cannot read {path}: {last_line(exc)}") from exc


def _name(port: Any) -> str:
    """A port's name in the ONNX file; OpenVINO may know it by several, the exporter's is the shortest."""
    return str(min(port.names, key=len)) if port.names else ""
