"""What is given up under overload, and how it is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.govern import CALM_S, PATIENCE_S, Governor, Share, allocate

SHARES = st.dictionaries(
    st.integers(1, 200),
    st.builds(
        lambda priority, gap, times: Share(priority, gap, gap * times),
        st.integers(0, 9),
        st.floats(0.25, 10.0),
        st.floats(1.0, 8.0),
    ),
    min_size=1,
    max_size=40,
)


def test_the_lowest_priority_is_stretched_first_and_only_to_its_floor() -> None:
    """Three streams of 0.5 samples a second; half of all is to go: 0.4 from the lowest (to its floor of 10
    s), the other 0.35 from the next: 0.15 a second, a gap of 6.67 s."""
    shares = {1: Share(0, 2.0, 10.0), 2: Share(5, 2.0, 10.0), 3: Share(9, 2.0, 10.0)}
    gaps = allocate(shares, 0.5)
    assert round(gaps[1], 6) == 10.0
    assert round(gaps[2], 2) == 6.67
    assert gaps[3] == 2.0


@given(SHARES, st.floats(0.02, 1.0))
def test_no_gap_leaves_its_bounds_and_the_rate_is_what_can_be_afforded(
    shares: dict[int, Share], fraction: float
) -> None:
    gaps = allocate(shares, fraction)
    for number, share in shares.items():
        assert share.gap_s <= gaps[number] * (1 + 1e-9)
        assert gaps[number] <= share.most_gap_s * (1 + 1e-6)
    promised = sum(1 / share.gap_s for share in shares.values())
    floor = sum(1 / share.most_gap_s for share in shares.values())
    rate = sum(1 / gap for gap in gaps.values())
    assert abs(rate - max(fraction * promised, floor)) < 1e-6 * promised


@given(SHARES, st.floats(0.02, 1.0))
def test_a_priority_is_untouched_while_a_lower_one_is_above_its_floor(
    shares: dict[int, Share], fraction: float
) -> None:
    gaps = allocate(shares, fraction)
    for low, lower in shares.items():
        for high, higher in shares.items():
            if lower.priority < higher.priority and gaps[high] > higher.gap_s * (1 + 1e-6):
                assert gaps[low] >= lower.most_gap_s * (1 - 1e-6)


def test_it_cuts_at_once_waits_for_the_effect_and_gives_back_in_steps() -> None:
    governor = Governor()
    assert governor.step(0.0, late=0.0) == 1.0
    assert governor.step(1.0, late=1.0) == 0.75
    assert governor.step(2.0, late=1.0) == 0.75  # the cut has had no time to work
    assert governor.step(1.0 + PATIENCE_S, late=1.0) == 0.5625
    calm = 1.0 + PATIENCE_S + CALM_S
    assert governor.step(calm - 0.5, late=0.0) == 0.5625
    assert round(governor.step(calm, late=0.0), 4) == 0.5925
    assert governor.step(calm + 1.0, late=0.0) < 0.6
    later = [governor.step(calm + step * CALM_S, late=0.0) for step in range(1, 6)]
    assert [round(one, 4) for one in later] == [0.6525, 0.75, 0.78, 0.84, 0.96]  # it was late at 0.75


def test_a_cut_is_as_large_as_what_is_lost_within_bounds() -> None:
    for late, left in ((0.001, 0.95), (0.1, 0.9), (0.25, 0.75), (1.0, 0.75)):
        assert Governor().step(0.0, late=late) == pytest.approx(left)


@given(st.floats(0.1, 0.9))
def test_it_settles_near_what_the_machine_carries(carried: float) -> None:
    """Of what is asked beyond that, a second loses all: never far below it for long."""
    governor, found = Governor(), list[float]()
    for second in range(1200):
        found.append(governor.step(float(second), late=max(0.0, 1.0 - carried / governor.fraction)))
    settled = found[600:]
    assert sum(settled) / len(settled) > 0.85 * carried
    assert min(settled) > 0.7 * carried
    assert max(settled) <= carried + 0.031


def test_a_machine_that_recovers_gets_everything_back_and_one_that_does_not_goes_on_working() -> None:
    governor = Governor()
    for second in range(600):
        governor.step(float(second), late=1.0)
    assert 0.0 < governor.fraction < 0.05
    for second in range(600, 1200):
        governor.step(float(second), late=0.0)
    assert governor.fraction == 1.0
