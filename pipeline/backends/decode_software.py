"""Packets to pictures by libavcodec, on the CPU: one thread a context, memory only while it is needed.

``still`` has a context for each keyframe by itself, so that a hundred streams hold none (10 to 30 MB each).
One that did its work well is kept for another keyframe of H.264 with the very same parameters: opening one,
and memory that is touched anew, cost 1 ms next to the 15 to 40 ms of a 1080p keyframe. Nothing that one
stream sent can leak into another's picture: it is flushed, and what flushing leaves in it (parameter sets)
is what the other sends, byte by byte (``_like``). Only a crash in a context that another stream had
corrupted unnoticed would be put down to the wrong one. ``TURNS`` bounds how many are at work in the process.
``decode`` keeps one context of the stream's own until ``flush``, ``reset``, ``close`` or damage frees it.

What libavcodec notices of damage differs: H.264, MPEG-2 and MPEG-4 mark what they conceal, MJPEG raises when
it is asked to (``err_detect``), HEVC, VP9 and AV1 notice broken framing but not every flipped bit.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from pipeline.backends import annexb
from pipeline.backends.ffmpeg_open import clockwise
from pipeline.errors import DecodeError, SourceUnsupported
from pipeline.flow.decode import Picture
from pipeline.flow.source import Packet, StreamInfo

TURNS = (os.cpu_count() or 1) + 1
"""Keyframes that may be in decoding at the same time in this process: one a core, and one to hand over."""

MAX_PIXELS = 8192 * 8192
"""A sequence header that asks for more is damage or an attack: libavcodec refuses it before it allocates."""

UNFILTERED_WIDTH = 1280
"""From this width on, in pixels, a keyframe that is decoded by itself is not deblocked."""

MAX_IN_FLIGHT = 512
"""Packets whose picture may still come; far more than any codec reorders."""

_LIBRARIES = {"av1": "libdav1d"}  # FFmpeg's own "av1" only drives hardware
_START_CODES = {"h264": "h264", "hevc": "hevc", "mpeg2video": "mpeg2video", "mpeg1video": "mpeg2video"}
USES = 250
"""Keyframes after which a context is opened anew: its memory for pictures grows with those that are out at a
time, and is given back only so."""
START = b"\0\0\1"
_SHARED = "h264"  # the codec of which it is known what a flushed context still remembers
_STRICT = {"mjpeg": "explode", "mjpegb": "explode"}  # else a cut picture comes out grey and unmarked


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a decoder must know before the first packet."""

    codec: str
    extradata: bytes = b""
    width: int = 0
    height: int = 0
    tag: str = ""
    sample_bits: int = 0
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, info: StreamInfo) -> "Parameters":
        """Copied, so that nothing of the source's own context is touched later."""
        context, codec = info.codec_parameters, _LIBRARIES.get(info.codec, info.codec)
        most = info.max_pixels or MAX_PIXELS
        if context is None:
            return cls(codec, width=info.width, height=info.height, max_pixels=most)
        tag, bits = context.codec_tag or "", context.bits_per_coded_sample or 0
        return cls(codec, bytes(context.extradata or b""), info.width, info.height, tag, bits, most)

    def open(self, *, alone: bool = False) -> av.VideoCodecContext:
        """A fresh context, single-threaded: many streams share the cores better than one picture does.

        ``alone``: for one keyframe. A large one is then not deblocked, which saves 6 % of the decoding:
        nothing depends on it, and at a fifth of its size, which is what a model sees, little of it is left
        (scores of flagged cards and photographs moved by at most 0.011 at the quality of cameras)."""
        context = Codec(self.codec, "r").create("video")
        if self.extradata:
            context.extradata = self.extradata
        if self.width and self.height:
            context.width, context.height = self.width, self.height
        if len(self.tag) == 4 and self.tag.isascii() and self.tag.isprintable():
            context.codec_tag = self.tag
        if self.sample_bits:
            context.bits_per_coded_sample = self.sample_bits
        context.thread_count, context.thread_type = 1, "NONE"
        context.options = {"max_pixels": str(self.max_pixels)}
        if alone and self.codec == "h264" and self.width >= UNFILTERED_WIDTH:
            context.options["skip_loop_filter"] = "all"
        if self.codec in _STRICT:
            context.options["err_detect"] = _STRICT[self.codec]
        return context

    def framed(self) -> bool:
        """Whether NAL units carry a length instead of a start code (MP4, Matroska, RTMP)."""
        return self.extradata[:1] == b"\x01"


def decoder_available(codec: str) -> bool:
    """Whether this FFmpeg decodes ``codec`` (FFmpeg's name) to pictures in software."""
    try:
        return bool(Codec(_LIBRARIES.get(codec, codec), "r").type == "video")
    except UnknownCodecError:
        return False


