"""Pictures to slots of the model's input tensor.

**The conversion**, the same on every device; ``flow/resize.py`` is the reference and the judge:

1. Each plane (Y, U, V, as the decoder gives them) goes straight to the size of the resized picture, rows and
   columns each by themselves. Shrinking weighs the area under a target pixel and half of its neighbours by
   a tent, the nearer the more ("antialiased bilinear"). The models' own packages do that; a plain mean of the
   box moves hard scores by up to 0.17. Enlarging (small pictures, and the chroma of middling ones) is linear
   between pixel centres. Both are exact in real numbers. A chroma plane spans the whole picture, whatever its
   siting; an odd size is no special case.
2. The display rotation, in quarter turns clockwise. The size in 1. is that before the turn.
3. The crop: the middle ``height`` x ``width``.
4. Range and matrix give R, G, B on a scale of 0..255: BT.601, BT.709 or BT.2020 (non-constant luminance),
   full or limited, as the picture says. If it does not: BT.709 from 720 coded lines up, BT.601 below, and
   limited. A picture without chroma is grey. High dynamic range is not tone-mapped.
5. Clipped to 0..255, put into the model's channel order, ``(v - mean) * scale``, float32, into its layout.

Nothing is rounded to 8 bits on the way by definition; a backend may work with fewer bits as long as it stays
within ``MEAN_ERROR`` and ``WORST_ERROR`` of the reference, on the scale of 0..255, on natural pictures.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pipeline.flow.decode import Picture

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr"]
Crop = Literal["stretch", "center"]

MEAN_ERROR = 1.0
WORST_ERROR = 4.0


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model wants to see: a slot is one picture of this form, float32, or float16 with ``half``, which
    an engine on a GPU may ask for.

    ``height`` and ``width`` are the model's, in pixels. ``crop`` is ``stretch`` (the whole picture, its
    aspect ratio not kept) or ``center`` (scaled to ``resize``, then the middle cut out). ``resize`` is
    (height, width) of the picture before the crop; None is the model's size: nothing is cut. A value v of
    0..255 becomes (v - mean[c]) * scale[c], c in the order of ``channels``."""

    height: int
    width: int
    layout: Layout = "nchw"
    channels: Channels = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop: Crop = "stretch"
    resize: tuple[int, int] | None = None
    half: bool = False

    def slot_shape(self) -> tuple[int, int, int]:
        """Shape of one slot: (3, H, W) or (H, W, 3)."""
        size = (self.height, self.width)
        return (3, *size) if self.layout == "nchw" else (*size, 3)

    def resized(self) -> tuple[int, int]:
        """(height, width) of the turned picture before the crop."""
        return self.resize or (self.height, self.width)

    def corner(self) -> tuple[int, int]:
        """(top, left) of the crop in the resized picture."""
        height, width = self.resized()
        return (height - self.height) // 2, (width - self.width) // 2


@dataclass(slots=True)
class Frame:
    """A lease on one slot, holding one screened picture.

    ``stream`` is the worker's number of the stream, ``sample`` the number of the sample in it (a sample has
    one frame per model). ``time_s`` is stream time, ``arrived`` monotonic seconds. ``slot`` is its place in
    the pool."""

    pool: "FramePool" = field(repr=False)
    slot: int
    stream: int
    sample: int
    time_s: float
    arrived: float
    live: bool

    def release(self) -> None:
        """Give the slot back. A second release raises ``ValueError``."""
        self.pool.release(self)


class FramePool(Protocol):
    """All slots of one model on one device, allocated at start: the only bound between decode and inference.

    Thread-safe: many readers store, one inference thread gathers and releases."""

    spec: InputSpec
    slots: int

    @property
    def free(self) -> int:
        """Slots that are not leased; equals ``slots`` after every graceful end."""

    def store(
        self, picture: Picture, *, stream: int, sample: int, live: bool, timeout: float | None
    ) -> Frame | None:
        """Convert a picture into a free slot, in one pass.

        Waits up to ``timeout`` seconds for a slot (None: until one is free or the pool is closed; 0: not at
        all) and returns None when there was none.

        :raises Closed: the pool was closed.
        :raises DecodeError: the surface's pixel format cannot be converted."""

    def release(self, frame: Frame) -> None:
        """Give a slot back; twice raises ``ValueError``."""

    def gather(self, frames: list[Frame]) -> Any:
        """The batch tensor of these frames, first axis = frames, on the pool's device; opaque to others.

        Valid until the next ``gather``."""

    def close(self) -> None:
        """Wake every waiting reader with ``Closed``."""
