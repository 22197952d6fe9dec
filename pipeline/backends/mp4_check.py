"""The index of an MP4 or MOV file, judged before FFmpeg builds it.

FFmpeg allocates 24 bytes for each sample that a track's tables announce, and tables need not be as long as
what they announce: a file of 4 kB can ask for 6 GB. So the boxes that announce are read first. Everything
else about a file is FFmpeg's to judge: what is no MP4 is let pass."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import SourceUnsupported
from pipeline.limits import Limits

MOST_BOXES = 1_000_000
"""A day of fragments of a tenth of a second."""
_BRANCHES = frozenset(b"moov hoov moof trak traf mdia minf stbl mvex edts udta avss gmhd tref dinf".split())
_UPRIGHT = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
"""The display matrix that changes nothing."""
_PER_SAMPLE = 0xF00  # flags of a trun that stores something for each sample, so that its length bounds it


class Readable(Protocol):
    """A file, or one on a server."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


def check_file(path: str | os.PathLike[str], shown: str, limits: Limits) -> bool:
    """``check_index`` of a local file. One that cannot be read is let pass: whoever opens it next will say.

    :raises SourceUnsupported: see there."""
    try:
        with open(path, "rb") as file:
            return check_index(file, file.seek(0, os.SEEK_END), shown, limits)
    except OSError:
        return False


def check_index(
    file: Readable, size: int, shown: str, limits: Limits, *, fragments: int = MOST_BOXES
) -> bool:
    """Look at all headers of ``file`` (``size`` bytes), those of so many ``fragments`` at most. True when
    they say that it is shown as it is stored: no track of it is rotated.

    :raises SourceUnsupported: they announce more than ``limits`` allow."""
    announced, seen = _Announced(shown, limits), 0
    for kind, offset, length in _boxes(file, size):
        announced.one_more()
        if kind not in _BRANCHES:
            continue
        seen += kind == b"moof"
        if seen > fragments:
            break
        if length > limits.index_bytes:
            raise SourceUnsupported(
                f"{shown}: its index has {length} bytes; limits.index_bytes allows {limits.index_bytes}"
            )
        announced.box(kind, memoryview(_at(file, offset, length)))
    return announced.upright


def too_many_tracks(shown: str, limits: Limits) -> SourceUnsupported:
    """The error for it."""
    return SourceUnsupported(f"{shown}: has more tracks than limits.tracks allows ({limits.tracks})")


def _boxes(file: Readable, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the content and its length, of each box at the top; none if the file is no MP4."""
    offset = 0
    while offset + 8 <= size:
        head = _at(file, offset, 16)
        found = _head(memoryview(head), size - offset)
        if found is None or not found[0].isascii():
            return
        kind, header, length = found
        yield kind, offset + header, min(length, size - offset) - header
        offset += length


def _at(file: Readable, offset: int, length: int) -> bytes:
    file.seek(offset)
    parts: list[bytes] = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _head(data: memoryview, left: int) -> tuple[bytes, int, int] | None:
    """Kind, length of the header and whole length of the box that ``data`` starts with; None: there is
    none."""
    if len(data) < 8:
        return None
    length, kind = struct.unpack_from(">I4s", data)
    header = 8
    if length == 1 and len(data) >= 16:
        length, header = struct.unpack_from(">Q", data, 8)[0], 16
    elif length == 0:
        length = left
    return (kind, header, length) if length >= header else None


@dataclass(slots=True)
class _Track:
    """What one track announces."""

    handlers: set[bytes]
    samples: int = 0
    one_tick: bool = False

    @property
    def entries(self) -> int:
        """Plain sound is indexed by chunk; FFmpeg knows it by samples of one tick."""
        sound = b"soun" in self.handlers and b"vide" not in self.handlers
        return 0 if sound and self.one_tick else self.samples


class _Announced:
    """Tracks and samples of a file, counted up to what is allowed."""

    def __init__(self, shown: str, limits: Limits) -> None:
        self._shown = shown
        self._limits = limits
        self._seen = self._tracks = self._samples = 0
        self._track = _Track(set())
        self._shown_as: set[bytes] = set()

    @property
    def upright(self) -> bool:
        """Whether there are tracks, and none of them is rotated or moved for display."""
        return self._shown_as == {_UPRIGHT}

    def one_more(self) -> None:
        """:raises SourceUnsupported: that was one box too many."""
        self._seen += 1
        if self._seen > MOST_BOXES:
            raise SourceUnsupported(f"{self._shown}: has more than {MOST_BOXES} boxes; it is no film")

    def box(self, kind: bytes, content: memoryview) -> None:
        """Count what a box and those inside it announce."""
        if kind == b"cmov":
            raise SourceUnsupported(f"{self._shown}: its index is compressed (cmov), which is not read")
        if kind == b"trak":
            self._trak(content)
        elif kind in _BRANCHES:
            self._inside(content)
        elif kind in (b"tkhd", b"mvhd") and len(content) >= 4:
            start = (52, 40) if kind == b"tkhd" else (48, 36)
            offset = start[0] if content[0] == 1 else start[1]
            self._shown_as.add(bytes(content[offset : offset + 36]))
        elif kind == b"hdlr" and len(content) >= 12:
            self._track.handlers.add(bytes(content[8:12]))
        elif kind == b"stts" and len(content) >= 16:
            count, _, delta = struct.unpack_from(">III", content, 4)
            self._track.one_tick = count == 1 and delta == 1
        elif kind in (b"stsz", b"stz2") and len(content) >= 12:
            fixed, count = struct.unpack_from(">II", content, 4)
            stored = kind == b"stz2" or fixed == 0
            self._track.samples += min(count, 2 * len(content)) if stored else count
        elif kind == b"trun" and len(content) >= 8:
            flags, count = struct.unpack_from(">II", content)
            self._count(0 if flags & _PER_SAMPLE else count)

    def _inside(self, content: memoryview) -> None:
        while (found := _head(content, len(content))) is not None:
            kind, header, length = found
            self.one_more()
            self.box(kind, content[header:length])
            content = content[length:]

    def _trak(self, content: memoryview) -> None:
        self._tracks += 1
        if self._tracks > self._limits.tracks:
            raise too_many_tracks(self._shown, self._limits)
        outer, self._track = self._track, _Track(set())
        self._inside(content)
        self._count(self._track.entries)
        self._track = outer

    def _count(self, samples: int) -> None:
        self._samples += samples
        if self._samples > self._limits.samples:
            raise SourceUnsupported(
                f"{self._shown}: its index announces {self._samples} pictures or more; "
                f"limits.samples allows {self._limits.samples}"
            )
