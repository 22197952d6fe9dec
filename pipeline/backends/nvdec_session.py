"""One PyNvVideoCodec decoder: what it is asked, what it answers, how it fails.

Its rules, each shown by a test on a fake driver: with a stream of one's own it never waits on the host; what
one call gives is overwritten by the next, in that stream's order; frames dangle once it is gone; an empty
packet gives all that is buffered, and it goes on at a keyframe.

Pictures come in the order in which they are shown, but NVDEC's parser hands out the packets' timestamps in
the order in which it was fed (seen on an H200, driver 580): with B pictures they belong to others. Messages
inside the stream stay with their picture. So H.264 and HEVC carry the tag in one; the other codecs show a
picture for each packet, in order."""

import atexit
import importlib
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av

from pipeline.backends.annexb import TAGGED, tag_of, tagged
from pipeline.backends.device_surface import DeviceSurface, semi_planar
from pipeline.backends.nvdec_memory import DecoderMemory
from pipeline.errors import BackendError, DecodeError, SourceNoRoom, SourceUnsupported
from pipeline.flow.resize import Colour

CODECS = {"h264": "H264", "hevc": "HEVC", "vp9": "VP9", "av1": "AV1", "vp8": "VP8"}
FORMS = {"yuv420p": 8, "yuvj420p": 8, "nv12": 8, "yuv420p10le": 10, "p010le": 10, "yuv420p12le": 12}
"""Pixel formats (FFmpeg's names) whose pictures come out as NV12 or P016, and their bits."""

IDLE = 16
"""Decoders that ended sessions leave for files of the same kind: to open one takes 60 to 90 ms of a core (on
an H200's host), as much as to decode two seconds of full HD."""

_DISCONTINUITY = 4
_USER_DATA = 5
_DEVICE_LOST = range(700, 800)
_OUT_OF_MEMORY = 2


