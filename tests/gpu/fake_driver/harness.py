"""What the scenarios of a child process share: the fake driver's switches and counters, and what was seen.

The real PyNvVideoCodec wheel and our decoder run here; only the driver under them is fake."""

import ctypes
import gc
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pipeline.backends.annexb import TAGGED, Framing, tagged
from pipeline.backends.decode_nvdec import NvdecDecoder, open_decoder
from pipeline.backends.device_surface import DeviceSurface
from pipeline.backends.nvdec_memory import DecoderMemory
from pipeline.backends.nvdec_session import Card
from pipeline.errors import DecodeError, FramewardenError
from pipeline.flow.decode import Picture
from pipeline.flow.source import Packet, StreamInfo
from tests.fixtures.media import demux

CUDA = ctypes.CDLL("libcuda.so.1")
CUVID = ctypes.CDLL("libnvcuvid.so.1")
CUDA.fake_log_take.restype = ctypes.c_size_t
SCENARIOS: dict[str, Callable[..., Any]] = {}


def scenario(function: Callable[..., Any]) -> Callable[..., Any]:
    SCENARIOS[function.__name__] = function
    return function


class FakeStream:
    """A stream of the fake driver, as CuPy's: a handle, and a wait for all that was queued."""

    def __init__(self) -> None:
        handle = ctypes.c_void_p()
        CUDA.cuStreamCreate(ctypes.byref(handle), 1)
        self.ptr = int(handle.value or 0)

    def synchronize(self) -> None:
        CUDA.cuStreamSynchronize(ctypes.c_void_p(self.ptr))

    def __del__(self) -> None:
        CUDA.cuStreamDestroy_v2(ctypes.c_void_p(self.ptr))


def free_memory() -> tuple[int, int]:
    """As CuPy tells it of a GPU: bytes free, and all there are."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    CUDA.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


CARD = Card(0, FakeStream, DecoderMemory(free_memory))


def setting(name: str, value: int) -> None:
    """Set one of the fake driver's ``EXPORT int``s."""
    ctypes.c_int.in_dll(CUVID, f"fake_{name}").value = value


def live() -> dict[str, int]:
    """What exists on the fake device."""
    gc.collect()
    counts = {name: ctypes.c_long.in_dll(CUDA, f"fake_live_{name}").value for name in ("bytes", "handles")}
    for name in ("decoders", "parsers", "maps"):
        counts[name] = ctypes.c_long.in_dll(CUVID, f"fake_live_{name}").value
    return counts


def log() -> list[str]:
    """The driver calls since the last time."""
    room = ctypes.create_string_buffer(1 << 22)
    size = CUDA.fake_log_take(room, ctypes.c_size_t(len(room)))
    return room.raw[:size].decode().splitlines()


def prepare(path: str, **settings: int) -> tuple[StreamInfo, list[Packet]]:
    """A clip, and a driver that takes it for what it is."""
    info, packets = demux(path)
    info = replace(info, codec="av1") if info.codec == "libdav1d" else info
    setting("width", info.width)
    setting("height", info.height)
    setting("bits", 10 if "10" in (info.codec_parameters.pix_fmt or "") else 8)
    for name, value in settings.items():
        setting(name, value)
    return info, packets


def opened(info: StreamInfo) -> NvdecDecoder:
    return open_decoder(info, card=CARD)


def luma(picture: Picture) -> int:
    """What the surface shows now, the same in its corners."""
    surface: DeviceSurface = picture.surface
    plane, size = surface.planes[0], 2 if surface.deep else 1
    ends = [(row, column) for row in (0, plane.height - 1) for column in (0, plane.width - 1)]
    values = {
        int.from_bytes(ctypes.string_at(plane.address + size * (row * plane.pitch + column), size), "little")
        for row, column in ends
    }
    assert len(values) == 1, values
    return values.pop() >> surface.shift


def marks(info: StreamInfo, packets: Iterable[Packet]) -> dict[float, int]:
    """The luma that the fake driver gives each packet's picture, by the picture's time."""
    framing = Framing.of(info.codec, bytes(info.codec_parameters.extradata or b""))
    top = 1023 if "10" in info.codec_parameters.pix_fmt else 255
    fed = {}
    for packet in packets:
        data = framing.annex_b(bytes(packet.data), packet.keyframe)
        fed[packet.time_s] = tagged(info.codec, data, packet.pts) if info.codec in TAGGED else data
    return {time_s: sum(data) & top for time_s, data in fed.items()}


def seen(pictures: Iterable[Picture]) -> list[tuple[float, int]]:
    """Time and luma of each picture, read at once, as a kernel on the decoder's stream does."""
    return [(picture.time_s, luma(picture)) for picture in pictures]


def feed(decoder: NvdecDecoder, packets: Iterable[Packet]) -> tuple[list[tuple[float, int]], list[str]]:
    """All pictures to the end, and the errors on the way."""
    found, errors = [], []
    for packet in packets:
        try:
            for picture in decoder.decode(packet):
                found.append((picture.time_s, luma(picture)))
        except DecodeError as error:
            errors.append(str(error))
    return found + seen(decoder.flush()), errors


def refusal(action: Callable[[], Any]) -> list[str]:
    """Class and text of the error that it raises."""
    try:
        action()
    except FramewardenError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]
