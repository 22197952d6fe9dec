"""Packets as a hardware parser wants them: start codes, parameter sets in band, and word of a new sequence.

H.264 and HEVC come framed by lengths (MP4, Matroska, RTMP), their parameter sets beside the stream; NVDEC
reads Annex B only. FFmpeg's filters do the same (``h264_mp4toannexb``; a test compares the units), but PyAV
builds one that knows the parameter sets only from the stream of an open container, which a decoder may
outlive. VP9 and AV1 packets are fed as they are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

START = b"\0\0\0\1"
START_CODE = re.compile(b"\0\0\1")
"""A regular expression, because that searches twice as fast as ``bytes.find`` does."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How a stream's packets are framed, and the parameter sets that stand beside it.

    ``length`` is the size of a unit's length field in bytes; 0: the packets have start codes already.
    ``sets`` are in Annex B, empty when all are in band."""

    codec: str
    length: int = 0
    sets: bytes = b""

    @classmethod
    def of(cls, codec: str, extradata: bytes) -> "Framing":
        """From FFmpeg's extradata: avcC, hvcC, Annex B (RTSP), or nothing.

        :raises ValueError: it is cut short."""
        if codec not in ("h264", "hevc"):
            return cls(codec)
        if extradata[:1] != b"\1":
            return cls(codec, 0, extradata)
        try:
            if codec == "h264":
                return cls(codec, (extradata[4] & 3) + 1, b"".join(_units_of_avcc(extradata)))
            return cls(codec, (extradata[21] & 3) + 1, b"".join(_units_of_hvcc(extradata)))
        except IndexError as error:
            raise ValueError(f"the {codec} parameter sets of {len(extradata)} bytes are cut short") from error

    def annex_b(self, data: bytes, keyframe: bool) -> bytes:
        """The packet for the parser; the sets go before a keyframe that does not carry its own.

        :raises ValueError: a unit is longer than the packet."""
        if self.length:
            data = b"".join(START + unit for unit in by_length(data, self.length))
        if keyframe and self.sets and self.codec in ("h264", "hevc") and not sequence(self.codec, data):
            return self.sets + data
        return data


def sequence(codec: str, data: bytes) -> bytes:
    """What ``data`` (as the parser gets it) says of its sequence: size, depth, colours. Empty: nothing.

    Equal bytes are the same sequence. H.264 and HEVC: the SPS; AV1: the sequence header; VP8 and VP9:
    the size, and what else a keyframe says of it."""
    if codec in ("h264", "hevc"):
        return b"".join(unit for unit in _headers(codec, data) if _kind(codec, unit) == _SPS[codec])
    if codec == "av1":
        return b"".join(body for kind, body in _obus(data) if kind == 1)
    if codec == "vp9":
        return _vp9_size(data)
    return data[6:10] if codec == "vp8" and data[3:6] == b"\x9d\x01\x2a" else b""


def is_needed(codec: str, data: bytes) -> bool:
    """Whether other pictures may depend on this one. True when that cannot be told: only H.264 says it."""
    if codec != "h264":
        return True
    at = _first_slice(codec, data)
    return at < 0 or bool(data[at + 3] >> 5 & 3)


TAGGED = ("h264", "hevc")
"""Codecs whose packets can carry a tag of ours."""
_MESSAGE = {"h264": b"\0\0\1\x06\x05", "hevc": b"\0\0\1\x4e\x01\x05"}
"""The start of an SEI unit with one message of user data (unregistered: ITU-T H.264 D.1.7, H.265 D.2.7)."""
_OURS = b"framewarden tag:"
"""In the place of the 16 bytes that tell one user's data from another's. No tag has a byte of zero, so that
nothing has to be escaped."""


def tagged(codec: str, data: bytes, tag: int) -> bytes:
    """``data`` (Annex B, of ``TAGGED``) with a message before its first slice, from which a decoder's picture
    can be traced to the packet: ``tag_of``. ``tag`` is 0 to 2**64 - 1."""
    at = _first_slice(codec, data)
    if at < 0:
        return data
    at -= data[at - 1 : at] == b"\0"  # of a start code of four bytes
    body = _OURS + b"%016x" % tag
    return b"".join((data[:at], _MESSAGE[codec], bytes([len(body)]), body, b"\x80", data[at:]))


def tag_of(message: bytes) -> int | None:
    """The tag in the content of a user data message, or None: it is somebody else's."""
    return int(message[16:32], 16) if message.startswith(_OURS) else None


