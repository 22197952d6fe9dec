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
PERCENTILE = 99.999
"""Of an activation's values that are within the range of its int8. open-nsfw, 1,000 pictures: with 99.9999 %
and with 99.99 % scores move by 0.034 on average, so by 0.027."""
INSTALL_BUILD = 'pip install "framewarden[build]"'
Feeds = Callable[[], Iterator[NDArray[np.float32]]]
"""Batches to calibrate with; all are held in memory."""


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
    activations by tensor, ranges from what ``feeds`` causes.

    ``symmetric``: what TensorRT takes: signed activations with zero point 0, from the least to the greatest
    value, and additions, too. Otherwise what costs OpenVINO least and moves scores least: unsigned, without
    the outermost values (0.001 %), only what convolutions and matrix products read, not what they give, and
    strides taken out where they only skip values: OpenVINO computes those convolutions in int8 only so."""
    quantization = _tool("onnxruntime.quantization")
    kind = quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8
    types, ranges = ["Conv", "MatMul", "Gemm"], quantization.CalibrationMethod
    extra: dict[str, Any] = {"ActivationSymmetric": symmetric, "WeightSymmetric": True}
    extra |= {"CalibStridedMinMax": 1}  # of all ranges, whatever its name says: a batch at a time in memory
    if not symmetric:
        model = _unstrided(model)
        extra |= {"CalibPercentile": PERCENTILE, "OpTypesToExcludeOutputQuantization": types}
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
            _reader(quantization, model.graph.input[0].name, list(feeds())),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=kind,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=[*types, "Add"] if symmetric else types,
            calibrate_method=ranges.MinMax if symmetric else ranges.Percentile,
            extra_options=extra,
        )
        return _tool("onnx").load(str(target))


def _unstrided(model: Any) -> Any:
    """The same graph, every node named, with the values that 1x1 convolutions skip left out before them, once
    for all that read the same."""
    helper = _tool("onnx.helper")
    graph = type(model).FromString(model.SerializeToString())
    shapes = {one.name: list(one.dims) for one in graph.graph.initializer}
    nodes, left = [], dict[tuple[str, tuple[int, ...]], str]()
    for number, node in enumerate(graph.graph.node):
        node.name = f"{node.name}/{number}"  # some have none, or that of another
        about = {one.name: one.ints for one in node.attribute}
        strides = about.get("strides", [])
        pointwise = node.op_type == "Conv" and set(shapes.get(node.input[1], [])[2:]) == {1}
        if pointwise and set(strides) - {1} and not any(about.get("pads", [])):
            read, step = node.input[0], tuple(strides)
            if (read, step) not in left:
                left[read, step] = f"{read}/strided/{len(left)}"
                made = {"kernel_shape": [1] * len(step), "strides": step, "name": left[read, step]}
                nodes.append(helper.make_node("MaxPool", [read], [left[read, step]], **made))
            node.input[0], strides[:] = left[read, step], [1] * len(step)
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def versions() -> dict[str, str]:
    """The tools' versions, for a report."""
    return {"onnx": str(_tool("onnx").__version__), "onnxruntime": ort.__version__}


def _reader(quantization: Any, name: str, batches: list[NDArray[np.float32]]) -> Any:
    """The batches as ONNX Runtime asks for them: some at a time, whose every layer it holds in memory."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # its class comes with the tool
        def __init__(self) -> None:
            self._left = iter(batches)

        def __len__(self) -> int:
            return len(batches)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._left = iter(batches[start_index:end_index])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._left, None)
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
