"""When a worker is wedged, when it is started again; and marks that outlive the process which made them."""

import ctypes
import signal
from multiprocessing.connection import Connection

import pytest

from pipeline.service.health import (
    LOADING_S,
    PAUSE_MOST_S,
    STUCK_S,
    WEDGED_S,
    WINDOW_S,
    Deaths,
    Pulse,
    stuck,
)
from pipeline.service.marks import SPAWN, Board, Marks, board, clear, marked, marked_by


def test_a_worker_that_beats_is_well() -> None:
    pulse = Pulse(ready=True, heard=100.0, beat=99.0)
    assert pulse.wedged(100.0 + WEDGED_S - 1.0, {}) is None


@pytest.mark.parametrize(
    ("heard", "beat", "why"),
    [(100.0, 111.0, "said nothing"), (111.0, 100.0, "inference thread")],
)
def test_silence_of_the_process_or_of_its_inference_thread_is_wedged(
    heard: float, beat: float, why: str
) -> None:
    assert why in (Pulse(ready=True, heard=heard, beat=beat).wedged(111.0, {}) or "")


def test_waiting_for_the_disk_is_not_wedged() -> None:
    pulse = Pulse(ready=True, heard=200.0, beat=100.0, excused=True)
    assert pulse.wedged(201.0, {}) is None


def test_loading_may_take_longer_but_not_for_ever() -> None:
    pulse = Pulse(started=100.0)
    assert pulse.wedged(100.0 + LOADING_S - 1, {}) is None
    assert "was not ready" in (pulse.wedged(100.0 + LOADING_S + 1, {}) or "")


def test_nobody_is_judged_after_the_supervisor_itself_was_held_up() -> None:
    pulse = Pulse(ready=True, heard=100.0, beat=100.0, grace=150.0)
    assert pulse.wedged(149.0, {}) is None
    assert pulse.wedged(151.0, {}) is not None


def test_a_decode_call_that_does_not_return_is_wedged_and_its_stream_is_known() -> None:
    now = 100.0 + STUCK_S + 1
    marks = {7: 100.0, 8: now - 0.1}
    assert "decode call" in (Pulse(ready=True, heard=now, beat=now).wedged(now, marks) or "")
    assert stuck(marks, now) == {7}


def test_the_first_restart_is_at_once_and_many_in_ten_minutes_rest_long() -> None:
    deaths = Deaths()
    pauses = []
    for number in range(8):
        deaths.add(float(number))
        pauses.append(deaths.pause_s(float(number)))
    assert pauses[0] == 0.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_MOST_S
    assert deaths.recent(7.0) == 8
    assert deaths.recent(WINDOW_S + 100.0) == 0
    deaths.add(WINDOW_S + 100.0)
    assert deaths.pause_s(WINDOW_S + 100.0) == 0.0


def _die_decoding(shared: Board, pipe: Connection) -> None:
    marks = Marks(shared)
    with marks.decoding(3):
        pass
    with marks.decoding(4), marks.decoding(5):
        pipe.send("in")
        ctypes.string_at(0)


def test_marks_outlive_a_crash_inside_a_decode_call() -> None:
    """A real one: the null pointer is read."""
    shared = board(2)
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_die_decoding, args=(shared, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == "in"
    process.join(20)
    assert process.exitcode == -signal.SIGSEGV
    assert set(marked(shared)) == {4, 5}
    assert marked_by(shared, 1) == set()
    clear(shared)
    assert marked(shared) == {}
    ours.close()
    process.close()
