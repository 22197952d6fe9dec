"""The sentences of the design's coverage rules, one test each, and that every second is counted once."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow.coverage import MAX_MARKS, Accounted, Cause, CoverageLedger, Gap, kept
from pipeline.flow.source import Kind

patient = settings(deadline=None)  # a busy machine is no failure
START = 1000.0
"""Where the clock of the live streams stands when they are added: monotonic time starts nowhere special."""


def live(max_gap_s: float = 2.0) -> CoverageLedger:
    return CoverageLedger(max_gap_s=max_gap_s, kind="live", start_clock_s=START)


def file(max_gap_s: float = 2.0) -> CoverageLedger:
    return CoverageLedger(max_gap_s=max_gap_s, kind="file", start_clock_s=0.0)


def screen(ledger: CoverageLedger, *times: float) -> list[Gap]:
    """Score samples of a stream whose media runs with its clock, both counted from the stream's start."""
    start = 0.0 if ledger._kind == "file" else START
    return [gap for time_s in times for gap in ledger.scored(time_s, start + time_s)]


def spans(gaps: Sequence[Gap], start: float = START) -> list[tuple[float, float, Cause]]:
    return [(gap.from_clock_s - start, gap.to_clock_s - start, gap.cause) for gap in gaps]


def lost(ledger: CoverageLedger) -> float:
    return ledger.totals.lost_s


# ---- kept gaps --------------------------------------------------------------------------------------------


def test_between_two_samples_whose_gap_is_kept_all_time_is_screened() -> None:
    ledger = file()
    assert screen(ledger, 0.0, 2.0, 4.0) == []
    assert ledger.totals == Accounted(4.0, 0.0, 0.0, 0.0)


def test_a_gap_is_kept_up_to_max_gap_s_times_the_tolerance() -> None:
    """A GOP of 60 at 29.97 pictures a second lasts 2.002 s."""
    assert kept(60 * 1001 / 30000, 2.0)
    assert kept(2.1, 2.0)
    assert kept(0.7 * 3, 2.0), "2.0999999999999996 or 2.1000000000000001: rounding decides nothing"
    assert not kept(2.11, 2.0)


def test_a_gap_that_is_just_too_long_is_reported() -> None:
    ledger = file()
    assert screen(ledger, 0.0, 2.1) == []
    (gap,) = screen(ledger, 4.3)
    assert gap.from_clock_s == pytest.approx(3.1)
    assert gap.to_clock_s == pytest.approx(3.3)


def test_of_a_longer_gap_half_of_max_gap_s_at_each_end_is_screened_and_the_middle_is_not() -> None:
    ledger = live()
    screen(ledger, 0.0)
    (gap,) = screen(ledger, 10.0)
    assert (gap.from_clock_s, gap.to_clock_s, gap.seconds) == (START + 1.0, START + 9.0, 8.0)
    assert ledger.totals == Accounted(2.0, 0.0, 0.0, 8.0)


def test_whether_a_gap_is_kept_is_judged_by_media_time_not_by_when_packets_arrive() -> None:
    """The network paused for 30 s and lost nothing: the pictures are 2 s apart."""
    ledger = live()
    ledger.scored(0.0, START)
    assert ledger.scored(2.0, START + 32.0) == []
    assert ledger.totals == Accounted(32.0, 0.0, 0.0, 0.0)
    assert ledger.gap_worst == 2.0


def test_packets_that_come_in_a_burst_cannot_hide_a_gap_in_the_media() -> None:
    """8 s of media within 0.8 s of clock: 6 of 8 media seconds were not screened, so 0.6 of 0.8 s on the
    clock."""
    ledger = live()
    ledger.scored(0.0, START)
    (gap,) = ledger.scored(8.0, START + 0.8)
    assert gap.from_media_s == pytest.approx(1.0)
    assert gap.to_media_s == pytest.approx(7.0)
    assert gap.seconds == pytest.approx(0.6)


def test_a_stall_does_not_widen_what_the_samples_around_it_screen() -> None:
    """10 s of media took 20 s to arrive: still 1 s at each end is screened."""
    ledger = live()
    ledger.scored(0.0, START)
    assert spans(ledger.scored(10.0, START + 20.0)) == [(1.0, 19.0, "no_keyframe")]


def test_media_time_that_starts_again_without_a_word_is_measured_on_the_clock() -> None:
    ledger = live()
    ledger.scored(50.0, START)
    assert spans(ledger.scored(0.0, START + 10.0)) == [(1.0, 9.0, "no_keyframe")]


