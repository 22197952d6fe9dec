"""Whose turn it is to decode."""

import random
import threading
import time
from contextlib import ExitStack
from typing import cast

import pytest

from pipeline.errors import NoTurn
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Packet, StreamInfo
from pipeline.service.admission import Admission, Line, Live, Turns
from pipeline.service.marks import Marks, board, marked
from tests.fixtures.redis import until

CORES = 2


def test_a_packet_of_a_sequence_does_not_wait_behind_keyframes_and_all_of_them_are_marked() -> None:
    shared = board(CORES)
    turns, inside = Turns(CORES, Marks(shared)), threading.Event()

    def feed() -> None:
        with turns.of(9):
            inside.set()

    with ExitStack() as busy:
        for number in range(1, CORES + 1):
            busy.enter_context(turns.alone(number))
        threading.Thread(target=feed).start()
        assert inside.wait(20)
        busy.enter_context(turns.of(7))
        busy.enter_context(turns.of(8))
        for number in (5, 6):  # what closer looks convert meanwhile
            busy.enter_context(turns.marked(number))
        assert set(marked(shared)) == {1, 2, 5, 6, 7, 8}
    assert marked(shared) == {}


def test_no_more_keyframes_are_decoded_at_a_time_than_there_are_cores() -> None:
    turns, inside = Turns(CORES, Marks(board(CORES))), threading.Event()

    def decode() -> None:
        with turns.alone(9):
            inside.set()

    with ExitStack() as busy:
        for number in range(1, CORES + 1):
            busy.enter_context(turns.alone(number))
        threading.Thread(target=decode).start()
        assert not inside.wait(0.3)
    assert inside.wait(20)


def test_a_closer_look_leaves_the_spare_place_to_others() -> None:
    turns, inside = Turns(2, Marks(board(2)), spare=1), threading.Event()

    def look() -> None:
        with turns.beside(1, lambda: True):
            inside.set()

    with turns.alone(2):
        threading.Thread(target=look).start()
        until(lambda: turns.waiting == 1)
        with turns.alone(3):
            assert not inside.is_set()
        assert not inside.wait(0.2)
    assert inside.wait(20)


def test_packets_of_a_closer_look_have_only_what_keyframes_and_scoring_leave_idle() -> None:
    turns, order = Turns(1, Marks(board(1))), list[str]()

    def look() -> None:
        with turns.beside(1, lambda: True):
            order.append("look")

    def decode() -> None:
        with turns.alone(2):
            threading.Event().wait(0.05)
            order.append("keyframe")

    threads = [threading.Thread(target=run) for run in (look, decode, decode, decode)]
    with turns.scoring():
        for thread in threads:
            thread.start()
        until(lambda: turns.waiting == len(threads))
    for thread in threads:
        thread.join(20)
    assert order == ["keyframe", "keyframe", "keyframe", "look"]


def test_a_closer_look_that_nobody_waits_for_any_more_leaves_the_line() -> None:
    turns, wanted = Turns(1, Marks(board(1))), [True]

    def look() -> None:
        with pytest.raises(NoTurn), turns.beside(1, lambda: wanted[0]):
            raise AssertionError("it had a turn")

    waiting = threading.Thread(target=look)
    with turns.scoring():
        waiting.start()
        until(lambda: turns.waiting == 1)
        wanted[0] = False
        waiting.join(20)
        assert not waiting.is_alive()


def test_keyframes_and_pictures_that_are_scored_share_the_cores_and_a_picture_goes_first() -> None:
    turns, order = Turns(1, Marks(board(1))), list[str]()

    def decode() -> None:
        with turns.alone(1, due_s=-1e9):
            order.append("keyframe")

    def score() -> None:
        with turns.scoring():
            order.append("picture")

    threads = [threading.Thread(target=work) for work in (decode, score)]
    with turns.scoring():
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: turns.waiting > number)  # type: ignore[misc]
    for thread in threads:
        thread.join(20)
    assert order == ["picture", "keyframe"]


def test_a_keyframe_that_waits_for_room_keeps_no_picture_from_being_scored() -> None:
    """It is the picture's slot that it waits for."""
    turns, room = Turns(1, Marks(board(1))), threading.Event()

    def decode() -> None:
        with turns.alone(1, room=room.is_set):
            pass

    waiting = threading.Thread(target=decode)
    waiting.start()
    with turns.scoring():
        room.set()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_keyframe_for_which_no_core_is_free_in_time_has_no_turn() -> None:
    turns = Turns(1, Marks(board(1)))
    with (
        turns.scoring(),
        pytest.raises(NoTurn, match="no core"),
        turns.alone(1, until_s=time.monotonic() + 0.1),
    ):
        pass
    with turns.alone(1):  # nothing was kept
        pass


