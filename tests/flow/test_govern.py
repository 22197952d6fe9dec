"""What is given up under overload, and how it is found."""

from collections.abc import Iterable
from math import log, log1p, pi, sqrt

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.flow.govern import (
    DOUBLE_S,
    DOUBLINGS,
    EFFECT_S,
    GIVE,
    MOST_CUT,
    PATIENCE_S,
    PER_WAIT,
    WAIT,
    WHOLE,
    Governor,
    Share,
    allocate,
    floor_of,
)

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


@given(SHARES)
def test_at_the_floor_every_stream_has_its_longest_gap(shares: dict[int, Share]) -> None:
    gaps = allocate(shares, floor_of(shares.values()))
    for number, share in shares.items():
        assert gaps[number] == pytest.approx(share.most_gap_s)


def test_what_was_dropped_is_cut_at_once_within_bounds_and_not_again_before_that_shows() -> None:
    for lost, left in ((0.001, 0.95), (0.1, 0.9), (0.25, 0.75), (1.0, 0.75)):
        assert Governor().step(1.0, waited=0.0, lost=lost) == pytest.approx(left)
    governor = Governor()
    assert governor.step(1.0, waited=0.0, lost=1.0) == 1.0 - MOST_CUT
    assert governor.step(PATIENCE_S - 1.0, waited=0.0, lost=1.0) == 1.0 - MOST_CUT
    assert governor.step(1.0, waited=0.0, lost=1.0) == (1.0 - MOST_CUT) ** 2


def test_a_backlog_that_only_stood_for_a_moment_costs_next_to_nothing() -> None:
    governor = Governor()
    assert 0.85 < governor.step(1.0, waited=WAIT + 0.3, lost=0.0) < 0.95
    assert governor.step(1.0, waited=WAIT, lost=0.0) == WHOLE
    governor.step(1.0, waited=0.0, lost=0.0)
    assert governor.step(1.0, waited=0.0, lost=0.0) == 1.0


def test_no_step_takes_or_gives_more_than_the_greatest_cut() -> None:
    governor = Governor()
    assert governor.step(1.0, waited=50.0, lost=0.0) == 1.0 - MOST_CUT
    assert governor.step(1.0, waited=0.0, lost=0.0) == pytest.approx((1.0 - MOST_CUT) * (1.0 + MOST_CUT))


def test_a_stretch_that_would_spare_less_than_it_costs_is_none() -> None:
    governor = Governor()
    assert governor.step(1.0, waited=WAIT + 0.05, lost=0.0) == 1.0
    for _ in range(20):
        governor.step(1.0, waited=WAIT + 0.1, lost=0.0)
    assert 0.9 < governor.fraction < 0.98


def test_nothing_is_given_up_that_would_spare_nothing() -> None:
    governor = Governor()
    for _ in range(100):
        assert governor.step(1.0, waited=1.0, lost=1.0, floor=0.6) >= 0.6
    assert governor.fraction == 0.6
    for _ in range(30):
        governor.step(1.0, waited=0.0, lost=0.0, floor=0.6)
    assert governor.fraction == 1.0


def test_an_overload_shows_even_where_nothing_may_be_stretched() -> None:
    governor = Governor()
    for _ in range(20):
        governor.step(1.0, waited=1.0, lost=1.0, floor=1.0)
    assert 0.9 < governor.fraction < 1.0


def test_what_was_given_up_comes_back_while_samples_wait_less_than_too_long() -> None:
    governor = Governor()
    before = governor.step(1.0, waited=0.0, lost=0.5)
    for _ in range(300):
        after = governor.step(1.0, waited=0.8 * WAIT, lost=0.0)
        assert before <= after <= before * (1.0 + GIVE / 4)
        before = after
    assert governor.fraction == WHOLE
    assert governor.step(1.0, waited=WAIT / 2 - 0.01, lost=0.0) == 1.0


