"""``convert.cu`` compiled by a C++ compiler, called with the arguments that the GPU would get."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.convert_cuda import BLOCK, CONVERSION, KERNELS, arguments, grid_of, kernel_of
from pipeline.backends.device_surface import DevicePlane, DeviceSurface, semi_planar
from pipeline.flow.frames import InputSpec
from pipeline.flow.resize import Colour, Plane


class CpuKernel:
    """The four kernels of ``convert.cu`` in a shared library."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        assert self._library.conversion_size() == CONVERSION.itemsize, "CONVERSION is not struct Conversion"

    def launch(self, name: str, grid: tuple[int, int], block: tuple[int, int], to: NDArray[np.void]) -> None:
        """Run all threads of a launch, one after another."""
        self._library.run(KERNELS.index(name), ctypes.c_void_p(to.ctypes.data), *grid, *block)

    def convert(
        self, surface: DeviceSurface, spec: InputSpec, rotation: int = 0, *, half: bool = False
    ) -> NDArray[np.float32] | NDArray[np.float16]:
        """A slot, shape ``spec.slot_shape()``, between two guards that nothing may touch."""
        shape = spec.slot_shape()
        room: NDArray[Any] = np.full(int(np.prod(shape)) + 128, 7e3, np.float16 if half else np.float32)
        to = arguments(surface, spec, rotation, room[64:].ctypes.data)
        self.launch(kernel_of(surface, half), grid_of(spec), BLOCK, to)
        assert (room[:64] == 7e3).all(), "written before the slot"
        assert (room[-64:] == 7e3).all(), "written behind the slot"
        return room[64:-64].reshape(shape)


def planar(planes: list[Plane], colour: Colour) -> DeviceSurface:
    """Planes as they lie, one after another."""
    held = [np.ascontiguousarray(plane) for plane in planes]
    places = tuple(DevicePlane(one.ctypes.data, one.shape[0], one.shape[1], one.shape[1]) for one in held)
    return DeviceSurface(places, colour, held[0].dtype.itemsize == 2, keep=held)


def nv12(planes: list[Plane], colour: Colour, *, padding: int = 0) -> DeviceSurface:
    """Y, U, V of 4:2:0 as NVDEC lays them out: NV12 for 8 bits, P016 (values at the top) for more.

    ``padding`` values of noise stand behind each row."""
    luma, first, second = planes
    height, width = luma.shape
    pitch = width + width % 2 + padding
    deep = colour.bits > 8
    kind = np.uint16 if deep else np.uint8
    memory = np.random.default_rng(0).integers(0, 255, (height + first.shape[0], pitch)).astype(kind)
    shift = 16 - colour.bits if deep else 0
    memory[:height, :width] = luma << shift
    memory[height:, : 2 * first.shape[1] : 2] = first << shift
    memory[height:, 1 : 2 * first.shape[1] : 2] = second << shift
    return semi_planar(memory.ctypes.data, height, width, pitch, colour, deep=deep, keep=memory)
