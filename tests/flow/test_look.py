"""Where a closer look is asked for, and the packets that it needs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.look import Look, Lookout
from pipeline.flow.ring import RING_BYTES, PacketRing
from pipeline.flow.sample_rules import SamplingRules
from pipeline.flow.segment_rules import SegmentRules
from pipeline.flow.source import Packet


def lookout(**rules: float) -> Lookout:
    return Lookout({"sexual": SegmentRules()}, SamplingRules(**rules))  # type: ignore[arg-type]


def asked(scores: list[float], step_s: float = 2.0) -> list[tuple[float, float]]:
    out = lookout()
    looks = [out.judge(step_s * index, {"sexual": score}) for index, score in enumerate(scores)]
    return [(look.from_s, look.to_s) for look in looks if look is not None]


def test_a_suspicion_an_opening_and_a_closing_are_looked_at() -> None:
    """Suspicious at 2, open at 4, held at 6 (0.7), over at 8; nothing changes at 10."""
    assert asked([0.1, 0.55, 0.9, 0.7, 0.2, 0.1]) == [(0.0, 2.0), (2.0, 4.0), (6.0, 8.0)]


def test_clean_and_steady_scores_ask_for_nothing() -> None:
    assert asked([0.1, 0.2, 0.1, 0.3]) == []
    assert asked([0.9, 0.95, 0.99]) == []


def test_neighbours_that_are_dense_already_are_only_watched() -> None:
    out = lookout(burst_fps=8.0, burst_s=10.0)
    out.judge(1.0, {"sexual": 0.1})
    look = out.judge(1.125, {"sexual": 0.9})
    assert look is not None
    assert (look.from_s, look.to_s, look.watch_until_s) == (1.125, 1.125, 11.125)
    assert list(look.due()) == []


def test_a_new_session_begins_without_a_neighbour() -> None:
    out = lookout()
    out.judge(10.0, {"sexual": 0.1})
    out.restart(None)
    assert out.judge(0.0, {"sexual": 0.9}) is None


@given(st.floats(0.0, 1e4), st.floats(0.2, 20.0), st.floats(1.0, 30.0))
def test_due_times_lie_evenly_inside_and_no_further_apart_than_asked(
    from_s: float, length_s: float, fps: float
) -> None:
    due = list(Look(1, from_s, from_s + length_s, fps, 0.0).due())
    assert all(from_s < time_s < from_s + length_s for time_s in due)
    ends = [from_s, *due, from_s + length_s]
    assert max(after - before for before, after in pairwise(ends)) <= 1.0 / fps * 1.001 + 1e-6


def packet(time_s: float, *, keyframe: bool = False, size: int = 1000) -> Packet:
    return Packet(time_s=time_s, keyframe=keyframe, size=size, arrived=time_s, pts=round(time_s * 1000))


def filled(keep_s: float, gop: int = 10, seconds: int = 30, size: int = 1000) -> PacketRing:
    ring = PacketRing(keep_s)
    for number in range(seconds * 5):
        ring.add(packet(number / 5, keyframe=number % gop == 0, size=size))
    return ring


def test_a_ring_gives_packets_from_the_keyframe_before_a_time() -> None:
    packets = filled(5.0).since(26.3)
    assert packets[0].keyframe
    assert packets[0].time_s == 26.0
    assert packets[-1].time_s == pytest.approx(29.8)


def test_a_ring_keeps_what_was_promised_and_little_more() -> None:
    ring = filled(5.0)
    assert ring.since(24.8)
    assert ring.since(20.0) == []
    assert ring.held_bytes <= 8 * 5 * 1000


def test_a_ring_never_holds_more_than_its_bytes() -> None:
    ring = filled(1e9, size=RING_BYTES // 20)
    assert ring.held_bytes <= RING_BYTES
    giant = PacketRing(5.0)
    giant.add(packet(0.0, keyframe=True, size=RING_BYTES))
    giant.add(packet(0.1, size=10))
    assert giant.held_bytes <= RING_BYTES
    assert giant.since(0.1) == []
