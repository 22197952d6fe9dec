"""The GPU's frame pool, whole but for CuPy: its own code and kernel, on a device that works late.

Run on a real GPU it is the frame pool of ``tests/contract``; here the device is ``LazyDevice``."""

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.backends import frames_numpy
from pipeline.backends.device_surface import DeviceSurface
from pipeline.backends.frames_cupy import CupyPool
from pipeline.errors import BackendError, Closed, DecodeError
from pipeline.flow.decode import Picture
from pipeline.flow.frames import Frame, InputSpec
from pipeline.flow.resize import Colour, Plane, convert
from tests.gpu.cpu_kernel import CpuKernel, nv12, planar
from tests.gpu.lazy_device import LazyDevice
from tests.gpu.surfaces import from_memory, host_frame

TINY = InputSpec(4, 3)
FULL = Colour("rgb", full=True)


class LazyDecoder:
    """Gives plain pictures from one buffer, which its next call overwrites: NVDEC's rule."""

    def __init__(self, device: LazyDevice) -> None:
        self.stream = device.stream()
        self._buffer = np.zeros((8, 6), np.uint8)
        self._surface = planar([self._buffer] * 3, FULL)

    def decode(self, value: int) -> Picture:
        self.stream.do(lambda: self._buffer.fill(value))
        surface = DeviceSurface(self._surface.planes, FULL, False, stream=self.stream, keep=self._surface)
        return Picture(float(value), 6, 8, arrived=0.0, surface=surface)


class Read:
    """What a kernel queued now on the thread's stream will see in a batch."""

    def __init__(self, device: LazyDevice, batch: NDArray[Any]) -> None:
        self.seen: NDArray[Any] | None = None
        device.current_stream().do(lambda: setattr(self, "seen", batch.copy()))

    def values(self) -> list[float]:
        assert self.seen is not None, "the stream has not come this far"
        assert np.ptp(self.seen.reshape(len(self.seen), -1), axis=1).max() == 0.0
        return [float(slot.flat[0]) for slot in self.seen]


def lend(pool: CupyPool, picture: Picture, *, live: bool = True) -> Frame:
    frame = pool.store(picture, stream=0, sample=0, live=live, timeout=0)
    assert frame is not None
    return frame


@pytest.fixture
def device(zig_kernel: CpuKernel) -> LazyDevice:
    return LazyDevice(zig_kernel.launch)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_late_work_in_any_order_mixes_no_picture(zig_kernel: CpuKernel, seed: int) -> None:
    """Three decoders, four slots, one reader, 60 acts; streams step at random between them."""
    rng = random.Random(seed)
    device = LazyDevice(zig_kernel.launch)
    pool = CupyPool(TINY, 4, 0, device)
    decoders = [LazyDecoder(device) for _ in range(3)]
    held: list[tuple[Frame, int]] = []
    reads: list[tuple[Read, list[int]]] = []
    for _ in range(60):
        act = rng.random()
        if act < 0.4:
            value = rng.randrange(256)
            picture = rng.choice(decoders).decode(value)
            frame = pool.store(picture, stream=0, sample=0, live=True, timeout=0)
            assert (frame is None) == (len(held) == 4)
            if frame is not None:
                held.append((frame, value))
        elif act < 0.6 and held:
            chosen = rng.sample(held, rng.randint(1, len(held)))
            batch = pool.gather([frame for frame, _ in chosen])
            reads.append((Read(device, batch), [value for _, value in chosen]))
        elif act < 0.8 and held:
            held.pop(rng.randrange(len(held)))[0].release()
        else:
            device.step(rng)
        assert pool.free == 4 - len(held)
    device.drain(rng)
    for read, values in reads:
        assert read.values() == values


def test_storing_queues_work_and_waits_for_none_of_it(device: LazyDevice) -> None:
    pool, decoder = CupyPool(TINY, 2, 0, device), LazyDecoder(device)
    frames = [lend(pool, decoder.decode(10)), lend(pool, decoder.decode(20))]
    read = Read(device, pool.gather(frames))
    assert read.seen is None
    assert np.isnan(pool._pixels).all(), "nothing was converted yet"
    device.drain(random.Random(0))
    assert read.values() == [10, 20]


