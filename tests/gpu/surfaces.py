"""Pictures of a GPU decoder in main memory, for tests that compare pixels."""

import ctypes
import importlib
from collections.abc import Callable, Iterable

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.backends.device_surface import DevicePlane, DeviceSurface
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Packet

Fetch = Callable[[DeviceSurface, int, int], bytes]
"""Bytes of device memory, once the surface's stream has written them: (surface, address, size)."""


def from_gpu(surface: DeviceSurface, address: int, size: int) -> bytes:
    """A ``Fetch`` for a real GPU."""
    cupy = importlib.import_module("cupy")
    surface.stream.synchronize()
    memory = cupy.cuda.UnownedMemory(address, size, surface, cupy.cuda.runtime.getDevice())
    values = cupy.ndarray((size,), np.uint8, cupy.cuda.MemoryPointer(memory, 0))
    return bytes(values.get())


def from_memory(surface: DeviceSurface, address: int, size: int) -> bytes:
    """A ``Fetch`` for surfaces that lie in main memory: the fake driver's."""
    return ctypes.string_at(address, size)


def host_frame(surface: DeviceSurface, fetch: Fetch = from_gpu) -> av.VideoFrame:
    """The surface as ``av.VideoFrame`` in yuv420p or its 10 or 12 bit kin, colours tagged."""
    bits = surface.colour.bits
    luma = surface.planes[0]
    frame = av.VideoFrame(luma.width, luma.height, "yuv420p" if bits == 8 else f"yuv420p{bits}le")
    for plane, place in zip(frame.planes, surface.planes, strict=True):
        values = _values(surface, place, fetch)
        room = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        room[:, : plane.width] = values
        plane.update(room.tobytes())
    frame.colorspace = {"bt601": 6, "bt709": 1, "bt2020": 9}[surface.colour.matrix]
    frame.color_range = 2 if surface.colour.full else 1
    return frame


def _values(
    surface: DeviceSurface, plane: DevicePlane, fetch: Fetch
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    kind = np.dtype(np.uint16 if surface.deep else np.uint8)
    count = (plane.height - 1) * plane.pitch + (plane.width - 1) * plane.step + 1
    flat = np.frombuffer(fetch(surface, plane.address, count * kind.itemsize), kind)
    padded = np.zeros(plane.height * plane.pitch, kind)
    padded[:count] = flat
    rows = padded.reshape(plane.height, plane.pitch)[:, : (plane.width - 1) * plane.step + 1 : plane.step]
    return np.ascontiguousarray(rows >> surface.shift)


class HostCopies:
    """A GPU decoder whose pictures stay valid: each is copied to main memory before the next call."""

    def __init__(self, decoder: Decoder, fetch: Fetch = from_gpu) -> None:
        self._decoder = decoder
        self._fetch = fetch

    @property
    def damaged(self) -> int:
        return self._decoder.damaged

    def still(self, packet: Packet) -> Picture | None:
        picture = self._decoder.still(packet)
        return None if picture is None else self._copied(picture)

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        for picture in self._decoder.decode(packet, wanted=wanted):
            yield self._copied(picture)

    def flush(self) -> Iterable[Picture]:
        for picture in self._decoder.flush():
            yield self._copied(picture)

    def reset(self) -> None:
        self._decoder.reset()

    def close(self) -> None:
        self._decoder.close()

    def _copied(self, picture: Picture) -> Picture:
        frame = host_frame(picture.surface, self._fetch)
        return Picture(
            picture.time_s, picture.width, picture.height, picture.arrived, picture.rotation, frame
        )
