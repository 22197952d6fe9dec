"""Which streams are inside a decode call, in memory that outlives the process which wrote it.

A worker marks each decode call on its board; after a native crash the supervisor reads there who was being
decoded. No lock: a slot belongs to one thread at a time, and its stream number is written last and cleared
first."""

import ctypes
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

SPAWN = multiprocessing.get_context("spawn")


class Slot(ctypes.Structure):
    """One decode call: the stream's number (0: none), the thread, and since when, in monotonic seconds."""

    _fields_ = (("number", ctypes.c_int64), ("thread", ctypes.c_uint64), ("since", ctypes.c_double))


Board = ctypes.Array[Slot]


def board(at_once: int) -> Board:
    """Shared memory for the decode calls of a worker, so many of each kind at a time (``Turns``), and its
    closer looks; goes to it with its plan."""
    return SPAWN.RawArray(Slot, 3 * at_once)


def marked(board: Board) -> dict[int, float]:
    """The streams that are, or at a crash were, inside a decode call, and since when."""
    return {slot.number: slot.since for slot in board if slot.number}


def marked_by(board: Board, thread: int) -> set[int]:
    """The streams that this thread was decoding."""
    return {slot.number for slot in board if slot.number and slot.thread == thread}


def clear(board: Board) -> None:
    """Forget what a dead worker left."""
    for slot in board:
        slot.number = 0


class Marks:
    """The worker's hand on its board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._free = deque(range(len(board)))

    @contextmanager
    def decoding(self, number: int) -> Iterator[None]:
        """Stream ``number`` is inside a decode call. No more of them at a time than the board has slots."""
        index = self._free.popleft()
        slot = self._board[index]
        slot.since, slot.thread = time.monotonic(), threading.get_ident()
        slot.number = number
        try:
            yield
        finally:
            slot.number = 0
            self._free.append(index)
