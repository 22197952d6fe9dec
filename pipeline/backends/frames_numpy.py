"""The frame pool in main memory: swscale does the resize, NumPy the colour.

swscale's BILINEAR scaler is the formula of ``flow/frames.py`` (a tent as wide as the ratio; linear when
enlarging). Asked for 16-bit values, it takes 0.65 ms of CPU for a 1080p 4:2:0 picture to 256 x 256. The
colour of 224 x 224 pixels adds 0.15 ms.
"""

import re
from collections import deque
from functools import lru_cache

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.backends.slot_ring import SlotRing
from pipeline.errors import BackendError, DecodeError
from pipeline.flow.decode import Picture
from pipeline.flow.frames import Frame, InputSpec
from pipeline.flow.resize import Colour, Matrix, Plane

Slots = NDArray[np.float32]

_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # the same on every CPU
_SCALER, _TINY_SCALER = Interpolation.BILINEAR | _EXACT, Interpolation.AREA | _EXACT
_TINY = 4  # rows or columns; for fewer, swscale's BILINEAR has one tap only, while its AREA is linear
_MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "bt601",
    5: "bt601",
    6: "bt601",
    7: "bt709",
    9: "bt2020",
    10: "bt2020",
}
"""FFmpeg's AVCOL_SPC numbers; what is missing counts as unspecified. 7 (SMPTE 240M) is nearest to BT.709."""
_DIRECT = re.compile(r"(yuv[aj]?4\d\dp|gray)((9|10|12|14|16)le)?$")  # planes that can be read as they lie
_NO_CHROMA = np.float32(2**15)
_DEPTHS = (9, 10, 12, 14, 16)
_CHROMA = {(32, 32): 420, (32, 64): 422, (64, 64): 444, (64, 32): 440, (16, 64): 411, (16, 16): 410}

# Idle scaler contexts, one for luma and one for chroma, 0.2 MB each, lent to one conversion at a time.
# Setting one up for another size takes 0.06 ms, so they are not kept by size.
_scalers: deque[tuple[VideoReformatter, VideoReformatter]] = deque(maxlen=8)


def open_pool(spec: InputSpec, slots: int, *, live_reserve: int = 0) -> "NumpyPool":
    """A pool of ``slots`` slots for models that read main memory.

    Frames of files leave ``live_reserve`` slots free for live ones, which do not wait.

    :raises BackendError: ``spec`` asks for float16, which no engine on a CPU reads."""
    if spec.half:
        raise BackendError("a frame pool in main memory holds float32, its engine asks for float16")
    return NumpyPool(spec, slots, live_reserve)


