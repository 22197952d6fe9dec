"""Packets at the pace of a clock that stands still unless somebody waits."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backends import realtime
from pipeline.backends.realtime import BURST, EARLY_S, LATE_S, paced
from pipeline.errors import SourceCorrupt
from pipeline.flow.source import Packet


class Clock(threading.Event):
    """Goes on only while it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.waits = 0.0, 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        self.now += timeout or 0.0
        return False

    def monotonic(self) -> float:
        return self.now


def film(count: int, *, gop: int, rate: float = 30.0) -> Iterator[Packet]:
    for n in range(count):
        yield Packet(n / rate, keyframe=n % gop == 0, size=1, arrived=n / rate, pts=n)


@given(st.integers(1, 400), st.integers(1, 90), st.floats(5.0, 200.0), st.floats(0.0, 20.0), st.booleans())
def test_every_packet_comes_once_in_order_and_about_when_it_is_due(
    count: int, gop: int, rate: float, late_s: float, local: bool
) -> None:
    """Keyframes and the last one just then. ``late_s``: the reader has fallen behind so far."""
    clock, found = Clock(), list[Packet]()
    clock.now = late_s
    for packet in paced(film(count, gop=gop, rate=rate), clock, clock.monotonic, local=local):
        early_s = packet.arrived - clock.now
        assert early_s <= (0.0 if packet.keyframe else EARLY_S) + 1e-9
        on_time = packet.keyframe or packet.pts == count - 1
        assert early_s >= -max(late_s - packet.arrived, 0.0 if on_time else LATE_S) - 1e-9
        found.append(packet)
    assert found == list(film(count, gop=gop, rate=rate))


def test_a_second_takes_a_few_waits_not_one_a_packet() -> None:
    clock = Clock()
    for _ in paced(film(300, gop=60), clock, clock.monotonic, local=True):
        pass
    assert 20 <= clock.waits <= 35  # 10 s: each four tenths, and for each keyframe


def test_what_was_read_before_an_error_comes_before_it() -> None:
    def breaks() -> Iterator[Packet]:
        yield from film(3, gop=60)
        raise SourceCorrupt("here")

    clock = Clock()
    packets = paced(breaks(), clock, clock.monotonic, local=True)
    assert [next(packets).pts for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceCorrupt, match="here"):
        next(packets)


def test_no_more_than_a_burst_is_held() -> None:
    read = 0

    def endless() -> Iterator[Packet]:
        nonlocal read
        for packet in film(10**6, gop=10**6, rate=1e6):
            read += 1
            yield packet

    clock = Clock()
    packets = paced(endless(), clock, clock.monotonic, local=True)
    for _ in range(10):
        next(packets)
    assert 10 < read <= BURST + 1


def test_readers_of_a_disk_that_hangs_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as may read at a time stand still in their reads."""
    monkeypatch.setattr(realtime, "PATIENCE_S", 0.05)
    answer, inside, clock = threading.Event(), threading.Semaphore(0), Clock()

    def hangs() -> Iterator[Packet]:
        inside.release()
        answer.wait(20)
        yield from film(1, gop=1)

    def read() -> None:
        list(paced(hangs(), clock, clock.monotonic, local=True))

    stuck = [threading.Thread(target=read) for _ in range(realtime.READERS)]
    for thread in stuck:
        thread.start()
        assert inside.acquire(timeout=20)
    found = list(paced(film(5, gop=5), clock, clock.monotonic, local=True))
    still = [thread.is_alive() for thread in stuck]
    answer.set()
    for thread in stuck:
        thread.join(20)
    assert len(found) == 5
    assert all(still)
