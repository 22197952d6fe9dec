"""What is given up under overload, and how it is found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.govern import DOUBLE_S, GIVE, MOST_CUT, PATIENCE_S, WAIT, Governor, Share, allocate

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


def test_what_was_dropped_is_cut_at_once_within_bounds_and_not_again_before_that_shows() -> None:
    for lost, left in ((0.001, 0.95), (0.1, 0.9), (0.25, 0.75), (1.0, 0.75)):
        assert Governor().step(0.0, waited=0.0, lost=lost) == pytest.approx(left)
    governor = Governor()
    assert governor.step(0.0, waited=0.0, lost=1.0) == 1.0 - MOST_CUT
    assert governor.step(PATIENCE_S - 1.0, waited=0.0, lost=1.0) == 1.0 - MOST_CUT
    assert governor.step(PATIENCE_S, waited=0.0, lost=1.0) == (1.0 - MOST_CUT) ** 2


def test_a_backlog_that_only_stood_for_a_moment_costs_next_to_nothing() -> None:
    governor = Governor()
    assert 0.85 < governor.step(0.0, waited=WAIT + 0.3, lost=0.0) < 0.95
    assert governor.step(1.0, waited=WAIT, lost=0.0) > 0.98


def test_nothing_changes_while_samples_wait_neither_long_nor_little() -> None:
    governor = Governor()
    before = governor.step(0.0, waited=0.0, lost=0.5)
    for second in range(1, 100):
        assert governor.step(float(second), waited=0.75 * WAIT, lost=0.0) == before


def test_calm_gives_back_in_growing_steps() -> None:
    governor = Governor()
    assert governor.step(0.0, waited=0.0, lost=0.5) == 0.75
    first = governor.step(1.0, waited=0.0, lost=0.0)
    assert first == pytest.approx(0.75 * (1 + GIVE))
    for second in range(2, 1 + round(DOUBLE_S)):
        governor.step(float(second), waited=0.0, lost=0.0)
    before = governor.fraction
    assert governor.step(1.0 + DOUBLE_S, waited=0.0, lost=0.0) == pytest.approx(before * (1 + 2 * GIVE))


class Machine:
    """Scores ``carried`` of the samples that are promised in a second. The others wait, up to when they are
    stale; more are dropped. A stream hears of its new gap ``DELAY_S`` later."""

    DELAY_S = 3

    def __init__(self, carried: float) -> None:
        self.carried = carried
        self.waited = 0.0
        self.scored = 0.0
        self._asked = [1.0] * self.DELAY_S

    def second(self, fraction: float, *, stale_s: float = 2.0) -> float:
        """Let a second pass; the share that was dropped."""
        self._asked.append(fraction)
        asked = self._asked.pop(0)
        waited_s = self.waited * stale_s + asked / self.carried - 1.0
        self.waited = min(1.0, max(0.0, waited_s / stale_s))
        dropped = max(0.0, waited_s - stale_s) * self.carried
        self.scored = min(self.carried, asked)
        return dropped / asked


@given(st.floats(0.08, 0.99))
def test_the_machine_is_used_to_the_full_and_its_backlog_stays_short(carried: float) -> None:
    governor, machine = Governor(), Machine(carried)
    scored, waited, lost = list[float](), list[float](), 0.0
    for second in range(600):
        fraction = governor.step(float(second), waited=machine.waited, lost=lost)
        lost = machine.second(fraction)
        scored.append(machine.scored)
        waited.append(machine.waited)
    settled = scored[120:]
    assert sum(settled) / len(settled) > 0.95 * carried
    assert max(waited[120:]) < 0.8
    assert sum(waited[120:]) / len(settled) < 0.5


def test_a_machine_that_recovers_gets_everything_back_and_one_that_does_not_goes_on_working() -> None:
    governor = Governor()
    for second in range(600):
        governor.step(float(second), waited=1.0, lost=1.0)
    assert 0.0 < governor.fraction < 0.05
    for second in range(600, 660):
        governor.step(float(second), waited=0.0, lost=0.0)
    assert governor.fraction == 1.0