@dataclass(frozen=True, slots=True)
class Sequence:
    """What all pictures of a sequence have in common. ``header`` tells one sequence from another."""

    codec: str
    header: bytes
    width: int
    height: int
    form: str
    colour: Colour
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as decoders use it: its number, how CUDA streams are made, and its memory."""

    number: int
    open_stream: Callable[[], Any]
    memory: DecoderMemory


def load_vendor() -> Any:
    """The PyNvVideoCodec module. :raises BackendError: it cannot be imported; says why and the cure."""
    try:
        return importlib.import_module("PyNvVideoCodec")
    except ImportError as error:
        raise BackendError(f'NVDEC needs PyNvVideoCodec ({error}): pip install "framewarden[gpu]"') from error
    except RuntimeError as error:  # how it reports a missing driver
        raise BackendError(
            f"NVDEC cannot be used: {str(error).splitlines()[0]}; install the NVIDIA driver, and in a "
            "container set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        ) from error


def check_supported(gpu: int, codec: str, form: str, width: int, height: int) -> None:
    """:raises SourceUnsupported: NVDEC on this GPU does not decode that; says why."""
    what = f"{codec} {form or 'of unknown form'} {width} x {height}"
    if codec not in CODECS:
        raise SourceUnsupported(f"{what}: NVDEC takes {', '.join(CODECS)}; use device: auto or cpu for it")
    if form and form not in FORMS:
        raise SourceUnsupported(
            f"{what}: only 4:2:0 of 8, 10 or 12 bits is decoded on the GPU; use device: auto or cpu for it"
        )
    caps = _caps(gpu, codec, FORMS.get(form, 8))
    if not caps["supported"]:
        raise SourceUnsupported(
            f"{what}: this GPU's NVDEC does not decode it; use device: auto or cpu for it"
        )
    blocks = -(-width // 16) * -(-height // 16)
    small = width < caps["width_min"] or height < caps["height_min"]
    large = width > caps["width_max"] or height > caps["height_max"] or blocks > caps["mb_num_max"]
    if small or large:
        raise SourceUnsupported(
            f"{what}: this GPU's NVDEC takes {caps['width_min']} x {caps['height_min']} to "
            f"{caps['width_max']} x {caps['height_max']}; use device: auto or cpu for it"
        )


@lru_cache(maxsize=64)
def _caps(gpu: int, codec: str, bits: int) -> dict[str, int]:
    vendor = load_vendor()
    with mapped(vendor, f"ask what it decodes of {codec}"):
        colours = vendor.cudaVideoChromaFormat.__members__["420"]
        found: dict[str, int] = vendor.GetDecoderCaps(
            gpu, getattr(vendor.cudaVideoCodec, CODECS[codec]), colours, bits
        )
    return found


class Session:
    """A vendor's decoder and its stream. For one thread at a time."""

    def __init__(self, sequence: Sequence, card: Card) -> None:
        """:raises SourceUnsupported: not on this GPU."""
        check_supported(card.number, sequence.codec, sequence.form, sequence.width, sequence.height)
        self.sequence = sequence
        self.stream = card.open_stream()
        self._card = card
        self._vendor = load_vendor()
        self._decoder: Any = None  # until the first packet

    def feed(self, data: bytes, tag: int, *, after_gap: bool = False) -> list[tuple[int, DeviceSurface]]:
        """Tag and surface of the pictures that are ready, valid until the next call."""
        codec = self.sequence.codec
        held = av.Packet(tagged(codec, data, tag) if codec in TAGGED else data)  # stays until Decode returns
        packet = self._vendor.PacketData()
        packet.bsl, packet.bsl_data, packet.pts = held.buffer_size, held.buffer_ptr, tag
        if after_gap:
            packet.decode_flag = _DISCONTINUITY
        return self._decode(packet)

    def drain(self) -> list[tuple[int, DeviceSurface]]:
        """All that is buffered. The next packet must be a keyframe."""
        if self._decoder is None:
            return []
        packet = self._vendor.PacketData()
        packet.bsl, packet.bsl_data = 0, 0
        return self._decode(packet)

    def close(self, *, sound: bool = True) -> None:
        """Wait for the kernels that still read its buffers, then free it; a sound one is kept for others."""
        self.stream.synchronize()
        if not sound or self._decoder is None:
            self.free()
            return
        try:
            self.drain()
        except DecodeError:
            self.free()
            return
        with _idle_lock:
            _idle.append(self)
            spare = _idle.popleft() if len(_idle) > IDLE else None
        if spare is not None:
            spare.free()

    def free(self) -> None:
        """Give its memory back. No work on its surfaces may be left."""
        if self._decoder is not None:
            self._decoder = None
            self._card.memory.closed()

    def fits(self, card: Card, sequence: Sequence) -> bool:
        """Whether it may go on with the pictures of ``sequence``."""
        return self._card == card and self.sequence.header == sequence.header

    def _decode(self, packet: Any) -> list[tuple[int, DeviceSurface]]:
        if self._decoder is None:
            return self._first(packet)
        with mapped(self._vendor, "decode"):
            return [(self._tag(frame), self._surface(frame)) for frame in self._decoder.Decode(packet)]

    def _first(self, packet: Any) -> list[tuple[int, DeviceSurface]]:
        """Open the decoder and feed it its first packet, with which it takes its memory.

        :raises SourceNoRoom: there is none for it."""
        about, memory = self.sequence, self._card.memory
        with memory.opening(about.codec, about.width, about.height, FORMS[about.form], close_idle):
            decoder = self._create()
            with mapped(self._vendor, f"open a decoder for {about.codec} {about.width} x {about.height}"):
                frames = decoder.Decode(packet)
        self._decoder = decoder
        return [(self._tag(frame), self._surface(frame)) for frame in frames]

    def _create(self) -> Any:
        vendor, about = self._vendor, self.sequence
        with mapped(vendor, f"open a decoder for {about.codec} {about.width} x {about.height}"):
            return vendor.CreateDecoder(
                gpuid=self._card.number,
                codec=getattr(vendor.cudaVideoCodec, CODECS[about.codec]),
                cudacontext=0,  # the primary one, which CuPy uses, too
                cudastream=self.stream.ptr,
                usedevicememory=True,
                maxwidth=0,
                maxheight=0,
                enableSEIMessage=int(about.codec in TAGGED),
                latency=vendor.DisplayDecodeLatencyType.NATIVE,
            )

    def _tag(self, frame: Any) -> int:
        """Of the packet that this is the picture of; -1: none."""
        if self.sequence.codec not in TAGGED:
            return int(frame.timestamp)
        # Those of pictures that were passed over come with the next one, before its own.
        for about, message in reversed(frame.getSEIMessage() or []):
            if about["sei_type"] == _USER_DATA and (tag := tag_of(bytes(message))) is not None:
                return tag
        return -1

    def _surface(self, frame: Any) -> DeviceSurface:
        """Both planes of a frame: rows of an even number of values, the chroma right below the luma."""
        sequence, deep = self.sequence, FORMS[self.sequence.form] > 8
        pitch = int(frame.shape[1])
        given = (frame.format.name, pitch, int(self._decoder.GetHeight()))
        expected = ("P016" if deep else "NV12", sequence.width + sequence.width % 2, sequence.height)
        if given != expected:
            raise DecodeError(f"NVDEC gave a picture of {given}, not of {expected}: it is damaged")
        return semi_planar(
            int(frame.GetPtrToPlane(0)),
            sequence.height,
            sequence.width,
            pitch,
            sequence.colour,
            deep=deep,
            stream=self.stream,
            keep=frame,
        )


_idle: deque[Session] = deque()
_idle_lock = threading.Lock()


def open_session(sequence: Sequence, card: Card) -> Session:
    """An idle decoder of the same sequence header, or a new one."""
    with _idle_lock:
        for session in _idle:
            if session.fits(card, sequence):
                _idle.remove(session)
                session.sequence = sequence
                return session
    return Session(sequence, card)


@atexit.register  # before the interpreter takes the driver's library away
def close_idle() -> None:
    """Free what ended sessions have left behind."""
    with _idle_lock:
        for session in _idle:
            session.free()
        _idle.clear()


@contextmanager
def mapped(vendor: Any, what: str) -> Iterator[None]:
    """The vendor's errors as ours."""
    try:
        yield
    except vendor.PyNvVCExceptionUnsupported as error:
        raise SourceUnsupported(f"NVDEC cannot {what}: {_cause(error)}") from error
    except (vendor.PyNvVCException, RuntimeError) as error:
        number = int(found[1]) if (found := re.search(r"Error code : (\d+)", str(error))) else 0
        if number == _OUT_OF_MEMORY:
            raise SourceNoRoom(
                f"NVDEC cannot {what}: the GPU's memory is full; run fewer streams on this GPU"
            ) from error
        if number in _DEVICE_LOST or not found:
            raise BackendError(f"NVDEC failed to {what}: {_cause(error)}") from error
        raise DecodeError(f"NVDEC failed to {what}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The one line of the vendor's four that says what happened."""
    text = str(error)
    found = re.search(r"Error Type : (.*)", text)
    return found[1] if found else text.splitlines()[0] if text else type(error).__name__