def test_calm_gives_back_in_growing_steps() -> None:
    governor = Governor()
    for _ in range(5):
        governor.step(PATIENCE_S, waited=0.0, lost=1.0)
    before = governor.fraction
    assert governor.step(0.0, waited=0.0, lost=0.0) == before
    first = governor.step(1.0, waited=0.0, lost=0.0) / before - 1.0
    for _ in range(round(DOUBLE_S) - 1):
        governor.step(1.0, waited=0.0, lost=0.0)
    before = governor.fraction
    assert governor.step(1.0, waited=0.0, lost=0.0) / before - 1.0 == pytest.approx(2 * first)


def test_a_day_of_calm_is_no_more_than_calm() -> None:
    governor = Governor()
    for _ in range(86_400):
        assert governor.step(1.0, waited=0.0, lost=0.0) == 1.0
    assert governor.step(86_400.0, waited=0.0, lost=1.0) == 1.0 - MOST_CUT


STALE_S = 2.0
"""After so long a sample is not scored any more."""


class Machine:
    """Scores ``carried`` of the samples that are promised in a second. The others wait, up to when they are
    stale; more are dropped. A stream hears of its new gap ``delay_s`` later."""

    def __init__(self, carried: float, delay_s: int) -> None:
        self.carried = carried
        self.waited = 0.0
        self.scored = 0.0
        self._asked = [1.0] * delay_s

    def second(self, fraction: float, *, stale_s: float = STALE_S) -> float:
        """Let a second pass; the share that was dropped."""
        self._asked.append(fraction)
        asked = self._asked.pop(0)
        waited_s = self.waited * stale_s + asked / self.carried - 1.0
        self.waited = min(1.0, max(0.0, waited_s / stale_s))
        dropped = max(0.0, waited_s - stale_s) * self.carried
        self.scored = min(self.carried, asked)
        return dropped / asked


@pytest.mark.parametrize("gap_s", [2.0, 6.0, 12.0])
@given(carried=st.floats(0.08, 0.99))
def test_the_machine_is_used_to_the_full_and_its_backlog_stays_short(carried: float, gap_s: float) -> None:
    """Where the streams hear of a cut a gap later, at the least."""
    governor, machine = Governor(), Machine(carried, max(round(EFFECT_S), round(gap_s)))
    scored, waited, lost = list[float](), list[float](), 0.0
    for _ in range(900):
        fraction = governor.step(1.0, waited=machine.waited, lost=lost, gap_s=gap_s)
        lost = machine.second(fraction)
        scored.append(machine.scored)
        waited.append(machine.waited)
    settled = scored[300:]
    assert sum(settled) / len(settled) > 0.9 * carried
    assert sum(waited[300:]) / len(settled) < 0.5


def turns(fractions: Iterable[float]) -> int:
    """How often it went over from cutting to giving back, or the other way; what is less than a stretch is
    neither."""
    least, most, way, turned = 1.0, 0.0, 0, 0
    for fraction in fractions:
        least, most = min(least, fraction), max(most, fraction)
        if way >= 0 and fraction <= most * WHOLE:
            turned += way > 0
            way, least = -1, fraction
        elif way <= 0 and least <= fraction * WHOLE:
            turned += way < 0
            way, most = 1, fraction
    return turned


def test_turns_are_counted() -> None:
    assert turns([1.0, 0.985, 1.0, 0.9, 0.91, 0.9]) == 0
    assert turns([1.0, 0.98, 1.0, 0.97, 0.9, 0.8, 0.9, 0.89, 1.0]) == 3


SWING_S = pi * (sqrt(STALE_S / PER_WAIT) + sqrt(STALE_S * WAIT / GIVE))
"""Nothing damped, a backlog swings about ``WAIT`` like two springs: above it for half a period of 63 s,
2 pi sqrt(STALE_S / PER_WAIT), below it for half of one of 53 s, 2 pi sqrt(STALE_S WAIT / GIVE)."""


