"""ONNX graphs made ready for an engine: cleaned up, in half precision, or quantized.

Needed to build engines, never to run them: ``onnx``, ``onnxslim`` and ONNX Runtime's converters."""

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError

OPSET = 17
"""At least: what quantization by channel (13) and the converters want."""
INSTALL_BUILD = 'pip install "framewarden[build]"'
Feeds = Callable[[], Iterator[NDArray[np.float32]]]
"""Batches to calibrate with, from the start each time."""


def clean(path: Path) -> Any:
    """The graph with constants folded, dead ends cut and a recent opset, as an ``onnx.ModelProto``.

    :raises ModelError: it cannot be read. :raises ConfigError: the tools are not installed."""
    onnx, onnxslim = _tool("onnx"), _tool("onnxslim")
    with _errors(f"{path}: cannot be read as an ONNX graph"), _quiet():
        model = onnxslim.slim(onnx.load(str(path)))
        if max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")) < OPSET:
            model = _tool("onnx.version_converter").convert_version(model, OPSET)
        onnx.checker.check_model(model)
    return model


def halved(model: Any) -> Any:
    """The graph computing in FP16 from FP16 input, which the conversion kernel writes; outputs stay
    float32."""
    converter = _tool("onnxruntime.transformers.float16")
    with _errors("the graph cannot be converted to FP16"), _quiet():
        kept = [output.name for output in model.graph.output]
        return converter.convert_float_to_float16(model, keep_io_types=kept)


def quantized(model: Any, feeds: Feeds, *, symmetric: bool) -> Any:
    """The graph with explicit Q/DQ nodes around convolutions and matrix products: int8 weights by channel,
    activations by tensor, ranges from the least and greatest value that ``feeds`` causes.

    ``symmetric``: signed activations with zero point 0, which is what TensorRT takes; otherwise unsigned."""
    quantization = _tool("onnxruntime.quantization")
    kind = quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8
    with (
        TemporaryDirectory(prefix="framewarden-") as folder,
        _errors("the graph cannot be quantized"),
        _quiet(),
    ):
        source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        source.write_bytes(model.SerializeToString())
        quantization.quantize_static(
            str(source),
            str(target),
            _reader(quantization, model.graph.input[0].name, feeds()),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=kind,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add"],
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )
        return _tool("onnx").load(str(target))


def versions() -> dict[str, str]:
    """The tools' versions, for a report."""
    return {"onnx": str(_tool("onnx").__version__), "onnxruntime": ort.__version__}


def _reader(quantization: Any, name: str, batches: Iterator[NDArray[np.float32]]) -> Any:
    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # its class comes with the tool
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(batches, None)
            return None if batch is None else {name: batch}

    return Reader()


def _tool(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"building engines needs {error.name}, which is not installed: {INSTALL_BUILD}"
        ) from error


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """The tools' errors as ours. They have few classes of their own: a graph that they do not understand
    makes them fail in whatever way it does."""
    onnx = _tool("onnx")
    try:
        yield
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        _tool("google.protobuf.message").DecodeError,
        AttributeError, KeyError, IndexError, OSError, RuntimeError, TypeError, ValueError,
    ) as error:  # fmt: skip
        lines = str(error).strip().splitlines()
        raise ModelError(f"{what}: {lines[0] if lines else type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Stdout is for machines, and what these tools warn of is judged by ``engine verify``."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
