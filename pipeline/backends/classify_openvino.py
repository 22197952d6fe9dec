"""OpenVINO on the CPU: the fastest engine there (bf16 where the processor has it)."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import frontend, properties
from openvino.properties import hint

from pipeline import engines
from pipeline.backends.classify_common import HostClassifier, check_input, check_output, pick
from pipeline.engines import Manifest
from pipeline.errors import BackendError, ModelError

PRECISIONS = ("bf16", "f32")
_ERRORS = (
    RuntimeError,
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
)
SIZES = (1, 4)
"""Batch sizes that are compiled. For a fixed size, a frame costs 5 to 20 % less than with an open one, and
what it costs is flat from 4 on (CPU ms a frame at 1, 2, 4, 8, 16 on 2 threads, bf16: open-nsfw 10.2, 9.9,
9.5, 9.4, 9.4; image-safety-s 14.8, 13.2, 12.4, 12.3, 14.5). Each size more costs 0.2 to 0.5 s at start."""


def available_precisions() -> tuple[str, ...]:
    """What this processor computes natively, fastest first."""
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return PRECISIONS if "BF16" in capabilities else ("f32",)


def open_classifier(
    manifest: Manifest, *, threads: int, max_batch: int, precision: str | None = None
) -> HostClassifier:
    """Compile the model for batches of 1..``max_batch`` on ``threads`` threads.

    ``precision`` None takes bf16 where the processor has it and the manifest accepts it (``tolerance.bf16``),
    else f32.

    :raises ModelError: weights missing or wrong, unreadable, or not what the manifest says."""
    chosen = precision or next(
        p for p in (*available_precisions(), "f32") if p == "f32" or p in manifest.tolerance
    )
    path = engines.weights(manifest)
    core = ov.Core()
    model, fixed = _read(path, manifest)
    sizes = [size for size in SIZES if size <= max_batch] if fixed is None else [fixed]
    requests = {size: _compile(core, model, manifest, size, threads, chosen) for size in sizes}
    engine = f"openvino-{chosen}"

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        request = requests[len(pixels)]
        try:
            # Shared: both ends are ours, and the output is copied before the next run overwrites it.
            results = request.infer([pixels], share_inputs=True, share_outputs=True)
        except _ERRORS as exc:
            raise BackendError(f"{manifest.name} on {engine}: {_last_line(exc)}") from exc
        return np.array(results[0], np.float32)

    return HostClassifier(
        manifest,
        engine=engine,
        sha256=engines.sha256_of(path),
        run=run,
        sizes=sizes,
        max_batch=max_batch,
        close=requests.clear,
    )


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
        fixed = check_input(manifest, _shape(given), given.element_type == ov.Type.f32)
        check_output(manifest, _shape(model.outputs[wanted]))
        return ov.Model([model.outputs[wanted].node], model.get_parameters(), manifest.name), fixed
    except _ERRORS as exc:
        raise ModelError(f"model {manifest.name}: OpenVINO cannot read {path}: {_last_line(exc)}") from exc


def _compile(core: Any, model: Any, manifest: Manifest, size: int, threads: int, precision: str) -> Any:
    settings = {
        hint.inference_precision: ov.Type.bf16 if precision == "bf16" else ov.Type.f32,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.enable_cpu_pinning: False,  # workers would pin their threads to the same cores
        properties.inference_num_threads: threads,
        properties.num_streams: 1,
    }
    try:
        model.reshape([size, *manifest.spec.slot_shape()])
        return core.compile_model(model, "CPU", settings).create_infer_request()
    except _ERRORS as exc:
        raise ModelError(
            f"model {manifest.name}: OpenVINO cannot compile it for batches of {size}: {_last_line(exc)}"
        ) from exc


def _name(port: Any) -> str:
    """A port's name in the ONNX file; OpenVINO may know it by several, the exporter's is the shortest."""
    return str(min(port.names, key=len)) if port.names else ""


def _shape(port: Any) -> list[int | None]:
    return [None if size.is_dynamic else size.get_length() for size in port.partial_shape]


def _last_line(exc: Exception) -> str:
    """OpenVINO puts source locations first and the problem last."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
