"""Who gets a decoder while a GPU's memory lasts: arithmetic, on a GPU that is a number.

The same on the real PyNvVideoCodec wheel and a fake driver: ``test_fake_driver_trouble.py``."""

from contextlib import ExitStack

import pytest

from pipeline.backends.nvdec_memory import RESERVE_MB, DecoderMemory, budget_mb
from pipeline.errors import SourceNoRoom

FULL_HD = ("h264", 1920, 1080, 8)


class Gpu:
    """Free memory in MB."""

    def __init__(self, free: float) -> None:
        self.free = free
        self.memory = DecoderMemory(lambda: (round(self.free * 1e6), round(16_000e6)))

    def open(self, takes: float = 60.0, kind: tuple[str, int, int, int] = FULL_HD) -> None:
        with self.memory.opening(*kind, make_room=lambda: None):
            self.free -= takes


def test_the_budget_grows_with_the_picture_and_its_depth_and_is_never_small() -> None:
    assert budget_mb(1920, 1080) == 100.0
    assert budget_mb(3840, 2160) == 400.0
    assert budget_mb(320, 240) == 25.0
    assert budget_mb(1920, 1080, bits=10) == 200.0


def test_what_the_first_of_a_kind_took_is_what_the_next_are_admitted_with() -> None:
    """Room for 144 MB: one by the budget, two by what was measured; another kind still has its budget."""
    gpu = Gpu(RESERVE_MB + 144)
    assert gpu.memory.need(*FULL_HD) == (100.0, False)
    gpu.open()
    need, measured = gpu.memory.need(*FULL_HD)
    assert measured
    assert need == pytest.approx(60.0)
    gpu.open()
    with pytest.raises(
        SourceNoRoom, match=r"it takes 60 MB \(measured\), 280 of 16000 MB are free.* 2 decoders"
    ):
        gpu.open()
    with pytest.raises(
        SourceNoRoom, match=r"hevc 1920 x 1080.* takes 100 MB \(a budget, never measured here\)"
    ):
        gpu.open(kind=("hevc", 1920, 1080, 8))
    gpu.free += 60
    gpu.memory.closed()
    gpu.open()
    assert gpu.memory.open == 2


def test_decoders_that_are_opened_at_the_same_time_are_not_promised_the_same_memory() -> None:
    gpu = Gpu(RESERVE_MB + 250)
    with ExitStack() as openings:
        for _ in range(2):
            openings.enter_context(gpu.memory.opening(*FULL_HD, make_room=lambda: None))
        with pytest.raises(SourceNoRoom, match="200 MB of them promised"):
            gpu.open()
        gpu.free -= 2 * 60
    assert gpu.memory.need(*FULL_HD) == (100.0, False), "which of the two took what cannot be told"
    gpu.open()
    assert gpu.memory.open == 3


@pytest.mark.parametrize("takes", [0.0, 10.0, 900.0])
def test_what_nobody_would_believe_of_a_decoder_is_not_learnt(takes: float) -> None:
    gpu = Gpu(8000)
    gpu.open(takes)
    assert gpu.memory.need(*FULL_HD) == (100.0, False)


def test_a_decoder_that_could_not_be_opened_gives_its_promise_back() -> None:
    gpu = Gpu(RESERVE_MB + 100)
    with pytest.raises(ZeroDivisionError), gpu.memory.opening(*FULL_HD, make_room=lambda: None):
        _ = 1 / 0
    assert gpu.memory.open == 0
    gpu.open()


def test_idle_decoders_are_freed_before_anybody_is_refused() -> None:
    gpu = Gpu(RESERVE_MB + 50)

    def make_room() -> None:
        gpu.free += 60

    with gpu.memory.opening(*FULL_HD, make_room=make_room):
        pass
    assert gpu.free == RESERVE_MB + 110
