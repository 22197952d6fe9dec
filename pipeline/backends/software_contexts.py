"""Contexts of libavcodec: what they are opened with, and those that decode keyframes of all streams.

A keyframe by itself has a context as long as it is decoded, so that a hundred streams hold none (10 to 30 MB
each). One that did its work well is kept for another keyframe of H.264 with the very same parameters: opening
one, and memory that is touched anew, cost 3.5 ms next to the 25 of a 1080p keyframe. Nothing that one stream
sent can leak into another's picture, but for one that is marked as corrupt: the sequence is ended, the next
begins with an IDR, before which no picture counts, its slices follow each other, and what else is left
(parameter sets) is what the other sends, byte by byte (``_like``). Only a crash in a context that another
stream had corrupted unnoticed would be put down to the wrong one."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import av
from av.codec import Codec

from pipeline.backends import annexb, h264_state
from pipeline.errors import DecodeError
from pipeline.flow.source import Packet, StreamInfo

TURNS = len(os.sched_getaffinity(0)) + 1
"""Keyframes that may be in decoding at the same time in this process: one a core, and one to hand over."""

MAX_PIXELS = 8192 * 8192
"""A sequence header that asks for more is damage or an attack: libavcodec refuses it before it allocates."""

UNFILTERED_WIDTH = 1280
"""From this width on, in pixels, a keyframe that is decoded by itself is not deblocked."""

USES = 250
"""Keyframes after which a context is opened anew: its memory for pictures grows with those that are out at a
time, and is given back only so."""
_SHARED = "h264"  # the codec of which it is known what a context remembers beyond the end of a sequence
_STRICT = {"mjpeg": "explode", "mjpegb": "explode"}  # else a cut picture comes out grey and unmarked
LIBRARIES = {"av1": "libdav1d"}
"""FFmpeg's own "av1" only drives hardware."""


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
        context, codec = info.codec_parameters, LIBRARIES.get(info.codec, info.codec)
        most = info.max_pixels or MAX_PIXELS
        if context is None:
            return cls(codec, width=info.width, height=info.height, max_pixels=most)
        tag, bits = context.codec_tag or "", context.bits_per_coded_sample or 0
        return cls(codec, bytes(context.extradata or b""), info.width, info.height, tag, bits, most)

    def open(self, *, alone: bool = False) -> av.VideoCodecContext:
        """A fresh context, single-threaded: many streams share the cores better than one picture does.

        ``alone``: for one keyframe. A large one is then not deblocked, which saves 6 % of the decoding:
        nothing depends on it, and at a fifth of its size, which is what a model sees, little of it is left
        (scores of flagged cards and photographs move by at most 0.02, docs/how-it-works.md)."""
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


class Contexts:
    """Contexts for keyframes by themselves: ``most`` at work at a time, and of those that are idle no more
    than there have been at work. Each is freed after ``USES`` keyframes, and with it the pictures' memory."""

    def __init__(self, most: int) -> None:
        self._turns = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []  # the one used last comes last
        self._busy = self._peak = 0

    def alone(self, parameters: Parameters, packet: Packet) -> list[av.VideoFrame]:
        """Decode one packet that depends on no other. A frame that is marked as corrupt may show another
        stream's picture where its own is missing.

        :raises DecodeError: it cannot be decoded."""
        if packet.damaged:
            raise _damaged(parameters.codec, packet)
        like = _like(parameters, packet)
        with self._turns:
            kept, good = self._taken(like), False
            try:
                context = kept.context if kept is not None else parameters.open(alone=True)
                frames = send(context, packet)
                with _mapped(context, packet):
                    frames += context.decode(None) if like is None else _ended(context, like)
                good = bool(frames) and not any(frame.is_corrupt for frame in frames)
            finally:
                again = kept.uses + 1 if kept is not None else 1
                self._given(_Kept(like, context, again) if good and like is not None else None)
            return frames

    def _taken(self, like: "_Like | None") -> "_Kept | None":
        with self._lock:
            self._busy += 1
            self._peak = max(self._peak, self._busy)
            for at in range(len(self._idle) - 1, -1, -1):  # the one used last has its memory in the caches
                if self._idle[at].like == like:
                    return self._idle.pop(at)
            self._trim()  # one is opened: as many as before are to be held
            return None

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


class _Like(NamedTuple):
    """What a context was opened with, what it remembers, and how its packets are framed."""

    parameters: Parameters
    left: bytes
    length: int


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
    if framing is None:
        return None
    left = h264_state.remembered(memoryview(packet.data), framing.length)
    if left is None:
        return None
    sequences = [
        unit
        for unit in (framing.sets + h264_state.START + left).split(h264_state.START)
        if unit[:1] and unit[0] & 31 == h264_state.SPS
    ]
    no_fields = sequences and all(h264_state.progressive(unit[:128]) for unit in sequences)
    return _Like(parameters, left, framing.length) if no_fields else None


def _ended(context: av.VideoCodecContext, like: _Like) -> list[av.VideoFrame]:
    """All pictures that are still in the context, which goes on to another sequence. To drain and to flush it
    would do, too, but libavcodec frees its tables then and gets them anew, 1.4 MB for 1080p: 1.2 ms where
    freed memory goes back to the system."""
    frames, end = list[av.VideoFrame](), h264_state.ending(like.length)
    while more := context.decode(av.Packet(end)):  # one at a time, should there be more
        frames += more
    return frames


@lru_cache(maxsize=512)
def _framing(extradata: bytes) -> annexb.Framing | None:
    try:
        return annexb.Framing.of(_SHARED, extradata)
    except ValueError:
        return None


def send(context: av.VideoCodecContext, packet: Packet) -> list[av.VideoFrame]:
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