def test_a_clock_that_steps_back_a_little_counts_nothing_twice() -> None:
    ledger = live()
    screen(ledger, 0.0, 2.0)
    assert ledger.scored(3.0, START + 1.9) == []
    assert ledger.gap_now(START + 2.5) == 0.5
    ledger.end(START + 4.0)
    assert sum(ledger.totals) == 4.0


def test_media_times_of_a_gap_within_a_session_are_those_between_its_samples() -> None:
    ledger = live()
    ledger.scored(100.0, START + 3.0)
    (gap,) = ledger.scored(110.0, START + 13.0)
    assert (gap.from_media_s, gap.to_media_s) == (101.0, 109.0)


def test_across_sessions_a_gap_is_measured_on_the_clock() -> None:
    """Media time starts at 0 again; only where the gap began is known in it."""
    ledger = live()
    screen(ledger, 0.0, 2.0)
    ledger.mark("disconnected", START + 3.0)
    ledger.session(START + 9.0)
    (gap,) = ledger.scored(0.0, START + 12.0)
    assert spans([gap]) == [(3.0, 11.0, "disconnected")]
    assert (gap.from_media_s, gap.to_media_s) == (None, None)
    assert ledger.gap_worst == 10.0


def test_a_new_session_that_follows_within_the_gap_leaves_none() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.session(START + 1.0)
    assert ledger.scored(0.0, START + 2.0) == []


def test_within_the_new_session_media_time_counts_again() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.session(START + 1.0)
    ledger.scored(0.0, START + 2.0)
    assert ledger.scored(2.0, START + 32.0) == []


def test_a_new_session_without_a_marked_reason_was_a_disconnection() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.session(START + 9.0)
    assert spans(ledger.scored(0.0, START + 10.0)) == [(1.0, 9.0, "disconnected")]


# ---- causes -----------------------------------------------------------------------------------------------

BUCKETS = dict.fromkeys(get_args(Cause), "lost") | {"late": "late", "overload": "dropped"}


@pytest.mark.parametrize("cause", get_args(Cause))
def test_overload_is_dropped_late_is_late_and_every_other_cause_is_lost(cause: Cause) -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark(cause, START + 2.0)
    (gap,) = screen(ledger, 10.0)
    assert (gap.cause, gap.bucket) == (cause, BUCKETS[cause])
    assert getattr(ledger.totals, f"{BUCKETS[cause]}_s") == 8.0
    assert sum(ledger.totals) == 10.0


def test_the_causes_are_those_of_the_design() -> None:
    assert set(get_args(Cause)) == {
        *("overload", "late", "corrupt", "disconnected", "stalled"),
        *("not_started", "worker_lost", "no_keyframe", "unsupported", "quarantined"),
    }


def test_an_unknown_cause_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'rain'.*overload"):
        live().mark("rain", START)  # type: ignore[arg-type]


def test_a_late_sample_ends_no_gap_and_makes_it_late() -> None:
    ledger = live()
    screen(ledger, 0.0)
    assert [ledger.scored(t, START + t, late=True) for t in (2.0, 4.0, 6.0)] == [[], [], []]
    assert spans(screen(ledger, 8.0)) == [(1.0, 7.0, "late")]
    assert ledger.totals == Accounted(2.0, 6.0, 0.0, 0.0)


def test_a_late_sample_between_two_in_time_that_keep_the_gap_does_no_harm() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.scored(1.0, START + 1.0, late=True)
    assert screen(ledger, 2.0) == []


def test_a_gap_is_split_where_its_cause_changes_and_begins_with_the_first_cause() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("overload", START + 2.0)
    ledger.mark("corrupt", START + 5.0)
    ledger.mark("corrupt", START + 6.0)
    ledger.mark("disconnected", START + 7.0)
    gaps = screen(ledger, 10.0)
    assert spans(gaps) == [(1.0, 5.0, "overload"), (5.0, 7.0, "corrupt"), (7.0, 9.0, "disconnected")]
    assert [(gap.from_media_s, gap.to_media_s) for gap in gaps] == [(1.0, 5.0), (5.0, 7.0), (7.0, 9.0)]
    assert ledger.totals == Accounted(2.0, 0.0, 4.0, 4.0)


def test_marks_within_the_screened_ends_still_give_the_cause() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("corrupt", START + 0.5)
    ledger.mark("overload", START + 9.5)
    assert spans(screen(ledger, 10.0)) == [(1.0, 9.0, "corrupt")]


