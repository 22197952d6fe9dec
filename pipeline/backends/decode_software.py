"""Packets to pictures by libavcodec, on the CPU: one thread a context, memory only while it is needed.

``still`` has one of the contexts that all streams share, which hold nothing of them (``software_contexts``).
``decode`` keeps one context of the stream's own until ``flush``, ``reset``, ``close`` or damage frees it.

What libavcodec notices of damage differs: H.264, MPEG-2 and MPEG-4 mark what they conceal, MJPEG raises when
it is asked to (``err_detect``), HEVC, VP9 and AV1 notice broken framing but not every flipped bit.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import av
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from pipeline.backends.ffmpeg_open import clockwise
from pipeline.backends.software_contexts import LIBRARIES, TURNS, Contexts, Parameters, send
from pipeline.errors import DecodeError, SourceUnsupported
from pipeline.flow.decode import Picture
from pipeline.flow.source import Packet, StreamInfo

MAX_IN_FLIGHT = 512
"""Packets whose picture may still come; far more than any codec reorders."""

_contexts = Contexts(TURNS)
_START_CODES = {"h264": "h264", "hevc": "hevc", "mpeg2video": "mpeg2video", "mpeg1video": "mpeg2video"}


def decoder_available(codec: str) -> bool:
    """Whether this FFmpeg decodes ``codec`` (FFmpeg's name) to pictures in software."""
    try:
        return bool(Codec(LIBRARIES.get(codec, codec), "r").type == "video")
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
            frames = send(context, packet)
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


def _given(pictures: list[Picture], error: DecodeError | None) -> Iterator[Picture]:
    yield from pictures
    if error is not None:
        raise error
