"""What the GPU backends need of CuPy, and nothing else: streams, events, memory, one kernel launch.

Never run on a CPU: CuPy cannot. The frame pool is tested on a device of the same form that lives in main
memory and runs the same kernel; what is left to prove on a GPU is this file."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.convert_cuda import KERNELS, SOURCE
from pipeline.backends.device_surface import DevicePlane, DeviceSurface
from pipeline.backends.slot_protocol import Stream
from pipeline.errors import BackendError
from pipeline.flow.resize import Colour, Plane

OPTIONS = ("--std=c++17",)
"""How NVRTC compiles ``convert.cu``, here and in the test that counts its registers."""


class Device(Protocol):
    """A place where frames are kept and converted; arrays are its own."""

    def event(self) -> Any: ...

    def current_stream(self) -> Stream:
        """The calling thread's stream: what it queues goes there, and ``array.get()`` waits for it."""

    def empty(self, shape: tuple[int, ...], *, half: bool) -> Any:
        """:raises BackendError: there is no memory."""

    def address(self, array: Any) -> int:
        """Of its first value."""

    def launch(
        self, name: str, grid: tuple[int, int], block: tuple[int, int], to: NDArray[np.void], stream: Any
    ) -> None:
        """Queue a kernel of ``convert.cu``. ``to`` is copied at once."""

    def copy(self, target: Any, source: Any, stream: Any) -> None:
        """Queue a copy from array to array."""

    def upload(self, planes: list[Plane], colour: Colour) -> DeviceSurface:
        """Queue the copy of a picture in main memory, which may be overwritten as soon as this returns."""


def open_device(gpu: int = 0) -> "CupyDevice":
    """The GPU of that number. :raises BackendError: it cannot be used; says why and the cure."""
    return CupyDevice(gpu)


def open_stream(gpu: int = 0) -> Any:
    """A stream of its own, that does not wait for the default one (``ptr``, ``record``, ``wait_event``,
    ``synchronize``)."""
    cupy = load_cupy()
    with _mapped(cupy, "open a stream"), cupy.cuda.Device(gpu):
        return cupy.cuda.Stream(non_blocking=True)


def memory(gpu: int = 0) -> tuple[int, int]:
    """Bytes of the GPU's memory that are free, whoever has the rest, and all there are."""
    cupy = load_cupy()
    with _mapped(cupy, "tell how much of its memory is free"), cupy.cuda.Device(gpu):
        free, total = cupy.cuda.runtime.memGetInfo()
    return int(free), int(total)


def load_cupy() -> Any:
    """:raises BackendError: it is not installed."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(
            f'work on a GPU needs CuPy, which cannot be imported ({error}): pip install "framewarden[gpu]"'
        ) from error


class CupyDevice:
    """Implements ``Device``. Thread-safe, as CUDA is; a thread's current device is set for each call."""

    def __init__(self, gpu: int) -> None:
        self._cupy = cupy = load_cupy()
        self._gpu = gpu
        with self._here("compile the conversion kernel"):
            module = cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=OPTIONS)
            module.compile()
            self._kernels = {name: module.get_function(name) for name in KERNELS}
            self._uploads = cupy.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        with self._here("create an event"):
            return self._cupy.cuda.Event(disable_timing=True)

    def current_stream(self) -> Stream:
        stream: Stream = self._cupy.cuda.get_current_stream(self._gpu)
        return stream

    def empty(self, shape: tuple[int, ...], *, half: bool) -> Any:
        """Memory of its own, not of CuPy's pool: freeing it waits until nothing on the GPU uses it."""
        cupy, kind = self._cupy, np.dtype(np.float16 if half else np.float32)
        size = int(np.prod(shape)) * kind.itemsize
        with self._here(f"allocate {size / 1e6:.1f} MB for frames of {shape}"):
            return cupy.ndarray(shape, kind, cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0))

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def launch(
        self, name: str, grid: tuple[int, int], block: tuple[int, int], to: NDArray[np.void], stream: Any
    ) -> None:
        with self._here("convert a picture"), stream:
            self._kernels[name](grid, block, (to,))

    def copy(self, target: Any, source: Any, stream: Any) -> None:
        with self._here("copy a slot"), stream:
            target[...] = source

    def upload(self, planes: list[Plane], colour: Colour) -> DeviceSurface:
        """All uploads share a stream. What they leave in CuPy's pool is reused in that stream's order only,
        so it may be let go of as soon as the kernel that reads it has been queued."""
        stream = self._uploads
        with self._here("upload a picture"), stream:
            held = [self._cupy.asarray(np.ascontiguousarray(plane)) for plane in planes]
        places = tuple(
            DevicePlane(int(one.data.ptr), one.shape[0], one.shape[1], one.shape[1]) for one in held
        )
        return DeviceSurface(places, colour, held[0].itemsize == 2, stream=stream, keep=held)

    @contextmanager
    def _here(self, what: str) -> Iterator[None]:
        with _mapped(self._cupy, what), self._cupy.cuda.Device(self._gpu):
            yield


@contextmanager
def on_gpu(gpu: int, what: str) -> Iterator[None]:
    """Work on the GPU of that number. :raises BackendError: it failed to do ``what``."""
    cupy = load_cupy()
    with _mapped(cupy, what), cupy.cuda.Device(gpu):
        yield


@contextmanager
def _mapped(cupy: Any, what: str) -> Iterator[None]:
    """CuPy's errors as ours."""
    kinds = (
        cupy.cuda.runtime.CUDARuntimeError,
        cupy.cuda.driver.CUDADriverError,
        cupy.cuda.memory.OutOfMemoryError,
        cupy.cuda.compiler.CompileException,
    )
    try:
        yield
    except kinds as error:
        raise BackendError(f"the GPU failed to {what}: {error}") from error