def test_a_picture_that_is_stored_too_late_would_be_seen(device: LazyDevice) -> None:
    """The detector works: after the decoder's next call its buffer holds the next picture."""
    pool, decoder = CupyPool(TINY, 2, 0, device), LazyDecoder(device)
    first = decoder.decode(10)
    decoder.decode(20)
    read = Read(device, pool.gather([lend(pool, first)]))
    device.drain(random.Random(0))
    assert read.values() == [20]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("bits", [8, 10])
def test_a_surface_of_the_decoder_becomes_what_the_reference_says(
    device: LazyDevice, bits: int, half: bool
) -> None:
    spec = InputSpec(30, 40, "nhwc", "bgr", (1, 2, 3), crop="center", resize=(36, 44), half=half)
    colour = Colour("bt709", bits=bits)
    rng = np.random.default_rng(1)
    sizes = [(90, 121), (45, 61), (45, 61)]
    planes: list[Plane] = [
        rng.integers(0, 2**bits, size).astype(np.uint8 if bits == 8 else np.uint16) for size in sizes
    ]
    memory = nv12(planes, colour)
    surface = DeviceSurface(memory.planes, colour, memory.deep, memory.shift, device.stream(), memory.keep)
    pool, picture = CupyPool(spec, 1, 0, device), Picture(0.0, 121, 90, 0.0, 90, surface)
    read = Read(device, pool.gather([lend(pool, picture)]))
    device.drain(random.Random(0))
    assert read.seen is not None
    assert read.seen.dtype == (np.float16 if half else np.float32)
    assert np.abs(read.seen[0] - convert(planes, spec, colour, 90)).max() <= 0.5


@pytest.mark.parametrize("form", ["yuv420p", "yuv444p", "yuv420p10le", "nv12", "gray", "rgb24"])
def test_a_picture_of_the_software_decoder_is_uploaded(device: LazyDevice, form: str) -> None:
    """A stream that the GPU cannot decode has its frames there all the same."""
    noise = np.random.default_rng(3).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=form)
    picture = Picture(0.0, 32, 24, 0.0, surface=frame)
    pool = CupyPool(TINY, 1, 0, device)
    read = Read(device, pool.gather([lend(pool, picture)]))
    device.drain(random.Random(0))
    on_cpu = np.empty(TINY.slot_shape(), np.float32)
    frames_numpy.convert(picture, TINY, on_cpu)
    assert read.seen is not None
    assert np.abs(read.seen[0] - on_cpu).max() <= 1


def test_a_picture_that_cannot_be_converted_costs_no_slot(device: LazyDevice) -> None:
    pool, decoder = CupyPool(TINY, 1, 0, device), LazyDecoder(device)
    odd = Picture(0.0, 32, 24, arrived=0.0, surface=av.VideoFrame(32, 24, "rgbaf32le"))
    with pytest.raises(DecodeError, match="32 x 24 in the pixel format rgbaf32le"):
        pool.store(odd, stream=0, sample=0, live=True, timeout=0)
    assert pool.free == 1
    lend(pool, decoder.decode(1))


def test_a_launch_that_fails_costs_no_slot_and_its_stream_still_counts(zig_kernel: CpuKernel) -> None:
    class Failing(LazyDevice):
        fails = True

        def launch(self, *given: Any, **named: Any) -> None:
            super().launch(*given, **named)  # queued all the same
            if self.fails:
                raise BackendError("the GPU failed to convert a picture")

    device = Failing(zig_kernel.launch)
    pool, first, second = CupyPool(TINY, 1, 0, device), LazyDecoder(device), LazyDecoder(device)
    with pytest.raises(BackendError):
        pool.store(first.decode(10), stream=0, sample=0, live=True, timeout=0)
    assert pool.free == 1
    device.fails = False
    read = Read(device, pool.gather([lend(pool, second.decode(20))]))
    while second.stream.step():  # as far as it gets: the failed kernel has to be done first
        pass
    device.drain(random.Random(0))
    assert read.values() == [20]


