"""Every frame pool: its leases, its batches, and what wakes a reader."""

import sys
import threading
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backends import registry
from pipeline.errors import BackendError, Closed, DecodeError
from pipeline.flow.decode import Picture
from pipeline.flow.frames import Frame, FramePool, InputSpec
from tests.fixtures.pools import OpenPool, host

TINY = InputSpec(8, 6)


def grey(value: int, *, time_s: float = 0.0) -> Picture:
    """A picture whose slot holds ``value`` everywhere."""
    frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), value, np.uint8), format="rgb24")
    return Picture(time_s, 32, 24, arrived=time_s, surface=frame)


def lend(pool: FramePool, value: int = 0, *, live: bool = True) -> Frame:
    frame = pool.store(grey(value), stream=0, sample=0, live=live, timeout=0)
    assert frame is not None
    return frame


def test_a_frame_carries_what_its_picture_was(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 1)
    frame = pool.store(grey(7, time_s=4.5), stream=3, sample=9, live=False, timeout=0)
    assert frame is not None
    assert (frame.stream, frame.sample, frame.time_s, frame.arrived, frame.live) == (3, 9, 4.5, 4.5, False)
    assert frame.pool is pool


def test_a_full_pool_has_no_slot_for_a_frame_that_does_not_wait(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 2)
    frames = [lend(pool), lend(pool)]
    assert pool.free == 0
    assert pool.store(grey(0), stream=0, sample=0, live=True, timeout=0) is None
    frames[0].release()
    assert pool.free == 1
    lend(pool)


def test_waiting_for_a_slot_ends_in_time(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 1)
    lend(pool)
    assert pool.store(grey(0), stream=0, sample=0, live=False, timeout=0.01) is None


def test_a_second_release_is_refused_even_when_the_slot_is_lent_again(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 1)
    first = lend(pool)
    first.release()
    with pytest.raises(ValueError, match="does not hold its slot"):
        first.release()
    second = lend(pool)
    with pytest.raises(ValueError, match="does not hold its slot"):
        first.release()
    second.release()
    assert pool.free == 1


def test_a_frame_of_another_pool_is_refused(open_pool: OpenPool) -> None:
    mine, other = open_pool(TINY, 1), open_pool(TINY, 1)
    frame = lend(other)
    with pytest.raises(ValueError, match="does not hold its slot"):
        mine.release(frame)


def test_files_leave_the_reserve_to_live_frames(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 3, live_reserve=1)
    lend(pool, live=False)
    held = lend(pool, live=False)
    assert pool.store(grey(0), stream=0, sample=0, live=False, timeout=0) is None
    lend(pool)
    held.release()
    assert pool.store(grey(0), stream=0, sample=0, live=False, timeout=0) is None
    lend(pool)


@pytest.mark.parametrize(("slots", "reserve"), [(0, 0), (2, 2), (2, -1)])
def test_a_pool_without_room_is_refused(open_pool: OpenPool, slots: int, reserve: int) -> None:
    with pytest.raises(BackendError, match=f"{slots} slots"):
        open_pool(TINY, slots, live_reserve=reserve)


def test_slots_are_float16_where_the_engine_reads_that_and_no_pool_passes_off_another(
    open_pool: OpenPool,
) -> None:
    try:
        pool = open_pool(replace(TINY, half=True), 1)
    except BackendError as refusal:
        found = str(refusal)
    else:
        found = str(host(pool.gather([lend(pool, 7)])).dtype)
    assert found in {"float16", "a frame pool in main memory holds float32, its engine asks for float16"}


def test_a_picture_that_cannot_be_converted_costs_no_slot(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 1)
    odd = Picture(0.0, 32, 24, arrived=0.0, surface=av.VideoFrame(32, 24, "rgbaf32le"))
    with pytest.raises(DecodeError, match="32 x 24 in the pixel format rgbaf32le"):
        pool.store(odd, stream=0, sample=0, live=True, timeout=0)
    assert pool.free == 1
    lend(pool)


def test_neighbours_are_gathered_without_a_copy(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 4)
    frames = [lend(pool, value) for value in (10, 20, 30)]
    batch = pool.gather(frames)
    assert batch.shape == (3, *TINY.slot_shape())
    assert [slot.min() for slot in host(batch)] == [10, 20, 30]
    frames[1].release()
    lend(pool, 77)
    again = lend(pool, 99)
    assert again.slot == frames[1].slot
    pool.gather([again])  # on a GPU this thread's stream then waits for the new picture
    assert host(batch)[1].max() == 99


def test_frames_that_are_no_neighbours_are_gathered_in_the_order_asked_for(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 4)
    frames = [lend(pool, value) for value in (10, 20, 30, 40)]
    assert [slot.min() for slot in host(pool.gather([frames[3], frames[0], frames[2]]))] == [40, 10, 30]


