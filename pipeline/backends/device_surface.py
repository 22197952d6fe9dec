"""Where a picture lies on a device: what a GPU decoder gives and a GPU frame pool reads."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.flow.resize import Colour


@dataclass(frozen=True, slots=True)
class DevicePlane:
    """One colour plane in device memory.

    ``address`` is that of its first value. ``height`` and ``width`` count its values, ``pitch`` those from
    one row to the next, ``step`` those from one value to its neighbour (2 in interleaved chroma)."""

    address: int
    height: int
    width: int
    pitch: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class DeviceSurface:
    """A picture in device memory: Y, U, V, or R, G, B, or one plane of grey.

    ``deep``: a value is 16 bits wide, ``shift`` says how far up in them it lies (P016: 16 - bits); otherwise
    it is a byte. ``stream`` is the CUDA stream in whose order the picture is written, and in which the buffer
    is reused after the decoder's next call: whoever queues a kernel on it before that needs no other lock.
    ``keep`` holds what owns the memory."""

    planes: tuple[DevicePlane, ...]
    colour: Colour
    deep: bool
    shift: int = 0
    stream: Any = field(default=None, repr=False, compare=False)
    keep: Any = field(default=None, repr=False, compare=False)


def semi_planar(
    address: int,
    height: int,
    width: int,
    pitch: int,
    colour: Colour,
    *,
    deep: bool,
    stream: Any = None,
    keep: Any = None,
) -> DeviceSurface:
    """NV12 or P016: ``height`` rows of luma, ``pitch`` values each, right below them U and V taking turns.

    Chroma has half the rows and columns, rounded up."""
    size = 2 if deep else 1
    below = address + height * pitch * size
    chroma = ((height + 1) // 2, (width + 1) // 2, pitch, 2)
    planes = (
        DevicePlane(address, height, width, pitch),
        DevicePlane(below, *chroma),
        DevicePlane(below + size, *chroma),
    )
    return DeviceSurface(planes, colour, deep, 16 - colour.bits if deep else 0, stream, keep)