def test_marks_that_come_out_of_order_are_put_in_order() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("disconnected", START + 5.0)
    ledger.mark("overload", START + 2.0)
    assert spans(screen(ledger, 10.0)) == [(1.0, 5.0, "overload"), (5.0, 9.0, "disconnected")]


def test_trouble_before_a_sample_is_forgotten_with_it_and_trouble_after_it_is_not() -> None:
    """The stream broke off at 2.5 while a picture that had arrived at 2 was still being scored."""
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("corrupt", START + 1.0)
    ledger.mark("disconnected", START + 2.5)
    assert screen(ledger, 2.0) == []
    assert spans(screen(ledger, 10.0)) == [(3.0, 9.0, "disconnected")]


def test_trouble_that_a_sample_has_overcome_explains_no_later_gap() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("corrupt", START + 1.0)
    assert spans(screen(ledger, 2.0, 10.0)) == [(3.0, 9.0, "no_keyframe")]


def test_trouble_told_after_a_sample_with_an_earlier_time_concerns_what_follows_it() -> None:
    ledger = live()
    screen(ledger, 0.0, 2.0)
    ledger.mark("corrupt", START + 1.9)
    assert spans(screen(ledger, 6.0)) == [(3.0, 5.0, "corrupt")]


def test_a_gap_that_nobody_explained_had_no_keyframe() -> None:
    ledger = file()
    assert spans(screen(ledger, 0.0, 20.0), 0.0) == [(1.0, 19.0, "no_keyframe")]


def test_the_causes_remembered_in_a_gap_are_bounded_and_the_seconds_still_add_up() -> None:
    ledger = live()
    screen(ledger, 0.0)
    for number in range(10_000):
        ledger.mark("overload" if number % 2 else "corrupt", START + 1.5 + number / 200)
    assert len(ledger.snapshot()["marks"]) == MAX_MARKS
    gaps = screen(ledger, 60.0)
    assert len(gaps) <= MAX_MARKS
    assert sum(ledger.totals) == pytest.approx(60.0, abs=1e-9)


def test_the_same_cause_again_takes_no_room() -> None:
    ledger = live()
    screen(ledger, 0.0)
    for number in range(1000):
        ledger.mark("corrupt", START + 1.5 + number / 200)
    ledger.mark("disconnected", START + 8.0)
    assert spans(screen(ledger, 10.0)) == [(1.0, 8.0, "corrupt"), (8.0, 9.0, "disconnected")]


# ---- start and end ----------------------------------------------------------------------------------------


def test_a_stream_that_starts_late_was_not_started_until_half_of_max_gap_s_before_its_first_sample() -> None:
    ledger = live()
    (gap,) = ledger.scored(0.0, START + 5.0)
    assert spans([gap]) == [(0.0, 4.0, "not_started")]
    assert (gap.from_media_s, gap.to_media_s) == (None, None)
    assert ledger.totals == Accounted(1.0, 0.0, 0.0, 4.0)


def test_a_stream_that_starts_within_half_of_max_gap_s_has_no_gap() -> None:
    ledger = live()
    assert ledger.scored(0.0, START + 1.04) == [], "the tolerance is the same as everywhere"
    assert ledger.totals == pytest.approx((1.04, 0.0, 0.0, 0.0))


def test_the_first_session_of_a_stream_is_no_disconnection() -> None:
    ledger = live()
    ledger.session(START + 3.0)
    assert spans(ledger.scored(0.0, START + 5.0)) == [(0.0, 4.0, "not_started")]


def test_a_start_with_a_known_cause_has_that_cause() -> None:
    ledger = live()
    ledger.mark("disconnected", START + 0.5)
    assert spans(ledger.scored(0.0, START + 5.0)) == [(0.0, 4.0, "disconnected")]


def test_a_stream_that_ends_within_its_gap_has_none() -> None:
    ledger = live()
    screen(ledger, 0.0, 2.0)
    assert ledger.end(START + 4.0) == []
    assert ledger.totals == Accounted(4.0, 0.0, 0.0, 0.0)


def test_what_follows_half_of_max_gap_s_after_the_last_sample_of_a_longer_end_is_lost() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("stalled", START + 3.0)
    assert spans(ledger.end(START + 10.0)) == [(1.0, 10.0, "stalled")]