def convert(picture: Picture, spec: InputSpec, out: Slots) -> None:
    """Write ``picture`` into ``out`` (float32, shape ``spec.slot_shape()``) as ``flow/frames.py`` says.

    :raises DecodeError: the surface cannot be converted."""
    height, width = spec.resized()
    if picture.rotation % 180:
        height, width = width, height
    try:
        planes, colour = _planes(picture.surface)
        small = _shrink(planes, colour.bits, height, width)
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(
            f"a picture of {picture.width} x {picture.height} in the pixel format "
            f"{picture.surface.format.name} cannot be converted: {error}"
        ) from error
    top, left = spec.corner()
    turned = [np.rot90(plane, -picture.rotation // 90) for plane in small]
    cut = [plane[top : top + spec.height, left : left + spec.width] for plane in turned]
    _paint(cut, spec, colour, out if spec.layout == "nchw" else np.moveaxis(out, -1, 0))


def _planes(frame: av.VideoFrame) -> tuple[list[Plane], Colour]:
    """The colour planes (one for grey) and what their values mean.

    Planar YUV and grey, little-endian, of 8 to 16 bits: views of the frame, whose alpha is not looked at.
    Other YUV (nv12, p010, packed, big-endian) is taken apart by swscale first, at its own chroma size and
    depth. RGB, palettes, XYZ and bitmaps become 8-bit R, G, B."""
    shape = frame.format
    if shape.is_rgb or shape.has_palette or shape.is_bayer or shape.name.startswith(("mono", "xyz")):
        rgb = np.moveaxis(frame.to_ndarray(format="rgb24", threads=1), -1, 0)
        return [np.ascontiguousarray(plane) for plane in rgb], Colour("rgb", full=True)
    unspecified: Matrix = "bt709" if frame.height >= 720 else "bt601"
    full = frame.color_range == ColorRange.JPEG or shape.name.startswith("yuvj")
    if shape.name.startswith("yaf"):
        raise ValueError("swscale aborts the process on it")
    if not _DIRECT.match(shape.name):
        span = ColorRange.JPEG if full else ColorRange.MPEG
        frame = frame.reformat(
            format=_planar_form(shape), src_color_range=span, dst_color_range=span, threads=1
        )
    bits = frame.format.components[0].bits
    planes = [_values(plane, np.uint8 if bits == 8 else np.uint16) for plane in frame.planes[:3]]
    return planes, Colour(_MATRICES.get(frame.colorspace, unspecified), full, bits)


def _values(plane: VideoPlane, kind: type[np.uint8] | type[np.uint16]) -> Plane:
    """A view of the plane's values without the padding of its rows."""
    flat: Plane = np.frombuffer(plane, kind)  # type: ignore[call-overload]  # av's stubs lack the buffer protocol
    return flat.reshape(-1, plane.line_size // flat.itemsize)[: plane.height, : plane.width]


def _planar_form(shape: av.VideoFormat) -> str:
    """The planar, little-endian pixel format with the chroma size and depth of ``shape``."""
    bits = shape.components[0].bits
    depth = "" if bits <= 8 else f"{bits if bits in _DEPTHS else 16}le"
    if len(shape.components) < 3:
        return f"gray{depth}"
    return f"yuv{_CHROMA.get((shape.chroma_width(64), shape.chroma_height(64)), 444)}p{depth}"


def _shrink(planes: list[Plane], bits: int, height: int, width: int) -> list[Plane]:
    """The planes at the size asked for, their values shifted up to 16 bits.

    Each plane goes by itself, as grey: given the whole frame, swscale would move the chroma by its siting."""
    form = "gray8" if bits == 8 else f"gray{bits}le"
    try:
        scalers = _scalers.pop()
    except IndexError:
        scalers = (VideoReformatter(), VideoReformatter())
    small = []
    for number, plane in enumerate(planes):
        grey = av.VideoFrame.from_numpy_buffer(plane, format=form)  # no copy
        scaler = _TINY_SCALER if min(plane.shape) < _TINY else _SCALER
        # One thread: the readers are the parallelism, and more would only double the CPU time.
        done = (
            scalers[number > 0]
            .reformat(grey, width, height, "gray16le", interpolation=scaler, threads=1)
            .planes[0]
        )
        small.append(_values(done, np.uint16))
    _scalers.append(scalers)  # those that raised are not used again
    return small


@lru_cache(maxsize=64)
def _table(spec: InputSpec, colour: Colour) -> tuple[Slots, Slots, Slots]:
    """(3, 4) from 16-bit planes to the model's channels; the lower and upper bound of each channel, (3,)."""
    table = colour.transform()
    table[:, :3] /= 2 ** (16 - colour.bits)
    if spec.channels == "bgr":
        table = table[::-1].copy()
    mean, scale = np.asarray(spec.mean, np.float64), np.asarray(spec.scale, np.float64)
    table[:, 3] -= mean
    table *= scale[:, None]
    ends = np.stack([-mean * scale, (255.0 - mean) * scale])
    return table.astype(np.float32), ends.min(axis=0).astype(np.float32), ends.max(axis=0).astype(np.float32)


def _paint(planes: list[Plane], spec: InputSpec, colour: Colour, out: Slots) -> None:
    """Matrix, range, clip, mean and scale into ``out`` (3, height, width), which may be strided."""
    table, low, high = _table(spec, colour)
    floats = [plane.astype(np.float32) for plane in planes]
    part = np.empty_like(floats[0])
    for channel in range(3):
        total = floats[0] * table[channel, 0]
        offset = table[channel, 3]
        for chroma in (1, 2):
            factor = table[channel, chroma]
            if factor == 0.0:
                continue
            if len(floats) == 1:
                offset = offset + factor * _NO_CHROMA  # a grey picture
            else:
                total += np.multiply(floats[chroma], factor, out=part)
        total += offset
        np.clip(total, low[channel], high[channel], out=out[channel])


class NumpyPool:
    """A ``FramePool`` whose slots are one float32 array.

    Slots are lent in ring order, so that the frames of a batch are neighbours as a rule and ``gather`` is a
    view; otherwise it copies them once."""

    def __init__(self, spec: InputSpec, slots: int, live_reserve: int) -> None:
        self._ring = SlotRing(slots, live_reserve)
        self.spec = spec
        self.slots = slots
        try:
            self._pixels: Slots = np.empty((slots, *spec.slot_shape()), np.float32)
            self._scratch: Slots = np.empty_like(self._pixels)  # costs memory only when it is used
        except MemoryError as error:
            raise BackendError(
                f"no memory for a frame pool of {slots} slots of {spec.slot_shape()}"
            ) from error

    @property
    def free(self) -> int:
        """Slots that are not leased."""
        return self._ring.free

    def store(
        self, picture: Picture, *, stream: int, sample: int, live: bool, timeout: float | None
    ) -> Frame | None:
        """See ``FramePool.store``."""
        frame = Frame(self, -1, stream, sample, picture.time_s, picture.arrived, live)
        if not self._ring.lease(frame, timeout):
            return None
        try:
            convert(picture, self.spec, self._pixels[frame.slot])
        except BaseException:
            self.release(frame)
            raise
        return frame

    def release(self, frame: Frame) -> None:
        """See ``FramePool.release``."""
        if frame.pool is not self:
            raise ValueError(f"{frame!r} does not hold its slot (any more)")
        self._ring.give_back(frame, lambda slot: None)

    def gather(self, frames: list[Frame]) -> Slots:
        """See ``FramePool.gather``. Shape (frames, *slot)."""
        slots = [frame.slot for frame in frames]
        first, count = slots[0], len(slots)
        if slots == list(range(first, first + count)):
            return self._pixels[first : first + count]
        return np.take(self._pixels, slots, axis=0, out=self._scratch[:count], mode="clip")

    def close(self) -> None:
        """See ``FramePool.close``."""
        self._ring.close()
