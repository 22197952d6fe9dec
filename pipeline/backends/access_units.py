"""One packet a picture, where libavformat makes several of one.

Its H.264 and HEVC parsers (RTSP, MPEG-TS, raw streams) take parameter sets for the start of a picture. A
server that repeats them before each slice of a keyframe (GStreamer's ``rtph264pay`` with
``config-interval=-1``) so has its keyframes cut at every slice, and no part decodes by itself. HEVC's parser
also leaves the picture that follows in the last part."""

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any, TypeAlias

import av

from pipeline.backends.annexb import by_start_code
from pipeline.errors import SourceError

Data: TypeAlias = "av.Packet[Any]"

MOST_PARTS = 600
"""Slices of a picture that HEVC's highest level allows."""
_SLICES = {"h264": frozenset((1, 2, 5)), "hevc": frozenset((*range(10), *range(16, 22)))}
_KEYFRAMES = {"h264": frozenset((5,)), "hevc": frozenset(range(16, 22))}


def whole_pictures(packets: Iterable[Data], codec: str, most_bytes: int) -> Iterator[Data]:
    """``packets`` (H.264 or HEVC, start codes between units) in order, all slices of a picture in one.

    A packet that needs no mending is given as it is, without a look into it. To see whether it goes on, a
    picture must be held until the next packet comes: the first keyframe is, and then each keyframe after one
    that went on, and each other picture after one that did. A picture is put together from ``MOST_PARTS`` at
    most, and no further than ``most_bytes``. When the source breaks off, what is held comes before the
    error."""
    joiner = _Joiner(codec, most_bytes)
    try:
        for packet in packets:
            if joiner.passes(packet):
                yield packet
            else:
                yield from joiner.add(packet)
    except SourceError:
        yield from joiner.release()
        raise
    yield from joiner.release()


class _Joiner:
    """The picture that is held, if one is, and which sort is to be."""

    def __init__(self, codec: str, most_bytes: int) -> None:
        self._codec = codec
        self._most_bytes = most_bytes
        self._held: list[Data] = []  # a picture and what it goes on with
        self._held_bytes = 0
        self._pts: int | None = None  # of the picture that began last
        self._keyframe = True  # whether that was one
        self._hold = {True: True, False: False}  # keyframes, other pictures: whether to expect more of them

    def passes(self, packet: Data) -> bool:
        """Whether ``packet`` is nothing but the next picture: the ordinary case, told by its time alone."""
        pts, keyframe = packet.pts, packet.is_keyframe
        if self._held or self._hold[keyframe] or self._same_time(pts):
            return False
        self._pts, self._keyframe = pts, keyframe
        return True

    def add(self, packet: Data) -> list[Data]:
        """What is complete now that ``packet`` has come."""
        data = bytes(packet) if self._same_time(packet.pts) else b""
        slices, rest = _going_on(self._codec, data)
        if not slices:
            return [*self.release(), *self._begin(packet)]
        self._hold[self._keyframe] = True
        if not self._held:
            return [packet]
        self._keep(_like(packet, slices))
        if rest == len(data):
            return (
                []
                if len(self._held) < MOST_PARTS and self._held_bytes <= self._most_bytes
                else self.release()
            )
        following = _like(packet, data[rest:])
        following.pts = following.dts = None  # those of its packet were the picture's before it
        following.is_keyframe = _starts_anew(self._codec, data, rest)
        return [*self.release(), *self._begin(following)]

    def release(self) -> list[Data]:
        """The picture that is held, in one packet."""
        parts, self._held, self._held_bytes = self._held, [], 0
        if not parts:
            return []
        self._hold[self._keyframe] = len(parts) > 1
        return parts if len(parts) == 1 else [_joined(parts)]

    def _same_time(self, pts: int | None) -> bool:
        """Whether a packet of this time may belong to the picture that began last; some parts have none."""
        return pts is None or self._pts is None or pts == self._pts

    def _begin(self, packet: Data) -> list[Data]:
        self._pts, self._keyframe = packet.pts, packet.is_keyframe
        if not self._hold[packet.is_keyframe]:
            return [packet]
        self._keep(packet)
        return []

    def _keep(self, part: Data) -> None:
        self._held.append(part)
        self._held_bytes += part.size


def _joined(parts: list[Data]) -> Data:
    """One packet of all parts, with the first timestamps that any of them has."""
    whole = _like(parts[0], b"".join(bytes(part) for part in parts))
    whole.pts = next((part.pts for part in parts if part.pts is not None), None)
    whole.dts = next((part.dts for part in parts if part.dts is not None), None)
    whole.is_corrupt = any(part.is_corrupt for part in parts)
    return whole


def _like(packet: Data, data: bytes) -> Data:
    """A packet as ``packet``, but with this content."""
    made: Data = av.Packet(data)
    made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
    made.is_keyframe, made.is_corrupt = packet.is_keyframe, packet.is_corrupt
    return made


def _going_on(codec: str, data: bytes) -> tuple[bytes, int]:
    """The slices at the start of ``data`` that go on with a picture, without what stands between them, and
    where the next picture starts, with what stands before its slices."""
    slices, rest = list[bytes](), 0
    for at, end in _units(data):
        if _kind(codec, data, at) not in _SLICES[codec]:
            continue
        if _is_first(codec, data, at):
            break
        slices.append(data[at:end])
        rest = end
    else:
        rest = len(data)
    return b"".join(slices), rest


def _starts_anew(codec: str, data: bytes, start: int) -> bool:
    """Whether the first slice at or after ``start`` is a keyframe's."""
    kinds = (_kind(codec, data, at) for at, _ in _units(data, start))
    return next((kind in _KEYFRAMES[codec] for kind in kinds if kind in _SLICES[codec]), False)


def _units(data: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where each unit's start code is, and the next one's."""
    return takewhile(lambda unit: unit[0] < len(data) - 5, by_start_code(data, start))


def _kind(codec: str, data: bytes, at: int) -> int:
    return data[at + 3] & 31 if codec == "h264" else data[at + 3] >> 1 & 63


def _is_first(codec: str, data: bytes, at: int) -> bool:
    """Whether the slice is a picture's first: the first bit of its header says so in both codecs (H.264
    counts macroblocks there, and writes 0 as a single 1)."""
    return bool(data[at + (4 if codec == "h264" else 5)] & 128)