def test_a_file_of_which_nothing_was_screened_is_lost_from_its_start_to_its_end() -> None:
    ledger = file()
    ledger.mark("corrupt", 0.0)
    (gap,) = ledger.end(30.0)
    assert (gap.from_media_s, gap.to_media_s, gap.cause) == (0.0, 30.0, "corrupt")
    assert ledger.totals == Accounted(0.0, 0.0, 0.0, 30.0)


def test_a_file_shorter_than_max_gap_s_of_which_nothing_was_screened_is_lost_too() -> None:
    ledger = file()
    assert spans(ledger.end(1.5), 0.0) == [(0.0, 1.5, "not_started")]


def test_the_four_sum_to_the_media_duration_of_a_file() -> None:
    ledger = file()
    screen(ledger, 0.0, 2.0, 9.0, 10.0)
    ledger.mark("corrupt", 11.0)
    ledger.end(60.0)
    assert sum(ledger.totals) == pytest.approx(60.0, abs=1e-9)


def test_the_four_sum_to_the_wall_time_since_a_live_stream_was_added() -> None:
    ledger = live()
    ledger.scored(0.0, START + 3.0)
    ledger.mark("disconnected", START + 4.0)
    ledger.session(START + 20.0)
    ledger.scored(0.0, START + 21.0)
    ledger.scored(2.0, START + 23.1)
    ledger.end(START + 24.5)
    assert sum(ledger.totals) == pytest.approx(24.5, abs=1e-9)


def test_an_end_before_what_was_already_counted_takes_nothing_back() -> None:
    ledger = file()
    screen(ledger, 0.0, 2.0)
    assert ledger.end(1.5) == []
    assert ledger.totals == Accounted(2.0, 0.0, 0.0, 0.0)


