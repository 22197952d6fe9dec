"""An ONNX graph to a TensorRT plan, by TensorRT on the target GPU or by TensorRT-RTX on any machine.

Only what TensorRT 10.16, 11.4 and TensorRT-RTX 1.7 share is used: strongly typed networks, so that the graph
alone says what is computed in which precision, and one optimization profile over the batch size."""

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, ModelError
from pipeline.flow.frames import InputSpec

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {"tensorrt": 'pip install "framewarden[gpu]"', "tensorrt-rtx": "pip install tensorrt-rtx-cu13"}
TYPICAL_BATCH = 8
TURING = "sm_75"
TARGET = re.compile(r"sm_[0-9]{2,3}")

SURFACE: dict[str, tuple[str, ...]] = {
    "Builder": ("create_network", "create_builder_config", "create_optimization_profile",
                "build_serialized_network"),
    "INetworkDefinition": ("get_input", "num_inputs"),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "ParserError": ("desc",),
    "IBuilderConfig": (
        "add_optimization_profile", "create_timing_cache", "set_timing_cache", "get_timing_cache",
        "max_aux_streams",
    ),
    "IOptimizationProfile": ("set_shape",),
    "ITimingCache": ("serialize",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
}  # fmt: skip
"""What is used of both packages' classes. A test holds this against the real bindings and this file."""
RTX_SURFACE = {
    "IBuilderConfig": ("num_compute_capabilities", "set_compute_capability"),
    "ComputeCapability": ("SM75",),
}
"""What is used of TensorRT-RTX alone: it builds for a GPU that is not here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A built engine, and what later builds on this GPU may reuse."""

    data: bytes
    version: str
    timing_cache: bytes = b""


def refuse(engine: str, precision: str, target: str | None, here: str | None) -> None:
    """``here`` is this machine's GPU as ``sm_75``, None without one; ``target`` None means that one.

    :raises ConfigError: no such engine can be built here; says why and the cure."""
    if target is not None and not TARGET.fullmatch(target):
        raise ConfigError(f"--target {target}: is no GPU's architecture, such as sm_75 (T4), sm_86 or sm_89")
    if target is None and here is None:
        raise ConfigError(
            f"--target: is missing, and this machine has no GPU to build for; "
            f"name one, for a T4: --target {TURING}"
        )
    target = target or here
    if engine == "tensorrt":
        if here != target:
            found = f"has {here}" if here else "has no GPU"
            raise ConfigError(
                f"--engine tensorrt: builds on the target GPU only ({target}; this machine {found}); "
                "run this "
                "command there, or build here with --engine tensorrt-rtx"
            )
        return
    if target == TURING and precision == "int8":
        raise ConfigError(
            f"--precision int8: TensorRT-RTX has no INT8 on Turing ({TURING}: its support matrix lists "
            "FP16 and "
            "FP32 there); use --precision fp16, or on the GPU itself --engine tensorrt --precision int8"
        )
    if target == TURING and precision == "fp32":
        raise ConfigError(
            f"--precision fp32: TensorRT-RTX compiles no FP32 matrix product for Turing ({TURING}); "
            "use --precision fp16, or on the GPU itself --engine tensorrt --precision fp32"
        )


def check(engine: str, target: str | None, here: str | None) -> None:
    """Find out, before anything long is begun, that the package is here and knows the target, or the GPU
    here: TensorRT-RTX builds for one that it does not know, too (an H200, ``sm_90``), and cannot load that.

    :raises ConfigError: it is not, or does not."""
    trt = load(engine)
    if engine == "tensorrt-rtx":
        _capability(trt, str(target or here))


def load(engine: str) -> Any:
    """The package of an engine, imported. :raises ConfigError: it is not installed."""
    try:
        return importlib.import_module(MODULES[engine])
    except (ImportError, OSError) as error:  # OSError: its libraries, or the driver's, are not there
        raise ConfigError(f"--engine {engine}: cannot be imported ({error}): {INSTALL[engine]}") from error


def build_plan(
    graph: bytes,
    spec: InputSpec,
    *,
    engine: str,
    target: str | None,
    max_batch: int,
    timing_cache: bytes = b"",
) -> Plan:
    """Build a plan for batches of 1..``max_batch``. ``target`` is for TensorRT-RTX; None means the GPU here.

    :raises ModelError: the graph is not understood, or cannot be compiled for the target; says what of it.
    :raises ConfigError: the package is missing, or does not know the target."""
    trt = load(engine)
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        why = "; ".join(parser.get_error(at).desc() for at in range(parser.num_errors))
        raise ModelError(f"{engine} cannot read the graph: {why or logger.last}")
    config = builder.create_builder_config()
    config.max_aux_streams = 0  # the classifier's stream is the only one
    if engine == "tensorrt-rtx" and target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, target), 0)
    profile = builder.create_optimization_profile()
    slot = spec.slot_shape()
    sizes = [(size, *slot) for size in (1, min(TYPICAL_BATCH, max_batch), max_batch)]
    profile.set_shape(network.get_input(0).name, *sizes)
    config.add_optimization_profile(profile)
    if engine == "tensorrt":
        # None for a damaged file; one of another GPU or version is left aside by TensorRT itself.
        cache = config.create_timing_cache(timing_cache) or config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    with _stdout_as_stderr():
        built = builder.build_serialized_network(network, config)
    if built is None:
        raise ModelError(f"{engine} cannot compile the graph for {target or 'this GPU'}: {logger.last}")
    timings = bytes(config.get_timing_cache().serialize()) if engine == "tensorrt" else b""
    return Plan(bytes(built), str(trt.__version__), timings)


def _capability(trt: Any, target: str) -> Any:
    known = {
        f"sm_{name[2:]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if target not in known:
        raise ConfigError(
            f"--target {target}: this TensorRT-RTX ({trt.__version__}) builds for {', '.join(known)} only; "
            "for another GPU, on that GPU: --engine tensorrt"
        )
    return known[target]


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """TensorRT-RTX's compiler prints warnings to the process's stdout, which is for machines."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


_loggers: dict[str, Any] = {}


def logger_of(trt: Any) -> Any:
    """One a package and process: TensorRT keeps the first that it is given."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # its class comes with the package
        """Keeps the latest error instead of printing it: stderr is for people."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason given"

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.last = text

    return _loggers.setdefault(trt.__name__, Logger())
