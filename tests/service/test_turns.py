"""Whose turn it is to decode."""

import threading
from contextlib import ExitStack

from pipeline.service.admission import Turns
from pipeline.service.marks import Marks, board, marked

CORES = 2


def test_a_packet_of_a_sequence_does_not_wait_behind_keyframes_and_all_of_them_are_marked() -> None:
    shared = board(CORES)
    turns, inside = Turns(CORES, Marks(shared)), threading.Event()

    def feed() -> None:
        with turns.of(9):
            inside.set()

    with ExitStack() as busy:
        for number in range(1, CORES + 1):
            busy.enter_context(turns.of(number, alone=True))
        threading.Thread(target=feed).start()
        assert inside.wait(20)
        busy.enter_context(turns.of(7))
        busy.enter_context(turns.of(8))
        assert set(marked(shared)) == {1, 2, 7, 8}
    assert marked(shared) == {}


def test_no_more_keyframes_are_decoded_at_a_time_than_there_are_cores() -> None:
    turns, inside = Turns(CORES, Marks(board(CORES))), threading.Event()

    def decode() -> None:
        with turns.of(9, alone=True):
            inside.set()

    with ExitStack() as busy:
        for number in range(1, CORES + 1):
            busy.enter_context(turns.of(number, alone=True))
        threading.Thread(target=decode).start()
        assert not inside.wait(0.3)
    assert inside.wait(20)
