"""Which backend does what on which device: chosen by name, loaded on use."""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import structlog

from pipeline.engine_cache import built
from pipeline.engines import Manifest
from pipeline.errors import ConfigError, ModelError
from pipeline.flow.classify import Classifier
from pipeline.flow.decode import Decoder
from pipeline.flow.frames import FramePool, InputSpec
from pipeline.flow.source import Source, StreamInfo

if TYPE_CHECKING:
    from pipeline.backends.source_ffmpeg import SourceSettings

Device = Literal["cpu", "gpu"]
Role = Literal["decoder", "pool", "classifier"]

BACKENDS: dict[Device, dict[Role, str]] = {
    "cpu": {"decoder": "decode_software", "pool": "frames_numpy", "classifier": "classify_openvino"},
    "gpu": {"decoder": "decode_nvdec", "pool": "frames_cupy", "classifier": "classify_tensorrt"},
}


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that can be asked for by name: where it runs, its module, what that is told."""

    device: Device
    module: str
    options: Mapping[str, str] = field(default_factory=dict)


_OPENVINO = ("int8", "int8+f32", "bf16", "bf16+f32", "f32")
ENGINES: dict[str, Engine] = {
    "openvino": Engine("cpu", "classify_openvino"),
    **{f"openvino-{one}": Engine("cpu", "classify_openvino", {"precision": one}) for one in _OPENVINO},
    "onnxruntime": Engine("cpu", "classify_onnxruntime"),
    "onnxruntime-f32": Engine("cpu", "classify_onnxruntime", {"precision": "f32"}),
    "tensorrt": Engine("gpu", "classify_tensorrt", {"engine": "tensorrt"}),
    "tensorrt-rtx": Engine("gpu", "classify_tensorrt", {"engine": "tensorrt-rtx"}),
    "onnxruntime-cuda": Engine("gpu", "classify_onnxruntime_cuda"),
}
"""A name with a precision fixes it, one without leaves the choice to the engine."""

LEAST_CUDA = 12020
"""Of the driver, as it counts: what the packages for CUDA 12 ask for (driver 535)."""
INSTALL_GPU = 'pip install "framewarden[gpu]"'
INSTALL_CUDA = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that work on a GPU needs: whether it is there, and if not why and how to get it."""

    name: str
    available: bool
    reason: str


def open_source(
    settings: "SourceSettings", *, stop: threading.Event, monotonic: Callable[[], float] = time.monotonic
) -> Source:
    """Connect to a stream. :raises SourceError: it cannot be opened."""
    return cast(Source, _load("source_ffmpeg").open_source(settings, stop=stop, monotonic=monotonic))


def open_decoder(info: StreamInfo, *, device: Device = "cpu") -> Decoder:
    """A decoder for a session. :raises SourceUnsupported: none for this codec on this device."""
    return cast(Decoder, _load(BACKENDS[device]["decoder"]).open_decoder(info))


def open_pool(spec: InputSpec, slots: int, *, live_reserve: int = 0, device: Device = "cpu") -> FramePool:
    """A pool of ``slots`` pictures of a model's form; those of files leave ``live_reserve`` of them free."""
    module = _load(BACKENDS[device]["pool"])
    return cast(FramePool, module.open_pool(spec, slots, live_reserve=live_reserve))


def open_classifier(
    manifest: Manifest, *, engine: str = "auto", threads: int, max_batch: int, device: Device = "cpu"
) -> Classifier:
    """Load a model on an engine. ``auto`` is the device's own (OpenVINO on a CPU); for a model that OpenVINO
    cannot read it takes ONNX Runtime and logs why. A named engine is that one or an error.

    :raises ModelError: the model cannot be used. :raises ConfigError: no such engine here."""
    if engine != "auto":
        return _open_on(engine, manifest, threads, max_batch)
    module = _load(BACKENDS[device]["classifier"])
    try:
        return cast(Classifier, module.open_classifier(manifest, threads=threads, max_batch=max_batch))
    except ModelError as refused:
        if device != "cpu":
            raise
        try:
            classifier = _open_on("onnxruntime", manifest, threads, max_batch)
        except ModelError:
            raise refused from None  # the model itself is wrong, whatever the engine
        structlog.get_logger().warning(
            "engine.auto", model=manifest.name, chosen="onnxruntime", why=str(refused)
        )
        return classifier


def choose_device(
    wanted: Literal["auto", "cpu", "gpu"], engine: str = "auto", models: Collection[str] = ()
) -> tuple[Device, str]:
    """The device to use with this engine, and why in one line. An explicit choice never falls back; where
    all is left to ``auto``, a GPU takes a TensorRT engine of each of ``models`` (none named: of any model).

    :raises ConfigError: device and engine contradict each other, or what was asked for needs a GPU and
        something is missing; says what and the cure."""
    bound = None if engine == "auto" else _engine(engine).device
    if bound is not None and wanted not in ("auto", bound):
        raise ConfigError(f"engine: {engine}: works on a {bound.upper()}, but device is {wanted}; change one")
    if wanted == "cpu":
        return "cpu", "device: cpu in the config"
    if bound == "cpu":
        return "cpu", f"engine: {engine} in the config"
    missing = [piece for piece in gpu_pieces(engine) if not piece.available]
    if not missing:
        if wanted == engine == "auto" and (unbuilt := _unbuilt(models)):
            return "cpu", unbuilt
        return "gpu", "an NVIDIA GPU and all it needs were found"
    why = "; ".join(f"{piece.name}: {piece.reason}" for piece in missing)
    if wanted == "gpu":
        raise ConfigError(f"device: gpu: cannot be used here: {why}; or set device: auto or cpu")
    if bound == "gpu":
        raise ConfigError(f"engine: {engine}: cannot be used here: {why}; or set engine: auto")
    return "cpu", f"no usable GPU ({missing[0].name}: {missing[0].reason})"