def test_after_its_end_a_ledger_counts_nothing_more() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.end(START + 1.0)
    assert ledger.end(START + 100.0) == ledger.tick(START + 100.0) == []
    assert sum(ledger.totals) == 1.0
    calls: list[Callable[[], object]] = [
        lambda: ledger.scored(2.0, START + 2.0),
        lambda: ledger.mark("stalled", START + 2.0),
        lambda: ledger.session(START + 2.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="ended"):
            call()


# ---- a gap that lasts -------------------------------------------------------------------------------------


def test_a_lasting_gap_is_reported_every_60_s_and_the_rest_when_it_ends() -> None:
    """Half of max_gap_s before now is held back: a sample that comes at once would screen it."""
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("stalled", START + 2.0)
    reports = {t: spans(ledger.tick(START + t)) for t in range(1, 131)}
    assert {t: report for t, report in reports.items() if report} == {
        60: [(1.0, 59.0, "stalled")],
        120: [(59.0, 119.0, "stalled")],
    }
    assert spans(screen(ledger, 131.0)) == [(119.0, 130.0, "stalled")]
    assert ledger.totals == Accounted(2.0, 0.0, 0.0, 129.0)


def test_the_60_s_of_a_gap_count_from_its_own_beginning() -> None:
    ledger = live()
    screen(ledger, 0.0)
    assert len(ledger.tick(START + 60.0)) == 1
    screen(ledger, 61.0)
    assert ledger.tick(START + 120.0) == []
    assert spans(ledger.tick(START + 121.0)) == [(62.0, 120.0, "no_keyframe")]


def test_a_stream_that_never_starts_is_reported_every_60_s() -> None:
    ledger = live()
    assert spans(ledger.tick(START + 60.0)) == [(0.0, 59.0, "not_started")]
    ledger.mark("unsupported", START + 70.0)
    assert spans(ledger.tick(START + 120.0)) == [(59.0, 119.0, "unsupported")]
    assert spans(ledger.end(START + 130.0)) == [(119.0, 130.0, "unsupported")]
    assert sum(ledger.totals) == 130.0


def test_the_cause_in_force_goes_on_after_a_report() -> None:
    ledger = live()
    screen(ledger, 0.0)
    ledger.mark("overload", START + 2.0)
    ledger.mark("disconnected", START + 30.0)
    assert len(ledger.tick(START + 60.0)) == 2
    ledger.mark("stalled", START + 80.0)
    assert spans(screen(ledger, 100.0)) == [(59.0, 80.0, "disconnected"), (80.0, 99.0, "stalled")]


def test_a_report_of_a_gap_that_lasts_says_only_where_in_the_media_it_began() -> None:
    ledger = live()
    ledger.scored(7.0, START)
    (gap,) = ledger.tick(START + 60.0)
    assert (gap.from_media_s, gap.to_media_s) == (7.0, None)


def test_a_stream_within_its_gap_reports_nothing_however_long_that_is() -> None:
    ledger = live(max_gap_s=100.0)
    screen(ledger, 0.0)
    assert ledger.tick(START + 104.0) == []
    assert spans(ledger.tick(START + 106.0)) == [(50.0, 56.0, "no_keyframe")]


def test_a_sample_that_arrived_before_a_report_is_counted_once() -> None:
    """It arrived at 59.5 and was scored after the report at 62, which reached to 61."""
    ledger = live()
    screen(ledger, 0.0)
    assert spans(ledger.tick(START + 62.0)) == [(1.0, 61.0, "no_keyframe")]
    assert screen(ledger, 59.5) == []
    ledger.end(START + 65.0)
    assert sum(ledger.totals) == pytest.approx(65.0)


# ---- figures and restarts ---------------------------------------------------------------------------------


def test_gap_now_is_the_time_since_the_last_sample_or_the_start() -> None:
    ledger = live()
    assert ledger.gap_now(START + 3.0) == 3.0
    screen(ledger, 4.0)
    assert ledger.gap_now(START + 5.5) == 1.5
    assert ledger.gap_now(START) == 0.0


def test_gap_worst_is_the_longest_between_two_samples() -> None:
    ledger = live()
    screen(ledger, 5.0, 7.0, 10.0, 11.0)
    assert ledger.gap_worst == 3.0


def test_a_restored_ledger_goes_on_where_a_lost_worker_stopped() -> None:
    ledger = live()
    screen(ledger, 0.0, 2.0)
    saved = json.loads(json.dumps(ledger.snapshot()))
    heir = CoverageLedger(max_gap_s=2.0, kind="live", start_clock_s=START + 9.0, restore=saved)
    heir.mark("worker_lost", START + 9.0)
    heir.session(START + 9.5)
    assert spans(heir.scored(0.0, START + 10.0)) == [(3.0, 9.0, "worker_lost")]
    assert sum(heir.totals) == 10.0


@pytest.mark.parametrize(
    "wrong", [{}, {"counted_s": 1.0}, {"counted_s": 1.0, "last_clock_s": 1.0, "seconds": {}}]
)
def test_what_is_not_a_snapshot_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not the snapshot"):
        CoverageLedger(max_gap_s=2.0, kind="file", start_clock_s=0.0, restore=wrong)


# ---- for any stream ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """``wait`` seconds later, ``what`` happens: sample, late, mark, session or tick."""

    wait: float
    what: str
    cause: Cause
    stall: float


waits = st.sampled_from([0.0, 0.04, 1.0, 2.0, 2.1, 2.5, 9.0, 70.0]) | st.floats(0.0, 100.0)
kinds = st.sampled_from(["sample", "sample", "sample", "late", "mark", "session", "tick"])
stalls = st.sampled_from([0.0, 0.0, 0.0, 0.5, 30.0])
streams = st.lists(st.builds(Step, waits, kinds, st.sampled_from(get_args(Cause)), stalls), max_size=40)


class Run:
    """Plays steps into a ledger. Media time lags behind the clock by the stalls; a file has no clock of its
    own."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.ledger = live() if kind == "live" else file()
        self.start = self.clock = START if kind == "live" else 0.0
        self.media = 0.0
        self.gaps: list[Gap] = []

    def take(self, step: Step) -> None:
        live_stall = step.stall if self.kind == "live" else 0.0
        self.clock += step.wait + live_stall
        self.media = self.media + step.wait if self.kind == "live" else self.clock
        match step.what:
            case "sample" | "late":
                self.gaps += self.ledger.scored(self.media, self.clock, late=step.what == "late")
            case "mark":
                self.ledger.mark(step.cause, self.clock)
            case "session" if self.kind == "live":
                self.media = 0.0
                self.ledger.session(self.clock)
            case _:
                self.gaps += self.ledger.tick(self.clock)

    def restart(self) -> None:
        saved = json.loads(json.dumps(self.ledger.snapshot()))
        self.ledger = CoverageLedger(max_gap_s=2.0, kind=self.kind, start_clock_s=self.clock, restore=saved)

    def finish(self, tail: float) -> None:
        self.clock += tail
        self.gaps += self.ledger.end(self.clock)


def played(kind: Kind, steps: Sequence[Step], tail: float, restarts: frozenset[int] = frozenset()) -> Run:
    run = Run(kind)
    for number, step in enumerate(steps):
        if number in restarts:
            run.restart()
        run.take(step)
    run.finish(tail)
    return run


both: st.SearchStrategy[Kind] = st.sampled_from(["live", "file"])


@patient
@given(both, streams, waits)
def test_the_four_always_add_up_and_none_is_negative(kind: Kind, steps: list[Step], tail: float) -> None:
    run = played(kind, steps, tail)
    assert sum(run.ledger.totals) == pytest.approx(run.clock - run.start, abs=1e-6)
    assert min(run.ledger.totals) >= 0.0


@patient
@given(both, streams, waits)
def test_the_gaps_told_are_the_seconds_counted(kind: Kind, steps: list[Step], tail: float) -> None:
    run = played(kind, steps, tail)
    totals = run.ledger.totals
    for bucket, counted in (("late", totals.late_s), ("dropped", totals.dropped_s), ("lost", totals.lost_s)):
        told = sum(gap.seconds for gap in run.gaps if gap.bucket == bucket)
        assert told == pytest.approx(counted, abs=1e-6)


@patient
@given(both, streams, waits)
def test_gaps_come_in_order_do_not_overlap_and_lie_within_the_stream(
    kind: Kind, steps: list[Step], tail: float
) -> None:
    run = played(kind, steps, tail)
    for gap in run.gaps:
        assert run.start <= gap.from_clock_s < gap.to_clock_s <= run.clock
        if gap.from_media_s is not None and gap.to_media_s is not None:
            assert gap.from_media_s <= gap.to_media_s
    for before, after in pairwise(run.gaps):
        assert before.to_clock_s <= after.from_clock_s


@patient
@given(both, streams, waits, st.frozensets(st.integers(0, 40)))
def test_a_ledger_restored_at_any_points_tells_what_an_uninterrupted_one_tells(
    kind: Kind, steps: list[Step], tail: float, restarts: frozenset[int]
) -> None:
    whole, cut = played(kind, steps, tail), played(kind, steps, tail, restarts)
    assert cut.gaps == whole.gaps
    assert (cut.ledger.totals, cut.ledger.gap_worst) == (whole.ledger.totals, whole.ledger.gap_worst)


@patient
@given(st.lists(st.floats(0.01, 30.0), max_size=40), st.floats(0.2, 10.0))
def test_a_file_s_gaps_are_what_a_plain_reading_of_the_rules_gives(
    steps: list[float], max_gap_s: float
) -> None:
    ledger = CoverageLedger(max_gap_s=max_gap_s, kind="file", start_clock_s=0.0)
    times = [sum(steps[:n]) for n in range(len(steps) + 1)]
    gaps = screen(ledger, *times)
    long = [(a, b) for a, b in pairwise(times) if b - a > max_gap_s * 1.05 + 1e-6]
    assert spans(gaps, 0.0) == [(a + max_gap_s / 2, b - max_gap_s / 2, "no_keyframe") for a, b in long]
    assert ledger.totals.lost_s == pytest.approx(sum(b - a - max_gap_s for a, b in long))
    assert ledger.gap_worst == max((b - a for a, b in pairwise(times)), default=0.0)


@patient
@given(streams, waits)
def test_every_long_gap_between_two_samples_in_time_is_told(steps: list[Step], tail: float) -> None:
    """Nothing that was not screened reads as clean: between two samples further apart than the promise, there
    is a gap, whatever was marked, reported or restarted in between."""
    run, last = Run("live"), None
    for step in steps:
        told = len(run.gaps)
        run.take(step)
        if step.what == "session":
            last = None
        if step.what == "sample":
            if last is not None and run.media - last[0] > 2.2 and run.clock > last[1]:
                assert len(run.gaps) > last[2], f"{run.media - last[0]} s of media were not told"
            last = (run.media, run.clock, len(run.gaps))
        assert len(run.gaps) >= told


def test_a_file_that_breaks_off_is_lost_from_there_to_its_promised_end() -> None:
    """The last sample at 6 s, the last picture ends at 7 s, 10 s were promised: 7 screened, 3 lost."""
    ledger = CoverageLedger(max_gap_s=2.0, kind="file", start_clock_s=0.0)
    for time_s in (0.0, 2.0, 4.0, 6.0):
        ledger.scored(time_s, time_s)
    (gap,) = ledger.end(10.0, cut_s=7.0)
    assert (gap.from_media_s, gap.to_media_s, gap.cause) == (7.0, 10.0, "corrupt")
    assert ledger.totals == (7.0, 0.0, 0.0, 3.0)