def open_decoder(info: StreamInfo) -> "SoftwareDecoder":
    """The decoder of a session.

    :raises SourceUnsupported: no decoder for this codec."""
    if not decoder_available(info.codec):
        raise SourceUnsupported(
            f"codec {info.codec}: this FFmpeg has no software decoder for it; send H.264, HEVC, VP9 or AV1"
        )
    return SoftwareDecoder(info)


class SoftwareDecoder:
    """Implements ``flow.decode.Decoder``; ``surface`` is an ``av.VideoFrame``. For one thread at a time."""

    def __init__(self, info: StreamInfo) -> None:
        self.damaged = 0
        self._rotation = info.rotation
        self._first = self._now = Parameters.of(info)
        self._context: av.VideoCodecContext | None = None
        self._opened_with = self._now
        self._in_flight: dict[int, tuple[float, float]] = {}
        self._keyframe: tuple[int, float] = (0, 0.0)
        self._from_s = 0.0

    def still(self, packet: Packet) -> Picture | None:
        self._adopt(packet)
        try:
            frames = _contexts.alone(self._now, packet)
        except DecodeError:
            self.damaged += 1
            raise
        if not frames:
            return None
        if frames[0].is_corrupt:
            raise self._concealed(packet.time_s)
        return self._picture(frames[0], packet.time_s, packet.arrived)

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """Decodes at once; iterating gives the pictures, then raises the error if there was one."""
        self._adopt(packet)
        earlier: list[Picture] = []
        failure: DecodeError | None = None
        if packet.keyframe and self._now != self._opened_with:
            earlier, failure = self._take(self._rest())
            self.reset()
        if self._context is None:
            if not packet.keyframe:
                return _given(earlier, failure)
            self._in_flight.clear()
            self._context, self._opened_with, self._from_s = self._now.open(), self._now, packet.time_s
        self._context.skip_frame = "DEFAULT" if wanted else "NONREF"
        pictures, error = self._feed(self._context, packet)
        return _given(earlier + pictures, failure or error)

    def flush(self) -> Iterable[Picture]:
        pictures, failure = self._take(self._rest())
        self.reset()
        return _given(pictures, failure)

    def reset(self) -> None:
        self._context = None
        self._in_flight.clear()

    def close(self) -> None:
        self.reset()

    def _adopt(self, packet: Packet) -> None:
        """Follow the stream to new parameters: sent with the packet, or another codec in the same MPEG-TS."""
        if packet.parameters_changed and packet.data.has_sidedata("new_extradata"):
            sent = bytes(packet.data.get_sidedata("new_extradata"))
            self._first = self._now = replace(self._now, extradata=sent)
        if packet.keyframe and self._now.codec in _START_CODES and not self._now.framed():
            codec = sniff(memoryview(packet.data)[:16])
            if codec is not None and codec != _START_CODES[self._now.codec]:
                other = Parameters(codec, max_pixels=self._first.max_pixels)
                self._now = self._first if codec == self._first.codec else other

    def _feed(
        self, context: av.VideoCodecContext, packet: Packet
    ) -> tuple[list[Picture], DecodeError | None]:
        self._in_flight[packet.pts] = (packet.time_s, packet.arrived)
        if len(self._in_flight) > MAX_IN_FLIGHT:
            for tag in list(self._in_flight)[: MAX_IN_FLIGHT // 2]:
                del self._in_flight[tag]
        if packet.keyframe:
            self._keyframe = (packet.pts, packet.time_s)
        try:
            frames = _send(context, packet)
        except DecodeError as error:
            self.damaged += 1
            pictures, _ = self._take(self._rest())  # all decoded before the damage
            self.reset()
            return pictures, error
        return self._take(frames)

    def _take(self, frames: list[av.VideoFrame]) -> tuple[list[Picture], DecodeError | None]:
        """The sound pictures of ``frames``. A damaged one takes with it what was decoded later."""
        pictures: list[Picture] = []
        for number, frame in enumerate(frames):
            tag = -1 if frame.pts is None else frame.pts
            known = self._in_flight.pop(tag, None)
            if known is None or known[0] < self._from_s:
                continue
            if not frame.is_corrupt:
                pictures.append(self._picture(frame, *known))
                continue
            later = frames[number + 1 :]
            if self._keyframe[0] > tag:  # a sound start has been fed already
                self._from_s = self._keyframe[1]
            else:
                later = [f for f in later + self._rest() if f.pts is not None and f.pts < tag]
            return pictures + self._take(later)[0], self._concealed(known[0])
        return pictures, None

    def _rest(self) -> list[av.VideoFrame]:
        """All that is still buffered; the context is closed by it."""
        context, self._context = self._context, None
        if context is None:
            return []
        try:
            return context.decode(None)
        except av.FFmpegError:
            self.damaged += 1
            return []

    def _picture(self, frame: av.VideoFrame, time_s: float, arrived: float) -> Picture:
        turned = clockwise(frame.rotation)
        return Picture(time_s, frame.width, frame.height, arrived, turned or self._rotation, frame)

    def _concealed(self, time_s: float) -> DecodeError:
        self.damaged += 1
        return DecodeError(
            f"{self._now.codec} picture at {time_s:.3f} s is damaged: libavcodec had to guess parts of it"
        )


def sniff(start: memoryview) -> str | None:
    """The codec of an elementary stream by the first bytes of a keyframe, or None when that is not certain.

    A sender may go over to another codec under the same MPEG-TS PID; FFmpeg's demuxer does not tell. H.264's
    access unit delimiter and parameter sets, HEVC's, and the sequence header of MPEG-2 exclude each other."""
    head = bytes(start).lstrip(b"\0")
    if len(start) - len(head) < 2 or len(head) < 3 or head[0] != 1:
        return None
    if head[1] == 0xB3:
        return "mpeg2video"
    if head[1] in (0x40, 0x42, 0x46) and head[2] == 0x01:
        return "hevc"
    return "h264" if head[1] in (0x09, 0x27, 0x47, 0x67) else None


class Contexts:
    """Contexts for keyframes by themselves: ``most`` at work at a time, and of those that are idle no more
    than there have been at work. Each is freed after ``USES`` keyframes, and with it the pictures' memory."""

    def __init__(self, most: int) -> None:
        self._turns = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []  # the one used last comes last
        self._busy = self._peak = 0

    def alone(self, parameters: Parameters, packet: Packet) -> list[av.VideoFrame]:
        """Decode one packet that depends on no other.

        :raises DecodeError: it cannot be decoded."""
        if packet.damaged:
            raise _damaged(parameters.codec, packet)
        like = _like(parameters, packet)
        with self._turns:
            kept, good = self._taken(like), False
            try:
                context = kept.context if kept is not None else parameters.open(alone=True)
                frames = _send(context, packet)
                with _mapped(context, packet):
                    frames += context.decode(None)
                    context.flush_buffers()
                good = bool(frames) and not any(frame.is_corrupt for frame in frames)
            finally:
                again = kept.uses + 1 if kept is not None else 1
                self._given(_Kept(like, context, again) if good and like is not None else None)
            return frames

    def _taken(self, like: "_Like | None") -> "_Kept | None":
        with self._lock:
            self._busy += 1
            self._peak = max(self._peak, self._busy)
            at = next((at for at, one in enumerate(self._idle) if one.like == like), -1)
            if at < 0:  # one is opened: as many as before are to be held
                self._trim()
                return None
            return self._idle.pop(at)

    def _given(self, kept: "_Kept | None") -> None:
        """Keep a context that did well; None: it did not."""
        with self._lock:
            self._busy -= 1
            if kept is not None and kept.uses < USES:
                self._idle.append(kept)
            self._trim()

    def _trim(self) -> None:
        while self._idle and len(self._idle) + self._busy > self._peak:
            self._idle.pop(0)


_contexts = Contexts(TURNS)
_Like = tuple[Parameters, bytes]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A context that is idle: for what it will do as a new one would, and how often it was used."""

    like: _Like
    context: av.VideoCodecContext
    uses: int


def _like(parameters: Parameters, packet: Packet) -> _Like | None:
    """What a context must have been opened with and have seen, to do with this packet what a new one would;
    None when only a new one will do. Fields are one such case: where a slice of them is missing, libavcodec
    leaves in the picture what lay in that memory before, and does not mark it."""
    if parameters.codec != _SHARED:
        return None
    framing = _framing(parameters.extradata)
    left = annexb.remembered(bytes(packet.data), framing.length) if framing is not None else None
    if framing is None or left is None:
        return None
    sequences = [
        unit for unit in (framing.sets + START + left).split(START) if unit[:1] and unit[0] & 31 == annexb.SPS
    ]
    return (parameters, left) if sequences and all(map(annexb.progressive, sequences)) else None


@lru_cache(maxsize=512)
def _framing(extradata: bytes) -> annexb.Framing | None:
    try:
        return annexb.Framing.of(_SHARED, extradata)
    except ValueError:
        return None


def _send(context: av.VideoCodecContext, packet: Packet) -> list[av.VideoFrame]:
    """Decode with our tag in place of the packet's own pts, for good: a closer look may decode the packet in
    another thread at the same time."""
    if packet.damaged:
        raise _damaged(context.name, packet)
    packet.data.pts = packet.pts
    with _mapped(context, packet):
        return context.decode(packet.data)


def _damaged(codec: str, packet: Packet) -> DecodeError:
    return DecodeError(f"{codec} packet at {packet.time_s:.3f} s is damaged: the source lost a part of it")


@contextmanager
def _mapped(context: av.VideoCodecContext, packet: Packet) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise DecodeError(
            f"{context.name} packet at {packet.time_s:.3f} s is damaged: {error.strerror}"
        ) from error


def _given(pictures: list[Picture], error: DecodeError | None) -> Iterator[Picture]:
    yield from pictures
    if error is not None:
        raise error