def _unbuilt(models: Collection[str]) -> str:
    """The model that TensorRT cannot score, as no engine of it was built on this machine, with the cure; ""
    when there is none. Whether one still suits the driver and the version is seen when it is opened."""
    for model in models or ("*",):  # of any
        if not built(f"{model}-tensorrt"):
            engine = "tensorrt" if importlib.util.find_spec("tensorrt") else "tensorrt-rtx"
            which, name = ("any model", "MODEL") if model == "*" else (model, model)
            return (
                f"a GPU and all it needs were found, but no engine of {which}: framewarden engine "
                f"build {name} --engine {engine} --precision fp16 --out {name}.plan"
            )
    return ""


def gpu_pieces(engine: str = "auto") -> list[Piece]:
    """What work on a GPU with this engine needs, in the order in which a person would mend it."""
    packages = [_package("cupy", "cupy"), _package("PyNvVideoCodec", "PyNvVideoCodec"), _scorer(engine)]
    return [_driver(), _video(), *packages, *_gpu_backends()]


def _driver() -> Piece:
    name = "NVIDIA driver"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Piece(name, False, "libcuda.so.1 was not found; install the NVIDIA driver on this host")
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Piece(name, False, "the driver shows no GPU; in a container, start it with access to the GPU")
    newest = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(newest)) != 0 or newest.value < LEAST_CUDA:
        found = f"{newest.value // 1000}.{newest.value % 1000 // 10}"
        return Piece(name, False, f"it is for CUDA up to {found}; install driver 535 (CUDA 12.2) or newer")
    return Piece(name, True, f"{count.value} GPU{'s' if count.value > 1 else ''}")


def _video() -> Piece:
    """The driver's part for NVDEC. PyNvVideoCodec wants the encoder's, too, to be imported at all."""
    for library in ("libnvcuvid.so.1", "libnvidia-encode.so.1"):
        try:
            ctypes.CDLL(library)
        except OSError:
            cure = "it comes with the NVIDIA driver; start a container with NVIDIA_DRIVER_CAPABILITIES"
            return Piece("NVDEC", False, f"{library} was not found; {cure}=compute,utility,video")
    return Piece("NVDEC", True, "in the driver")


def _package(name: str, module: str) -> Piece:
    found = importlib.util.find_spec(module) is not None
    return Piece(name, found, "installed" if found else f"is not installed: {INSTALL_GPU}")


def _scorer(engine: str) -> Piece:
    """The engine's own package; for ``auto`` TensorRT, either of the two. ONNX Runtime for CUDA is used when
    it is asked for by name; where it is all there is, that is said."""
    cuda = any(importlib.metadata.distributions(name="onnxruntime-gpu"))
    if engine == "onnxruntime-cuda":
        reason = "installed" if cuda else f"is not installed: {INSTALL_CUDA}"
        return Piece("ONNX Runtime for CUDA", cuda, reason)
    names = {"tensorrt": ["tensorrt"], "tensorrt-rtx": ["tensorrt_rtx"]}
    either = [_package("TensorRT", module) for module in names.get(engine, ["tensorrt", "tensorrt_rtx"])]
    found = next((piece for piece in either if piece.available), either[0])
    if found.available or not cuda:
        return found
    return Piece(
        found.name,
        False,
        f"{found.reason}; or use ONNX Runtime for CUDA, which is installed: engine: onnxruntime-cuda",
    )


def _gpu_backends() -> list[Piece]:
    absent = [
        name for name in BACKENDS["gpu"].values() if importlib.util.find_spec(f"{__package__}.{name}") is None
    ]
    reason = (
        f"this version has no {', '.join(absent)}; use a version with GPU support" if absent else "present"
    )
    return [Piece("GPU backends", not absent, reason)]


def gpu_target() -> str | None:
    """The compute capability of the first GPU as ``sm_75``, or None without one. Never raises."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    values = [ctypes.c_int(0), ctypes.c_int(0)]
    major, minor = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    if driver.cuInit(0) != 0 or any(
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0) != 0
        for value, attribute in zip(values, (major, minor), strict=True)
    ):
        return None
    return f"sm_{values[0].value}{values[1].value}"


def _open_on(name: str, manifest: Manifest, threads: int, max_batch: int) -> Classifier:
    engine = _engine(name)
    module = _load(engine.module)
    return cast(
        Classifier,
        module.open_classifier(manifest, threads=threads, max_batch=max_batch, **engine.options),
    )


def _engine(name: str) -> Engine:
    if name not in ENGINES:
        raise ConfigError(f"engine: {name!r}: there is none; allowed: auto, {', '.join(ENGINES)}")
    return ENGINES[name]


def _load(name: str) -> Any:
    """Import a backend. :raises ConfigError: it, or the vendor's package under it, is not installed."""
    try:
        return importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as exc:
        if exc.name == f"{__package__}.{name}":
            raise ConfigError(f"backend {name}: this version of framewarden does not have it") from exc
        extra = INSTALL_GPU if name in BACKENDS["gpu"].values() else f"pip install {exc.name}"
        raise ConfigError(f"backend {name}: needs {exc.name}, which is not installed: {extra}") from exc
