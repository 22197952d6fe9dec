"""Whether a GPU has room for one more decoder: asked before it is opened, measured while it is.

NVDEC takes its surfaces when a decoder sees its first picture; a GPU that is full by then fails in the middle
of streams that were well. So a decoder is opened only where what one of its kind takes leaves ``RESERVE``
free. What it takes is measured by the GPU's free memory before and after; until a kind has been measured, the
budget below counts. Nothing here touches a GPU: the caller says how to ask it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import SourceNoRoom

FULL_HD_MB, LEAST_MB = 100.0, 25.0
"""Budget of an 8-bit decoder of 1920 x 1080, which grows with the picture, and of a small one. Assumed:
surfaces alone come to 35 to 50 MB; others report 60 MB for 720p; 55 MB were seen on an H200."""
RESERVE_MB = 256.0
"""What stays free: the engine's first batches of each size, CUDA's modules, which load late."""
FULL_HD = 1920 * 1080

Kind = tuple[str, int, int, int]
"""Codec, width, height, bits: decoders of a kind take the same."""
Ask = Callable[[], tuple[int, int]]
"""Bytes of a GPU's memory that are free, and all there are."""


def budget_mb(width: int, height: int, bits: int = 8) -> float:
    """MB to count with for a decoder of a kind that was never measured."""
    return max(LEAST_MB, FULL_HD_MB * width * height / FULL_HD) * (2 if bits > 8 else 1)


class DecoderMemory:
    """The decoders of this process on one GPU. Thread-safe."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._measured: dict[Kind, float] = {}
        self._promised_mb = 0.0  # to decoders that are being opened
        self._moves = 0  # openings and closings so far: two at once cannot be told apart
        self.open = 0

    def need(self, codec: str, width: int, height: int, bits: int = 8) -> tuple[float, bool]:
        """MB to count with for one more decoder of a kind, and whether that was measured."""
        kind = (codec, width, height, bits)
        return self._measured.get(kind, budget_mb(width, height, bits)), kind in self._measured

    @contextmanager
    def opening(
        self, codec: str, width: int, height: int, bits: int, make_room: Callable[[], None]
    ) -> Iterator[None]:
        """Around opening a decoder and decoding its first picture; ``make_room`` frees what is idle.

        :raises SourceNoRoom: it would not fit; its text has the arithmetic."""
        kind = (codec, width, height, bits)
        need, before = self._admit(kind, make_room)
        try:
            yield
        except BaseException:
            self._settle(need)
            raise
        self._settle(need, opened=True)
        if before is not None:
            self._learn(kind, *before)

    def closed(self) -> None:
        """An open decoder was freed."""
        with self._lock:
            self.open -= 1
            self._moves += 1

    def _admit(self, kind: Kind, make_room: Callable[[], None]) -> tuple[float, tuple[float, int] | None]:
        """What was promised; and, if no other is being opened, the MB free before and the count of moves."""
        for last in (False, True):
            with self._lock:
                need, measured = self.need(*kind)
                free, total = (size / 1e6 for size in self._ask())
                if free - self._promised_mb - need >= RESERVE_MB:
                    alone = self._promised_mb == 0.0
                    self._promised_mb += need
                    self._moves += 1
                    return need, (free, self._moves) if alone else None
            if not last:
                make_room()
        codec, width, height, _ = kind
        raise SourceNoRoom(
            f"{codec} {width} x {height}: no room for its decoder on this GPU: it takes {need:.0f} MB "
            f"({'measured' if measured else 'a budget, never measured here'}), {free:.0f} of {total:.0f} MB "
            f"are free, {self._promised_mb:.0f} MB of them promised, and {RESERVE_MB:.0f} MB stay free for "
            f"the engine; {self.open} decoders are open here. Run fewer or smaller streams on this GPU"
        )

    def _settle(self, need: float, *, opened: bool = False) -> None:
        with self._lock:
            self._promised_mb -= need
            self._moves += not opened
            self.open += opened

    def _learn(self, kind: Kind, free: float, moves: int) -> None:
        """What it took, unless something else came or went meanwhile; beyond belief is somebody else's."""
        with self._lock:
            taken, budget = free - self._ask()[0] / 1e6, budget_mb(*kind[1:])
            if self._moves == moves and budget / 4 <= taken <= 2 * budget:
                self._measured[kind] = taken
