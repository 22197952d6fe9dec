"""Stream time goes on, whatever the timestamps do."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow.clock import BRIDGE_S, REORDER_S, StreamClock

TB = Fraction(1, 90000)
STEP = 3000  # ticks of 1/90000 s at 30 pictures a second
WRAP = 1 << 33

Stamp = tuple[int | None, int | None, bool]  # pts, dts, keyframe


def clock(*, rate: int | None = 30, bridge: bool = True, wrap_bits: int = 33) -> StreamClock:
    return StreamClock(TB, Fraction(rate) if rate else None, wrap_bits, bridge=bridge)


def times(clock: StreamClock, stamps: list[Stamp]) -> list[float | None]:
    return [clock.time_s(*stamp) for stamp in stamps]


def film(count: int, *, start: int = 0, gop: int = 10, b_pictures: int = 0, step: int = STEP) -> list[Stamp]:
    """``count`` pictures in decode order; ``b_pictures`` (0 or 1) between every two others."""
    stamps: list[Stamp] = []
    for n in range(count):
        shown = n
        if b_pictures and n % gop:
            shown = n + 1 if n % 2 else n - 1
        stamps.append((start + (shown + b_pictures) * step, start + n * step, n % gop == 0))
    return stamps


def test_time_starts_at_the_first_keyframe_whatever_its_timestamp() -> None:
    stamps = film(4, start=126_000, gop=2)[1:]
    assert times(clock(), stamps) == [None, 0.0, pytest.approx(1 / 30)]


def test_pictures_shown_before_the_first_keyframe_have_no_time() -> None:
    open_gop: list[Stamp] = [(6000, 0, True), (0, 3000, False), (3000, 6000, False), (9000, 9000, False)]
    assert times(clock(), open_gop) == [0.0, None, None, pytest.approx(3000 / 90000)]


def test_b_pictures_keep_their_presentation_times() -> None:
    found = times(clock(), film(5, gop=10, b_pictures=1))
    assert found == pytest.approx([0, 2 / 30, 1 / 30, 4 / 30, 3 / 30])


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, WRAP - 1), st.sampled_from([0, 1]))
def test_a_wrap_anywhere_changes_nothing(start: int, b_pictures: int) -> None:
    plain = times(clock(), film(60, b_pictures=b_pictures))
    wrapped = [
        (pts % WRAP if pts is not None else None, dts % WRAP if dts is not None else None, key)
        for pts, dts, key in film(60, start=start, b_pictures=b_pictures)
    ]
    assert times(clock(), wrapped) == plain


def test_timestamps_wrap_any_number_of_times() -> None:
    """8 bits of ticks wrap every 256; 100 pictures of 10 ticks wrap four times."""
    wrapping = StreamClock(Fraction(1, 100), Fraction(10), 8)
    found = [wrapping.time_s(n * 10 % 256, None, True) for n in range(100)]
    assert found == pytest.approx([n / 10 for n in range(100)])


@pytest.mark.parametrize("bridge", [True, False])
def test_a_jump_backward_is_bridged(bridge: bool) -> None:
    """A camera restarts its clock: 20 pictures, then again from 0."""
    found = times(clock(bridge=bridge), film(20, start=10**6) + film(20))
    assert found == pytest.approx([n / 30 for n in range(40)])


def test_a_leap_forward_is_bridged_live_and_kept_in_a_file() -> None:
    leap = film(10) + film(10, start=10 * STEP + 90000 * 60)
    assert times(clock(), leap) == pytest.approx([n / 30 for n in range(20)])
    kept = [n / 30 + (60 if n >= 10 else 0) for n in range(20)]
    assert times(clock(bridge=False), leap) == pytest.approx(kept)


def test_a_hole_of_a_few_seconds_stays_a_hole_live() -> None:
    hole = film(10) + film(10, start=10 * STEP + 90000 * 5)
    assert times(clock(), hole)[10] == pytest.approx(10 / 30 + 5)


def test_a_keyframe_that_falls_back_a_little_is_a_jump_too() -> None:
    """Half a second back is less than B-pictures may take, but not for a keyframe."""
    found = times(clock(), [(pts, None, key) for pts, _, key in film(20) + film(20, start=STEP * 5)])
    assert found == pytest.approx([n / 30 for n in range(40)])


def test_missing_pts_are_filled_from_dts_or_the_rate() -> None:
    from_dts: list[Stamp] = [(None, n * STEP, n == 0) for n in range(5)]
    from_rate: list[Stamp] = [(None, None, n == 0) for n in range(5)]
    assert times(clock(), from_dts) == pytest.approx([n / 30 for n in range(5)])
    assert times(clock(), from_rate) == pytest.approx([n / 30 for n in range(5)])


def test_a_first_keyframe_without_timestamps_does_not_make_the_second_one_leap() -> None:
    """As RTSP gives them: the first packet has none, the next ones start anywhere."""
    stamps: list[Stamp] = [(None, None, True)] + [(10**9 + n * STEP, None, False) for n in range(3)]
    for bridge in (True, False):
        assert times(clock(bridge=bridge), stamps) == pytest.approx([0, 1 / 30, 2 / 30, 3 / 30])


def test_an_unstated_rate_is_learnt() -> None:
    """25 pictures a second are seen; then pts go missing."""
    seen: list[Stamp] = [(n * 3600, None, n == 0) for n in range(5)]
    found = times(clock(rate=None), [*seen, (None, None, False)])
    assert found[-1] == pytest.approx(5 / 25)


def test_a_rate_that_is_really_a_time_base_is_not_believed() -> None:
    silly = StreamClock(TB, Fraction(90000), 33)
    found = times(silly, [(0, 0, True), (3600, 3600, False), (None, None, False)])
    assert found[-1] == pytest.approx(2 / 25)


def test_one_picture_in_two_and_a_half_seconds_may_still_be_reordered() -> None:
    """0.4 pictures a second with pts alone: falling back by one picture is no jump."""
    step = 225_000
    stamps: list[Stamp] = [(pts, None, key) for pts, _, key in film(9, b_pictures=1, step=step)]
    slow = StreamClock(TB, Fraction(2, 5), 33)
    assert times(slow, stamps) == pytest.approx([2.5 * n for n in (0, 2, 1, 4, 3, 6, 5, 8, 7)])


def test_a_wanted_jump_is_followed() -> None:
    sought = clock(bridge=False)
    times(sought, film(30, start=900))
    sought.sought()
    assert sought.time_s(900 + 10 * STEP, 900 + 10 * STEP, True) == pytest.approx(10 / 30)
    assert sought.time_s(900 + 11 * STEP, 900 + 11 * STEP, False) == pytest.approx(11 / 30)
    assert sought.pts_at(2.0) == 900 + 180_000


steps = st.one_of(
    st.integers(1, 3 * STEP),  # ordinary
    st.integers(-90000 * 100, 90000 * 100),  # jumps
    st.integers(-WRAP, WRAP),
)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.tuples(steps, st.integers(0, 4 * STEP), st.integers(0, 4), st.booleans()), max_size=80),
    st.booleans(),
    st.sampled_from([0, 8, 33]),
    st.sampled_from([None, 1, 30]),
)
def test_time_never_leaps_and_never_falls_back_whatever_comes(
    walk: list[tuple[int, int, int, bool]], bridge: bool, wrap_bits: int, rate: int | None
) -> None:
    """Keyframes always rise; nothing falls back beyond the reordering window; a live stream leaps by no more
    than what is bridged, one picture and its reordering."""
    judged = clock(rate=rate, bridge=bridge, wrap_bits=wrap_bits)
    dts, high, last_key, window = 0, 0.0, -1.0, max(REORDER_S, 16 / (rate or 1))
    for step, delay, missing, keyframe in walk:
        dts += step
        time_s = judged.time_s(
            None if missing in (1, 3) else dts + delay, None if missing in (2, 3) else dts, keyframe
        )
        if time_s is None:
            assert last_key < 0 or not keyframe
            continue
        assert time_s >= max(0.0, high - window - 1e-6)
        if keyframe:
            assert time_s > last_key
            last_key = time_s
        if bridge:
            assert time_s <= high + BRIDGE_S + window + 4 * STEP / 90000 + 1
        high = max(high, time_s)