def test_the_keyframe_that_is_due_first_has_the_next_turn_however_long_others_have_waited() -> None:
    line, order = Line(1), list[float]()

    def decode(due_s: float) -> None:
        assert line.enter(due_s)
        order.append(due_s)
        line.leave()

    waiting = [threading.Thread(target=decode, args=(due_s,)) for due_s in (5.0, 3.0, 9.0, 1.0)]
    assert line.enter(0.0)
    for number, thread in enumerate(waiting):
        thread.start()
        until(lambda number=number: line.waiting > number)  # type: ignore[misc]
    line.leave()
    for thread in waiting:
        thread.join(20)
    assert order == [1.0, 3.0, 5.0, 9.0]


def test_a_turn_that_does_not_come_in_time_is_refused_and_takes_nobody_elses() -> None:
    turns, refused = Turns(1, Marks(board(1))), list[NoTurn]()

    def decode() -> None:
        try:
            with turns.alone(1, due_s=0.0, until_s=time.monotonic() + 0.05):
                pass
        except NoTurn as error:
            refused.append(error)

    with turns.alone(1):
        late = threading.Thread(target=decode)
        late.start()
        late.join(20)
        assert len(refused) == 1
    with turns.alone(1):  # it is free again
        pass
    with pytest.raises(NoTurn), turns.alone(1, until_s=time.monotonic()):
        pass


def test_no_place_is_lost_or_made_while_many_wait_and_give_up() -> None:
    """Forty threads that take a turn or give up, again and again: never more at work than places, all free in
    the end."""
    line, inside, most, counted = Line(CORES), [0], [0], threading.Lock()

    def come_and_go(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(50):
            if line.enter(rng.random(), time.monotonic() + rng.uniform(0.0, 0.002)):
                with counted:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                with counted:
                    inside[0] -= 1
                line.leave()

    threads = [threading.Thread(target=come_and_go, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 1 <= most[0] <= CORES
    assert [line.enter(0.0, time.monotonic() + 0.1) for _ in range(CORES + 1)] == [True] * CORES + [False]


class Endless:
    """A decoder that gives a picture for every packet."""

    damaged = 0

    def __init__(self) -> None:
        self.decoded: list[float] = []

    def still(self, packet: Packet) -> Picture:
        self.decoded.append(packet.time_s)
        return Picture(packet.time_s, 64, 64, packet.arrived)

    def close(self) -> None: ...


def _key(time_s: float, arrived: float) -> Packet:
    return Packet(time_s, keyframe=True, size=1, arrived=arrived, pts=1)


def test_a_live_keyframe_that_is_too_old_or_finds_no_slot_is_not_decoded() -> None:
    made, room = Endless(), [True]
    live = Live(gap_s=lambda: 2.0, patience_s=1.5, room=lambda: room[0])
    turns = Turns(1, Marks(board(1)))
    admission = Admission("cpu", turns, 1, live=live, open_decoder=lambda info, device: cast(Decoder, made))
    info = StreamInfo("h264", 64, 64)
    with admission.decoder(info) as decoder:
        now = time.monotonic()
        assert decoder.still(_key(0.0, now)) is not None
        room[0] = False
        with pytest.raises(NoTurn, match="no room"):
            decoder.still(_key(2.0, time.monotonic() - 1.45))
        room[0] = True
        with turns.alone(2), pytest.raises(NoTurn, match="in time"):
            decoder.still(_key(4.0, now - 2.0))
        assert decoder.still(_key(6.0, now)) is not None
    assert made.decoded == [0.0, 6.0]


class Slow(Endless):
    """Takes 50 ms for a picture, and notes how old its keyframe was when it began."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: list[float] = []

    def still(self, packet: Packet) -> Picture:
        self.ages.append(time.monotonic() - packet.arrived)
        threading.Event().wait(0.05)
        return super().still(packet)


def test_twice_too_many_streams_all_get_fresh_pictures_and_none_gets_all() -> None:
    """Twenty streams with two keyframes a second each, forty in all, on a decoder for twenty."""
    gap_s, patience_s, streams, run_s = 0.5, 0.3, 20, 5.0
    turns, started, missed = Turns(1, Marks(board(1))), time.monotonic(), [0] * streams
    decoders = [Slow() for _ in range(streams)]

    def camera(number: int) -> None:
        made = decoders[number]
        live = Live(gap_s=lambda: gap_s, patience_s=patience_s, room=lambda: True)
        admission = Admission("cpu", turns, number, live=live, open_decoder=lambda *_: cast(Decoder, made))
        with admission.decoder(StreamInfo("h264", 64, 64)) as decoder:
            for frame in range(int(run_s / gap_s)):
                arrived = started + frame * gap_s + number * gap_s / streams
                threading.Event().wait(max(0.0, arrived - time.monotonic()))
                try:
                    decoder.still(_key(frame * gap_s, arrived))
                except NoTurn:
                    missed[number] += 1

    threads = [threading.Thread(target=camera, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counts = [len(decoder.decoded) for decoder in decoders]
    oldest_s = max(age for decoder in decoders for age in decoder.ages)
    assert oldest_s < patience_s + 2  # it would be 5 s, if none were left out
    assert sum(missed) > 0
    assert min(counts) >= 1
    assert max(counts) <= 3 * min(counts) + 3
