"""What ``convert.cu`` is called with. Plain NumPy, so that tests call the same kernel on a CPU."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.device_surface import DevicePlane, DeviceSurface
from pipeline.errors import DecodeError
from pipeline.flow.frames import InputSpec
from pipeline.flow.resize import Colour

SOURCE = Path(__file__).with_name("convert.cu")
KERNELS = ("convert_8_f32", "convert_8_f16", "convert_16_f32", "convert_16_f16")
BLOCK = (32, 8)
MAX_SIDE = 16384
"""Positions are 32-bit whole numbers: enough up to here for a model of up to 1024 pixels a side."""

_PLANE = np.dtype(
    [("address", "u8"), ("height", "i4"), ("width", "i4"), ("pitch", "i4"), ("step", "i4")], align=True
)
CONVERSION = np.dtype(
    [
        ("planes", _PLANE, 3),
        ("out", "u8"),
        ("count", "i4"),
        ("quarter_turns", "i4"),
        ("resized", "i4", 2),
        ("corner", "i4", 2),
        ("size", "i4", 2),
        ("strides", "i4", 3),
        ("table", "f4", (3, 4)),
        ("mean", "f4", 3),
        ("scale", "f4", 3),
    ],
    align=True,
)
"""``struct Conversion``: the kernel's one argument, by value; CuPy passes an array of size 1 that way."""


def kernel_of(surface: DeviceSurface, half: bool) -> str:
    """The name of the kernel that reads this surface and writes float32 or float16."""
    return f"convert_{16 if surface.deep else 8}_{'f16' if half else 'f32'}"


def grid_of(spec: InputSpec) -> tuple[int, int]:
    """Blocks of ``BLOCK`` threads that cover a slot."""
    return -(-spec.width // BLOCK[0]), -(-spec.height // BLOCK[1])


def arguments(surface: DeviceSurface, spec: InputSpec, rotation: int, out: int) -> NDArray[np.void]:
    """A ``CONVERSION`` of shape () that writes ``surface`` into the slot at address ``out``.

    :raises DecodeError: the picture is too large."""
    to = np.zeros((), CONVERSION)
    for place, plane in zip(to["planes"], surface.planes, strict=False):
        if not (0 < plane.height <= MAX_SIDE and 0 < plane.width <= MAX_SIDE):
            raise DecodeError(
                f"a plane of {plane.width} x {plane.height} values; the GPU converts 1 to {MAX_SIDE} a side"
            )
        place["address"], place["pitch"], place["step"] = plane.address, plane.pitch, plane.step
        place["height"], place["width"] = plane.height, plane.width
    if len(surface.planes) == 3 and _size(surface.planes[1]) != _size(surface.planes[2]):
        raise DecodeError("chroma planes of two sizes; the GPU converts those of one")
    height, width = spec.resized()
    to["out"], to["count"] = out, len(surface.planes)
    to["quarter_turns"] = rotation // 90 % 4
    to["resized"] = (width, height) if rotation % 180 else (height, width)
    to["corner"], to["size"] = spec.corner(), (spec.height, spec.width)
    area = spec.height * spec.width
    to["strides"] = (area, spec.width, 1) if spec.layout == "nchw" else (1, 3 * spec.width, 3)
    to["table"] = _table(surface.colour, surface.shift, spec.channels == "bgr", len(surface.planes) == 1)
    to["mean"], to["scale"] = spec.mean, spec.scale
    return to


def _size(plane: DevicePlane) -> tuple[int, int]:
    return plane.height, plane.width


@lru_cache(maxsize=64)
def _table(colour: Colour, shift: int, bgr: bool, grey: bool) -> NDArray[np.float32]:
    """(3, 4): from plane values as they lie in memory, and 1, to 0..255 in the model's channel order."""
    table = colour.transform()
    if grey and colour.matrix != "rgb":
        table[:, 3] += table[:, 1:3].sum(axis=1) * 128.0 * 2 ** (colour.bits - 8)
    table[:, :3] /= 2**shift
    return np.ascontiguousarray(table[::-1] if bgr else table, np.float32)
