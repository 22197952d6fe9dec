"""Pictures to slots of the model's input tensor."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pipeline.flow.decode import Picture

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr"]
Crop = Literal["stretch", "center"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model wants to see: a slot is one picture of this form, float32.

    ``height`` and ``width`` are the model's, in pixels. ``crop`` is ``stretch`` (the whole picture, its aspect
    ratio not kept) or ``center`` (scaled to ``resize``, then the middle cut out). ``resize`` is (height, width)
    of the picture before the crop; equal to the model's size when nothing is cut. A value v of 0..255 becomes
    (v - mean[c]) * scale[c], c in the order of ``channels``."""

    height: int
    width: int
    layout: Layout = "nchw"
    channels: Channels = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop: Crop = "stretch"
    resize: tuple[int, int] | None = None

    def slot_shape(self) -> tuple[int, int, int]:
        """Shape of one slot: (3, H, W) or (H, W, 3)."""
        size = (self.height, self.width)
        return (3, *size) if self.layout == "nchw" else (*size, 3)


@dataclass(slots=True)
class Frame:
    """A lease on one slot, holding one screened picture.

    ``stream`` is the worker's number of the stream, ``sample`` the number of the sample in it (a sample has one
    frame per model). ``time_s`` is stream time, ``arrived`` monotonic seconds. ``slot`` indexes the pool."""

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