def test_a_second_release_and_a_foreign_frame_are_refused(device: LazyDevice) -> None:
    mine, other, decoder = CupyPool(TINY, 1, 0, device), CupyPool(TINY, 1, 0, device), LazyDecoder(device)
    frame = lend(other, decoder.decode(1))
    with pytest.raises(ValueError, match="does not hold its slot"):
        mine.release(frame)
    frame.release()
    with pytest.raises(ValueError, match="does not hold its slot"):
        frame.release()
    assert (mine.free, other.free) == (1, 1)


def test_neighbours_are_gathered_as_a_view_and_others_in_the_order_asked_for(device: LazyDevice) -> None:
    pool, decoder = CupyPool(TINY, 4, 0, device), LazyDecoder(device)
    frames = [lend(pool, decoder.decode(value)) for value in (10, 20, 30, 40)]
    assert np.shares_memory(pool.gather(frames[1:3]), pool._pixels)
    read = Read(device, pool.gather([frames[3], frames[0], frames[2]]))
    device.drain(random.Random(0))
    assert read.values() == [40, 10, 30]


def test_files_leave_the_reserve_to_live_frames(device: LazyDevice) -> None:
    pool, decoder = CupyPool(TINY, 3, 1, device), LazyDecoder(device)
    for _ in range(2):
        lend(pool, decoder.decode(1), live=False)
    assert pool.store(decoder.decode(1), stream=0, sample=0, live=False, timeout=0) is None
    lend(pool, decoder.decode(1))


def test_a_closed_pool_refuses_and_still_takes_frames_back(device: LazyDevice) -> None:
    pool, decoder = CupyPool(TINY, 1, 0, device), LazyDecoder(device)
    frame = lend(pool, decoder.decode(1))
    pool.close()
    with pytest.raises(Closed):
        lend(pool, decoder.decode(2))
    frame.release()
    assert pool.free == pool.slots


def test_many_readers_and_one_consumer_lose_no_slot_and_mix_no_picture(device: LazyDevice) -> None:
    """Four decoders in threads share three slots while the device works on its own, in any order."""
    pool, done = CupyPool(TINY, 3, 0, device), threading.Event()
    ready: list[Frame] = []
    arrived = threading.Condition()
    failures: list[BaseException] = []

    def carefully(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                raise

        return run

    def read(stream: int) -> None:
        decoder = LazyDecoder(device)
        for sample in range(12):
            picture = decoder.decode(40 * stream + sample)
            frame = pool.store(picture, stream=stream, sample=sample, live=False, timeout=20)
            assert frame is not None
            with arrived:
                ready.append(frame)
                arrived.notify()

    def work() -> None:
        rng = random.Random(0)
        while not done.is_set():
            if not device.step(rng):
                done.wait(0.001)

    threads = [threading.Thread(target=carefully(partial(read, n)), daemon=True) for n in range(4)]
    worker = threading.Thread(target=carefully(work), daemon=True)
    for thread in [*threads, worker]:
        thread.start()
    reads: list[tuple[Read, list[float]]] = []
    seen = 0
    while seen < 48:
        with arrived:
            assert arrived.wait_for(lambda: bool(ready), timeout=20)
            batch = ready[:]
            ready.clear()
        values = [40.0 * frame.stream + frame.sample for frame in batch]
        reads.append((Read(device, pool.gather(batch)), values))
        seen += len(batch)
        for frame in batch:
            frame.release()
    for thread in threads:
        thread.join(20)
    done.set()
    worker.join(20)
    assert not failures
    device.drain(random.Random(1))
    assert [read.values() for read, _ in reads] == [values for _, values in reads]
    assert pool.free == pool.slots


@pytest.mark.parametrize("bits", [8, 10])
def test_a_surface_copied_back_has_the_planes_that_it_was_made_of(bits: int) -> None:
    """What the tests of a GPU decoder compare pixels with."""
    colour, rng = Colour("bt2020", True, bits), np.random.default_rng(5)
    kind = np.uint8 if bits == 8 else np.uint16
    planes: list[Plane] = [
        rng.integers(0, 2**bits, size).astype(kind) for size in [(33, 47), (17, 24), (17, 24)]
    ]
    frame = host_frame(nv12(planes, colour, padding=5), from_memory)
    found, its_colour = frames_numpy._planes(frame)
    assert its_colour == colour
    assert all(np.array_equal(one, other) for one, other in zip(found, planes, strict=True))
