"""What conversion means: the formula, and a plain NumPy reference of it that judges every backend.

Two formulas of ``flow/frames.py`` live here as functions: ``weights`` (one axis of the resize) and ``Colour``
(matrix and range). ``convert`` puts them together in float64, slowly and without a shortcut; ``open_pool`` of
each backend has to agree with it. Pure: NumPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.frames import InputSpec

Plane = NDArray[Any]
"""Shape (height, width), integers of the picture's bit depth."""
Matrix = Literal["rgb", "bt601", "bt709", "bt2020"]

_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}  # Kr, Kb


@dataclass(frozen=True, slots=True)
class Colour:
    """How plane values become RGB of 0..255.

    ``matrix`` ``rgb``: the planes are R, G and B. ``full``: values use the whole of 0..2**bits - 1; otherwise
    luma is 16..235 and chroma 16..240, times 2**(bits - 8)."""

    matrix: Matrix
    full: bool = False
    bits: int = 8

    def transform(self) -> NDArray[np.float64]:
        """Shape (3, 4): R, G, B of 0..255, not clipped, from the three plane values and 1."""
        step = float(2 ** (self.bits - 8))
        top = float(2**self.bits - 1)
        luma_span, luma_zero = (top, 0.0) if self.full else (219.0 * step, 16.0 * step)
        chroma_span, chroma_zero = (top, 128.0 * step) if self.full else (224.0 * step, 128.0 * step)
        if self.matrix == "rgb":
            matrix, spans, zeros = np.eye(3), np.full(3, luma_span), np.full(3, luma_zero)
        else:
            red, blue = _LUMA[self.matrix]
            green = 1.0 - red - blue
            matrix = np.array(
                [
                    [1.0, 0.0, 2.0 * (1.0 - red)],
                    [1.0, -2.0 * (1.0 - blue) * blue / green, -2.0 * (1.0 - red) * red / green],
                    [1.0, 2.0 * (1.0 - blue), 0.0],
                ]
            )
            spans = np.array([luma_span, chroma_span, chroma_span])
            zeros = np.array([luma_zero, chroma_zero, chroma_zero])
        matrix = 255.0 * matrix / spans
        return np.column_stack([matrix, -matrix @ zeros])


@lru_cache(maxsize=64)
def weights(source: int, target: int) -> NDArray[np.float64]:
    """Shape (target, source), rows sum to 1: one axis of the resize.

    A source pixel counts by 1 - distance / reach, from the target pixel's centre to its own, where that is
    positive. The reach is source / target when shrinking, so that every source pixel counts, and 1 when
    enlarging, which is linear interpolation. Beyond the ends, the outermost pixels are repeated. Equal sizes:
    the identity."""
    ratio = source / target
    reach = max(ratio, 1.0)
    beyond = int(np.ceil(reach))
    centre = (np.arange(target)[:, None] + 0.5) * ratio - 0.5
    wide = np.clip(1.0 - np.abs(centre - np.arange(-beyond, source + beyond)) / reach, 0.0, None)
    wide /= wide.sum(axis=1, keepdims=True)
    table: NDArray[np.float64] = wide[:, beyond : beyond + source].copy()
    table[:, 0] += wide[:, :beyond].sum(axis=1)
    table[:, -1] += wide[:, beyond + source :].sum(axis=1)
    table.setflags(write=False)
    return table


def resize(plane: Plane, height: int, width: int) -> NDArray[np.float64]:
    """Shape (height, width): both axes of one plane, without rounding."""
    return weights(plane.shape[0], height) @ plane.astype(np.float64) @ weights(plane.shape[1], width).T


def convert(
    planes: Sequence[Plane], spec: InputSpec, colour: Colour, rotation: int = 0
) -> NDArray[np.float64]:
    """Shape ``spec.slot_shape()``: the formula of ``flow/frames.py``, step by step, in float64.

    ``planes`` are Y, U, V or R, G, B, each of its own size, or one plane of grey. ``rotation``: clockwise."""
    height, width = spec.resized()
    if rotation % 180:
        height, width = width, height
    small = [resize(plane, height, width) for plane in planes]
    if len(small) == 1:
        grey = np.full_like(small[0], 0.0 if colour.matrix == "rgb" else 128.0 * 2 ** (colour.bits - 8))
        small = [small[0], grey, grey]
    turned = np.stack([np.rot90(plane, -rotation // 90) for plane in small])
    top, left = spec.corner()
    cut = turned[:, top : top + spec.height, left : left + spec.width]
    table = colour.transform()
    rgb = np.tensordot(table[:, :3], cut, axes=1) + table[:, 3, None, None]
    ordered = np.clip(rgb, 0.0, 255.0)[:: -1 if spec.channels == "bgr" else 1]
    scaled = (ordered - np.reshape(spec.mean, (3, 1, 1))) * np.reshape(spec.scale, (3, 1, 1))
    return scaled if spec.layout == "nchw" else np.moveaxis(scaled, 0, -1)