def test_slots_are_lent_around_the_ring(open_pool: OpenPool) -> None:
    """Released out of order, they are still lent in order, so that batches stay neighbours."""
    pool = open_pool(TINY, 6)
    for _ in range(3):
        frames = [lend(pool) for _ in range(3)]
        slots = [frame.slot for frame in frames]
        assert slots == list(range(slots[0], slots[0] + 3))
        for frame in (frames[2], frames[0], frames[1]):
            frame.release()


@given(steps=st.lists(st.integers(0, 9), max_size=60), slots=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_slots_are_conserved_and_pictures_stay_apart(steps: list[int], slots: int) -> None:
    """0 to 4 store a picture of that grey, 5 to 9 release the frame in that place."""
    pool = registry.open_pool(TINY, slots)
    held: list[tuple[Frame, int]] = []
    for step in steps:
        if step < 5:
            frame = pool.store(grey(step), stream=0, sample=0, live=True, timeout=0)
            assert (frame is None) == (len(held) == slots)
            if frame is not None:
                held.append((frame, step))
        elif len(held) > step - 5:
            held.pop(step - 5)[0].release()
        assert pool.free == slots - len(held)
        assert len({frame.slot for frame, _ in held}) == len(held)
    if held:
        values = host(pool.gather([frame for frame, _ in held])).mean(axis=(1, 2, 3))
        assert np.allclose(values, [value for _, value in held])


class Waiter(threading.Thread):
    """A reader that stores one picture and waits for its slot as long as it takes."""

    def __init__(self, pool: FramePool, *, live: bool = False) -> None:
        super().__init__(daemon=True)
        self._pool, self._live = pool, live
        self.frame: Frame | None = None
        self.closed = False
        self.start()

    def run(self) -> None:
        try:
            self.frame = self._pool.store(grey(1), stream=0, sample=0, live=self._live, timeout=None)
        except Closed:
            self.closed = True

    def waits(self) -> bool:
        """True as soon as it stands still in the pool's wait; False after 10 s."""
        pause = threading.Event()
        for _ in range(2000):
            stack = sys._current_frames().get(self.ident or 0)
            if stack is not None and stack.f_code.co_name == "wait":
                return True
            pause.wait(0.005)
        return False

    def ended(self) -> bool:
        self.join(10)
        return not self.is_alive()


@pytest.mark.parametrize("live", [False, True])
def test_a_released_slot_wakes_a_waiting_reader(open_pool: OpenPool, live: bool) -> None:
    pool = open_pool(TINY, 1)
    held = lend(pool)
    waiter = Waiter(pool, live=live)
    assert waiter.waits()
    held.release()
    assert waiter.ended()
    assert waiter.frame is not None
    assert pool.free == 0


def test_a_closed_pool_wakes_every_reader(open_pool: OpenPool) -> None:
    pool = open_pool(TINY, 1)
    held = lend(pool)
    waiters = [Waiter(pool, live=live) for live in (False, True, False)]
    assert all(waiter.waits() for waiter in waiters)
    pool.close()
    assert all(waiter.ended() and waiter.closed for waiter in waiters)
    with pytest.raises(Closed):
        lend(pool)
    held.release()
    assert pool.free == pool.slots


def test_many_readers_and_one_consumer_lose_no_slot_and_mix_no_picture(open_pool: OpenPool) -> None:
    """Six readers of 15 pictures share three slots; every frame holds its reader's grey when it is read."""
    pool = open_pool(TINY, 3)
    ready: list[Frame] = []
    arrived = threading.Condition()

    def read(stream: int) -> None:
        for sample in range(15):
            frame = pool.store(grey(40 * stream), stream=stream, sample=sample, live=False, timeout=None)
            assert frame is not None
            with arrived:
                ready.append(frame)
                arrived.notify()

    readers = [threading.Thread(target=read, args=(stream,), daemon=True) for stream in range(6)]
    for reader in readers:
        reader.start()
    seen: list[tuple[int, int]] = []
    while len(seen) < 90:
        with arrived:
            assert arrived.wait_for(lambda: bool(ready), timeout=20)
            batch = ready[:]
            ready.clear()
        values = host(pool.gather(batch)).mean(axis=(1, 2, 3))
        assert np.allclose(values, [40 * frame.stream for frame in batch])
        seen += [(frame.stream, frame.sample) for frame in batch]
        for frame in batch:
            frame.release()
    for reader in readers:
        reader.join(10)
    assert sorted(seen) == [(stream, sample) for stream in range(6) for sample in range(15)]
    assert pool.free == pool.slots
