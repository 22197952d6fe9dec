"""What an H.264 packet leaves in a decoder after its pictures, and whether these may be fields.

A context of libavcodec may decode a keyframe of another stream only where nothing of the one is left."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from pipeline.backends.annexb import START_CODE, by_length, by_start_code


def remembered(data: memoryview, length: int) -> bytes | None:
    """What an H.264 packet leaves in a decoder for a sequence that comes after its own: its parameter sets.
    ``length`` is that of a unit's length field, 0 for start codes.

    None when it leaves more, or that cannot be told: a picture that is no IDR (what is known of recovery
    points), messages but for those that are forgotten, parameter sets after a slice or out of order, slices
    that do not follow each other (libavcodec counts their macroblocks: one that comes twice hides one that is
    missing, and leaves there what lay in that memory before), units within units, too much."""
    try:
        return _left(_units(data, length))
    except ValueError:
        return None


def _left(units: Iterable[memoryview]) -> bytes | None:
    left, last = list[bytes](), -1
    for number, unit in enumerate(units):
        kind = unit[0] & 31 if unit else 0
        if number == _MANY or kind not in (_IDR, *_SETS, _SEI, *_PLAIN) or (last >= 0 and kind in _SETS):
            return None
        if kind == SPS and left and left[-1][0] & 31 != SPS:
            return None
        if kind in _SETS:
            left.append(bytes(unit))
        if kind == _SEI and not _forgotten(bytes(unit)):
            return None
        if kind == _IDR:
            first = _first_macroblock(bytes(unit[1:9]))
            if first <= last or last < 0 < first:
                return None
            last = first
    return START.join(left) if last >= 0 else None  # which no unit holds


def _first_macroblock(body: bytes) -> int:
    """Of a slice, by its first bytes (ITU-T H.264, 7.3.3).

    :raises ValueError: they do not say."""
    return _number(_bits(_unescaped(body)), 0)[0]


def _unescaped(unit: bytes) -> bytes:
    """Without the bytes that keep start codes out of it (ITU-T H.264, 7.4.1)."""
    return unit.replace(b"\0\0\3", b"\0\0")


def _bits(body: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in body)


def _number(bits: str, at: int) -> tuple[int, int]:
    """The Exp-Golomb number at ``at`` (ITU-T H.264, 9.1), and where it ends.

    :raises ValueError: it is cut short."""
    zeros = bits.index("1", at) - at
    end = at + 2 * zeros + 1
    if end > len(bits):
        raise ValueError("a number that is cut short")
    return int(bits[at + zeros : end], 2) - 1, end


def ending(length: int) -> bytes:
    """A packet of nothing but the end of the sequence (ITU-T H.264, 7.3.2.5), framed as others are:
    libavcodec gives the picture that it holds back. Twice, because it looks at no packet of less than four
    bytes."""
    return 2 * ((len(_END).to_bytes(length) if length else START) + _END)


START = b"\0\0\1"
SPS = 7
_END = b"\x0a"
_IDR, _SEI, _SETS, _PLAIN, _MANY = 5, 6, (SPS, 8), (9, 12), 64
"""By type (ITU-T H.264, table 7-1): slices of an IDR picture, messages, parameter sets, delimiters and
fillers; and more units than a packet has."""
_MESSAGES = (0, 1, 4, 5, 6)
"""Messages that libavcodec forgets at the next picture: buffering period, timing, captions, user's data but
for x264's version, recovery point."""


def _forgotten(unit: bytes) -> bool:
    """Whether this SEI unit has only such messages."""
    body = _unescaped(unit.rstrip(b"\0"))[1:-1]  # without the byte that ends it
    at = 0
    while at < len(body):
        values = [0, 0]
        for place in range(2):
            while body[at : at + 1] == b"\xff":
                values[place], at = values[place] + 255, at + 1
            if at >= len(body):
                return False
            values[place], at = values[place] + body[at], at + 1
        kind, size = values
        if kind not in _MESSAGES or (kind == 5 and b"x264" in body[at : at + size]):
            return False
        at += size
    return at == len(body)


def _units(data: memoryview, length: int) -> Iterator[memoryview]:
    """The units of a packet; an empty one where another hides in it, which libavcodec would find.

    :raises ValueError: its framing is wrong."""
    if not length:
        return (data[at + 3 : end] for at, end in by_start_code(data))
    return (data[:0] if START_CODE.search(unit) else unit for unit in by_length(data, length))


@lru_cache(maxsize=512)
def progressive(sps: bytes) -> bool:
    """Whether an H.264 sequence parameter set (a unit, with its first byte) allows no fields (ITU-T H.264,
    7.3.2.1.1); its first 128 bytes are enough. False also when it cannot be told: it is cut short, or has
    scaling lists."""
    body = _unescaped(sps)[1:]
    bits = _bits(body[3:64])
    at = 0

    def number() -> int:
        nonlocal at
        value, at = _number(bits, at)
        return value

    try:
        number()
        if body[0] not in (*_PLAIN_PROFILES, *_HIGH):
            return False
        if body[0] in _HIGH:
            if number() == 3:  # 4:4:4
                at += 1
            number()
            number()
            at += 1
            if bits[at] == "1":
                return False
            at += 1
        number()
        kind = number()
        if kind == 0:
            number()
        elif kind == 1:
            at += 1
            number()
            number()
            for _ in range(number()):
                number()
        number()
        at += 1
        number()
        number()
        return bits[at] == "1"
    except (IndexError, ValueError):
        return False


_PLAIN_PROFILES, _HIGH = (66, 77, 88), (100, 110, 122, 244, 44)
"""Of single views. The sets of the latter say more of colour and depth."""