_SPS = {"h264": 7, "hevc": 33}


def _kind(codec: str, unit: bytes) -> int:
    return unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63


def _is_slice(codec: str, unit: bytes) -> bool:
    kind = _kind(codec, unit)
    return 1 <= kind <= 5 if codec == "h264" else kind < 32


def _first_slice(codec: str, data: bytes) -> int:
    """Where the start code (of three bytes) of the first slice of two bytes or more is, -1 without one."""
    for found in START_CODE.finditer(data, 0, max(0, len(data) - 2)):
        if _is_slice(codec, data[found.end() : found.end() + 1]):
            return found.start()
    return -1


def _headers(codec: str, data: bytes) -> Iterator[bytes]:
    """The units before the first slice, without start codes."""
    at = _first_slice(codec, data)
    before = data[:at] if at >= 0 else data
    units = (before[start + 3 : end] for start, end in by_start_code(before) if start < len(data) - 4)
    return (unit for unit in (unit.rstrip(b"\0") for unit in units) if unit)


Data = TypeVar("Data", bytes, memoryview)


def by_length(data: Data, length: int) -> Iterator[Data]:
    """The units of a packet that has their lengths, in fields of ``length`` bytes.

    :raises ValueError: a unit is longer than the packet."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + length])
        at += length
        if size > len(data) - at:
            raise ValueError(f"a unit of {size} bytes in a packet with {max(0, len(data) - at)} bytes left")
        yield data[at : at + size]
        at += size


def by_start_code(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where the start code (of three bytes) of each unit is from ``start`` on, and where the next one's."""
    at = -1
    for found in START_CODE.finditer(data, start):
        if at >= 0:
            yield at, found.start()
        at = found.start()
    if at >= 0:
        yield at, len(data)


def _units_of_avcc(record: bytes) -> Iterator[bytes]:
    at = 5
    for mask in (31, 255):  # SPS, then PPS
        count = record[at] & mask
        at += 1
        for _ in range(count):
            unit, at = _sized(record, at)
            yield unit


def _units_of_hvcc(record: bytes) -> Iterator[bytes]:
    at = 23
    for _ in range(record[22]):
        count = int.from_bytes(record[at + 1 : at + 3])
        at += 3
        for _ in range(count):
            unit, at = _sized(record, at)
            yield unit


def _sized(record: bytes, at: int) -> tuple[bytes, int]:
    size = record[at] << 8 | record[at + 1]
    end = at + 2 + size
    if end > len(record):
        raise IndexError
    return START + record[at + 2 : end], end


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the OBUs in a temporal unit, up to the first of a frame."""
    at = 0
    while at < len(data):
        kind, extension, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        if kind in (3, 6):
            return
        at += 1 + extension
        size = len(data) - at
        if sized:
            size, at = _leb128(data, at)
        yield kind, data[at : at + size]
        at += size


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 56, 7):
        byte = data[at] if at < len(data) else 0
        value |= (byte & 127) << shift
        at += 1
        if not byte & 128:
            break
    return value, at


def _vp9_size(data: bytes) -> bytes:
    """Profile, depth, colour and size of a VP9 keyframe (profiles 0 and 2, the 4:2:0 ones)."""
    bits, at = int.from_bytes(data[:16].ljust(16, b"\0")), 128

    def take(count: int) -> int:
        nonlocal at
        at -= count
        return bits >> at & ((1 << count) - 1)

    marker, low, high, shown_again, inter = take(2), take(1), take(1), take(1), take(1)
    take(2)
    if (marker, high and low, shown_again, inter, take(24)) != (2, 0, 0, 0, 0x498342):
        return b""
    deep = take(1) if high else 0
    colour, full = take(3), take(1)
    return bytes([low | high << 1, deep, colour, full]) + take(32).to_bytes(4)