def settled(load: float, gap_s: float) -> list[float]:
    """A quarter of an hour's fractions under a load that has been the same for five minutes; for longer where
    gaps are, as much as all goes slower."""
    governor, machine = Governor(), Machine(1.0 / load, max(round(EFFECT_S), round(gap_s)))
    fractions, lost = list[float](), 0.0
    for _ in range(900 + (before := round(300 * max(1.0, gap_s / EFFECT_S)))):
        fractions.append(governor.step(1.0, waited=machine.waited, lost=lost, gap_s=gap_s))
        lost = machine.second(fractions[-1])
    return fractions[before:]


@pytest.mark.parametrize("gap_s", [2.0, 6.0, 12.0])
@given(load=st.one_of(st.floats(0.9, 1.0), st.floats(1.1, 4.0)))
@example(load=1.0)
@example(load=1.1)
def test_under_a_load_that_stays_the_same_the_fraction_comes_to_rest(load: float, gap_s: float) -> None:
    fractions = settled(load, gap_s)
    assert turns(fractions) == 0
    if load <= 1.0:
        assert set(fractions) == {1.0}


@pytest.mark.parametrize("gap_s", [2.0, 6.0, 12.0])
@pytest.mark.parametrize("load", [1.005, 1.01, 1.02, 1.05, 1.07])
def test_a_load_just_above_what_is_carried_is_met_by_a_stretch_that_seldom_comes_and_goes(
    load: float, gap_s: float
) -> None:
    """A whole stretch is more than needs to go, so it cannot stay; but no more often than the backlog would
    swing by itself: two turns in 58 s."""
    assert turns(settled(load, gap_s)) <= 2 * 900 / SWING_S


@pytest.mark.parametrize("gap_s", [2.0, 6.0, 12.0])
@given(load=st.floats(1.1, 8.0))
@example(load=2.0)
def test_a_minute_after_a_peak_all_is_given_back(load: float, gap_s: float) -> None:
    """A minute of too much, then half of what the machine carries. Its backlog, of 2 s at most, is gone after
    4 s, as half of each second is left for it; and the doublings take 30 s, after which a second gives 8 %:
    0.5 is 1.0 again 43 s after the peak at the latest. Where gaps are longer than ``EFFECT_S`` all but the
    backlog goes so much slower."""
    governor, machine = Governor(), Machine(1.0 / load, max(round(EFFECT_S), round(gap_s)))
    lost, seconds, least = 0.0, 0, 1.0
    while seconds < 60 or governor.fraction < 1.0:
        if seconds == 60:
            machine.carried = 2.0
        fraction = governor.step(1.0, waited=machine.waited, lost=lost, gap_s=gap_s)
        lost = machine.second(fraction)
        seconds, least = seconds + 1, min(least, fraction)
        assert seconds < 1000
    assert least < 1.0
    gives_s = DOUBLE_S * DOUBLINGS + log(1.0 / least) / log1p(GIVE * 2.0**DOUBLINGS)
    assert seconds - 60 <= 2 * STALE_S + 1 + gives_s * max(1.0, gap_s / EFFECT_S)


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.001, 1.0)), min_size=1, max_size=40),
    st.floats(0.0, 1.0),
)
def test_nothing_is_given_back_while_samples_are_dropped(
    seconds: list[tuple[float, float]], first: float
) -> None:
    """However little the others waited, and however much less than before: those that waited longest are not
    among them."""
    governor = Governor()
    before = governor.step(1.0, waited=first, lost=0.5)
    assert before < 1.0
    for waited, lost in seconds:
        after = governor.step(1.0, waited=waited, lost=lost)
        assert after <= before
        before = after


def test_a_machine_that_recovers_gets_everything_back_and_one_that_does_not_goes_on_working() -> None:
    governor = Governor()
    for _ in range(600):
        governor.step(1.0, waited=1.0, lost=1.0)
    assert 0.0 < governor.fraction < 0.05
    for _ in range(90):
        governor.step(1.0, waited=0.0, lost=0.0)
    assert governor.fraction == 1.0
