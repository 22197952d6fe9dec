"""The frame pool in GPU memory: one kernel from the decoded surface into the slot, no copy through the host.

``store`` queues the kernel on the decoder's stream and returns at once; ``gather`` lets the calling thread's
current CuPy stream wait for its slots and returns a CuPy array of them; ``release`` notes on that stream that
they have been read. Whoever works on another stream than that must make it wait (``stream.wait_event``) and
must have its own work done, or waited for, before the frames are released."""

from typing import Any

import av

from pipeline.backends.convert_cuda import BLOCK, arguments, grid_of, kernel_of
from pipeline.backends.cuda_device import Device, open_device
from pipeline.backends.device_surface import DeviceSurface
from pipeline.backends.frames_numpy import _planes as planes_of
from pipeline.backends.slot_protocol import SlotProtocol
from pipeline.backends.slot_ring import SlotRing
from pipeline.errors import DecodeError
from pipeline.flow.decode import Picture
from pipeline.flow.frames import Frame, InputSpec


def open_pool(spec: InputSpec, slots: int, *, live_reserve: int = 0, gpu: int = 0) -> "CupyPool":
    """A pool of ``slots`` slots on a GPU, float32, or float16 where ``spec`` says ``half``.

    Frames of files leave ``live_reserve`` slots free for live ones, which do not wait.

    :raises BackendError: the GPU cannot be used, or has no memory for them."""
    return CupyPool(spec, slots, live_reserve, open_device(gpu))


class CupyPool:
    """A ``FramePool``; its slots are one array on ``device``.

    A ``surface`` is a ``DeviceSurface``, or an ``av.VideoFrame`` of the software decoder, which is uploaded:
    so a stream that the GPU cannot decode still has its frames there."""

    def __init__(self, spec: InputSpec, slots: int, live_reserve: int, device: Device) -> None:
        self._ring = SlotRing(slots, live_reserve)
        self.spec = spec
        self.slots = slots
        self._device = device
        self._pixels = device.empty((slots, *spec.slot_shape()), half=spec.half)
        self._scratch = device.empty((slots, *spec.slot_shape()), half=spec.half)
        self._protocol = SlotProtocol(slots, device.event)

    @property
    def free(self) -> int:
        """Slots that are not leased."""
        return self._ring.free

    def store(
        self, picture: Picture, *, stream: int, sample: int, live: bool, timeout: float | None
    ) -> Frame | None:
        """See ``FramePool.store``. Returns when the conversion is queued, before it is done."""
        frame = Frame(self, -1, stream, sample, picture.time_s, picture.arrived, live)
        if not self._ring.lease(frame, timeout):
            return None
        try:
            self._write(picture, frame.slot)
        except BaseException:
            self.release(frame)
            raise
        return frame

    def release(self, frame: Frame) -> None:
        """See ``FramePool.release``. All that reads the slot must have been queued."""
        if frame.pool is not self:
            raise ValueError(f"{frame!r} does not hold its slot (any more)")
        self._ring.give_back(frame, self._settle)

    def gather(self, frames: list[Frame]) -> Any:
        """See ``FramePool.gather``. A CuPy array (frames, *slot), in order on the thread's current stream."""
        stream = self._device.current_stream()
        slots = [frame.slot for frame in frames]
        for slot in slots:
            self._protocol.read(slot, stream)
        first, count = slots[0], len(slots)
        if slots == list(range(first, first + count)):
            return self._pixels[first : first + count]
        for place, slot in enumerate(slots):
            self._device.copy(self._scratch[place], self._pixels[slot], stream)
        return self._scratch[:count]

    def close(self) -> None:
        """See ``FramePool.close``."""
        self._ring.close()

    def _settle(self, slot: int) -> None:
        if self._protocol.state(slot) != "free":  # free: no kernel was queued for this lease
            self._protocol.free(slot)

    def _write(self, picture: Picture, slot: int) -> None:
        surface = self._surface(picture)
        out = self._device.address(self._pixels[slot])
        to = arguments(surface, self.spec, picture.rotation, out)
        self._protocol.write(slot, surface.stream)
        self._device.launch(kernel_of(surface, self.spec.half), grid_of(self.spec), BLOCK, to, surface.stream)
        self._protocol.written(slot)

    def _surface(self, picture: Picture) -> DeviceSurface:
        if isinstance(picture.surface, DeviceSurface):
            return picture.surface
        try:
            planes, colour = planes_of(picture.surface)
        except (av.FFmpegError, ValueError) as error:
            raise DecodeError(
                f"a picture of {picture.width} x {picture.height} in the pixel format "
                f"{picture.surface.format.name} cannot be converted: {error}"
            ) from error
        return self._device.upload(planes, colour)
