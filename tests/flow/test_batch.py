"""Batches by hand-moved clocks and a pool that only keeps count."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.flow.batch import Batch, Batcher, BatchRules
from pipeline.flow.decode import Picture
from pipeline.flow.frames import Frame, InputSpec


@dataclass
class CountingPool:
    """A ``FramePool`` without pixels: lends slots for ever and knows which are out."""

    spec: InputSpec = field(default_factory=lambda: InputSpec(1, 1))
    slots: int = 10**9
    leased: dict[int, Frame] = field(default_factory=dict)
    made: int = 0

    @property
    def free(self) -> int:
        return self.slots - len(self.leased)

    def store(
        self, picture: Picture, *, stream: int, sample: int, live: bool, timeout: float | None
    ) -> Frame:
        frame = Frame(self, self.made, stream, sample, picture.time_s, picture.arrived, live)
        self.made += 1
        self.leased[frame.slot] = frame
        return frame

    def release(self, frame: Frame) -> None:
        if self.leased.pop(frame.slot, None) is not frame:
            raise ValueError(f"{frame!r} was released twice")

    def gather(self, frames: list[Frame]) -> list[int]:
        return [frame.slot for frame in frames]

    def close(self) -> None:
        """Nobody waits here."""


class Bench:
    """A batcher and its pool; frames are named by their stream and number."""

    def __init__(self, rules: BatchRules | None = None) -> None:
        self.pool = CountingPool()
        self.batcher = Batcher(rules or BatchRules())
        self._samples: Counter[int] = Counter()

    def put(self, stream: int, *, live: bool = True, arrived: float = 0.0, now: float | None = None) -> Frame:
        self._samples[stream] += 1
        number = self._samples[stream]
        picture = Picture(time_s=float(number), width=1, height=1, arrived=arrived)
        frame = self.pool.store(picture, stream=stream, sample=number, live=live, timeout=0)
        self.batcher.put(frame, now)
        return frame

    def take(self, now: float = 0.0) -> list[tuple[int, int]]:
        """(stream, sample) of the next batch, whose frames go back."""
        batch, _ = self.batcher.take(now)
        with batch:
            return [(frame.stream, frame.sample) for frame in batch.frames]


def test_nothing_is_due_when_nothing_waits() -> None:
    assert Batcher(BatchRules()).due(5.0) is None


def test_a_full_batch_is_due_at_once() -> None:
    bench = Bench(BatchRules(max_size=2))
    bench.put(1, now=10.0)
    assert bench.batcher.due(10.0) == pytest.approx(0.05)
    bench.put(2, now=10.0)
    assert bench.batcher.due(10.0) == 0.0


def test_a_batch_is_due_when_enough_frames_wait_and_takes_all_of_them() -> None:
    bench = Bench(BatchRules(max_size=4, enough=2))
    bench.put(1, now=0.0)
    assert bench.batcher.due(0.0) == pytest.approx(0.05)
    bench.put(2, now=0.0)
    bench.put(3, now=0.0)
    assert bench.batcher.due(0.0) == 0.0
    assert len(bench.take(0.0)) == 3


def test_a_batch_is_due_when_its_first_frame_has_waited_enough() -> None:
    bench = Bench(BatchRules(max_wait_s=0.5))
    bench.put(1, now=10.0)
    bench.put(1, now=10.4)
    assert bench.batcher.due(10.1) == pytest.approx(0.4)
    assert bench.batcher.due(99.0) == 0.0
    bench.take(10.5)
    assert bench.batcher.due(10.5) is None


def test_the_wait_counts_from_the_arrival_when_nothing_else_is_said() -> None:
    bench = Bench(BatchRules(max_wait_s=0.5))
    bench.put(1, arrived=3.0)
    assert bench.batcher.due(3.2) == pytest.approx(0.3)


def test_a_batch_holds_no_more_than_its_size() -> None:
    bench = Bench(BatchRules(max_size=3))
    for _ in range(5):
        bench.put(1)
    assert [len(bench.take()), len(bench.take()), len(bench.take())] == [3, 2, 0]


def test_places_that_files_did_not_want_are_not_saved_up() -> None:
    """Fifty batches with a single frame of a file each, then a crowd of both kinds."""
    bench = Bench(BatchRules(max_size=16))
    for _ in range(50):
        bench.put(1, live=False)
        bench.take()
    for _ in range(40):
        bench.put(1, live=False)
        bench.put(2)
    first = bench.take()
    assert len(first) == 16
    assert sum(stream == 1 for stream, _ in first) in (4, 5)


def test_a_batch_gives_every_slot_back_even_when_scoring_fails() -> None:
    bench = Bench()
    for stream in range(4):
        bench.put(stream)
    batch, _ = bench.batcher.take(0.0)
    with pytest.raises(RuntimeError, match="engine"), batch:
        raise RuntimeError("engine")
    assert not bench.pool.leased


def test_a_batch_gives_the_other_slots_back_when_one_was_released_already() -> None:
    bench = Bench()
    frames = [bench.put(stream) for stream in range(3)]
    batch, _ = bench.batcher.take(0.0)
    frames[1].release()
    with pytest.raises(ValueError, match="twice"), batch:
        pass
    assert not bench.pool.leased


def test_pixels_come_in_the_order_of_the_frames() -> None:
    bench = Bench()
    for stream in (3, 1, 2):
        bench.put(stream)
    batch, _ = bench.batcher.take(0.0)
    with batch:
        assert batch.pixels == [frame.slot for frame in batch.frames] == [0, 1, 2]


def test_stale_live_frames_are_released_and_reported() -> None:
    bench = Bench(BatchRules(stale_s=2.0))
    old = bench.put(1, arrived=0.0)
    new = bench.put(1, arrived=1.5)
    batch, stale = bench.batcher.take(3.0)
    assert stale == [old]
    assert batch.frames == [new]
    assert list(bench.pool.leased.values()) == [new]


def test_a_batch_is_empty_when_all_that_waited_was_stale() -> None:
    bench = Bench(BatchRules(stale_s=2.0))
    bench.put(1, arrived=0.0)
    batch, stale = bench.batcher.take(3.0)
    assert (batch.frames, len(stale), bench.batcher.due(3.0)) == ([], 1, None)
    with batch:
        pass


def test_frames_of_files_are_never_stale() -> None:
    bench = Bench(BatchRules(stale_s=2.0))
    bench.put(1, arrived=0.0, live=False)
    assert bench.take(1e6) == [(1, 1)]


def test_streams_take_turns() -> None:
    bench = Bench(BatchRules(max_size=4))
    for _ in range(10):
        bench.put(1)
    bench.put(2)
    bench.put(3)
    assert sorted(bench.take()) == [(1, 1), (1, 2), (2, 1), (3, 1)]
    assert sorted(bench.take()) == [(1, 3), (1, 4), (1, 5), (1, 6)]


def test_live_goes_before_file_but_leaves_files_a_quarter() -> None:
    bench = Bench(BatchRules(max_size=8))
    for _ in range(20):
        bench.put(1, live=False)
        bench.put(2)
    assert Counter(stream for stream, _ in bench.take()) == {2: 6, 1: 2}


def test_even_batches_of_one_are_a_quarter_files() -> None:
    bench = Bench(BatchRules(max_size=1))
    for _ in range(20):
        bench.put(1)
        bench.put(2, live=False)
    assert Counter(bench.take()[0][0] for _ in range(20)) == {1: 15, 2: 5}


def test_files_fill_the_places_that_live_streams_leave() -> None:
    bench = Bench(BatchRules(max_size=8))
    bench.put(2)
    for _ in range(20):
        bench.put(1, live=False)
    assert Counter(stream for stream, _ in bench.take()) == {2: 1, 1: 7}


def test_frames_of_a_batch_stay_in_the_order_in_which_they_were_put() -> None:
    """Slots are lent in a ring, so this makes them neighbours."""
    bench = Bench(BatchRules(max_size=8))
    for stream in (4, 4, 2, 4, 1):
        bench.put(stream)
    assert bench.take() == [(4, 1), (4, 2), (2, 1), (4, 3), (1, 1)]


def test_clearing_releases_and_reports_all_that_waits() -> None:
    bench = Bench()
    frames = [bench.put(1), bench.put(2, live=False)]
    assert bench.batcher.clear() == frames
    assert (len(bench.batcher), bench.pool.leased) == (0, {})


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_size": 0}, "max_size: 0"),
        ({"max_wait_s": -1.0}, "max_wait_s: -1.0"),
        ({"stale_s": 0.0}, "stale_s: 0.0"),
        ({"max_wait_s": float("nan")}, "max_wait_s: nan"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rules: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchRules(**rules)  # type: ignore[arg-type]


# An arrival is (stream, seconds since the one before); streams below 3 are files. None takes a batch.
STEPS = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 7), st.floats(0.0, 1.0))), max_size=120)


@given(steps=STEPS, size=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_every_frame_comes_out_once_and_every_stream_in_order(
    steps: list[tuple[int, float] | None], size: int
) -> None:
    bench = Bench(BatchRules(max_size=size, stale_s=1.5))
    put: list[Frame] = []
    scored: list[Frame] = []
    stale: list[Frame] = []
    now = 0.0

    def take() -> Batch:
        batch, dropped = bench.batcher.take(now)
        stale.extend(dropped)
        with batch:
            scored.extend(batch.frames)
        assert len(batch.frames) <= size
        return batch

    for step in steps:
        if step is None:
            take()
        else:
            now += step[1]
            put.append(bench.put(step[0], live=step[0] >= 3, arrived=now))
    while len(bench.batcher):
        assert take().frames or stale
    assert sorted(frame.slot for frame in scored + stale) == [frame.slot for frame in put]
    assert all(frame.live for frame in stale)
    assert not bench.pool.leased
    for stream in range(8):
        mine = [frame.sample for frame in scored if frame.stream == stream]
        assert mine == sorted(mine)


@given(waiting=st.lists(st.integers(0, 11), max_size=200), size=st.integers(1, 16))
@settings(max_examples=150, deadline=None)
def test_no_waiting_stream_falls_more_than_a_frame_behind_and_no_kind_below_its_share(
    waiting: list[int], size: int
) -> None:
    """Streams below 4 are files."""
    bench = Bench(BatchRules(max_size=size))
    for stream in waiting:
        bench.put(stream, live=stream >= 4)
    left = Counter(waiting)
    got: Counter[int] = Counter()
    batches = 0
    while len(bench.batcher):
        taken = [stream for stream, _ in bench.take()]
        batches += 1
        got.update(taken)
        left.subtract(taken)
        files = sum(got[stream] for stream in range(4))
        if any(left[stream] for stream in range(4)):
            assert files >= batches * size // 4
        if any(left[stream] for stream in range(4, 12)):
            assert got.total() == batches * size
            assert got.total() - files >= batches * size - -(-batches * size // 4)
        for kind in (range(4), range(4, 12)):
            behind = [got[stream] for stream in kind if left[stream]]
            if behind:
                assert max(got[stream] for stream in kind) <= min(behind) + 1
