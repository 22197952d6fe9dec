"""The sentences of the design's segment rules, one test each, and what must hold for any scores."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.flow.segment import EndReason, Segment, SegmentBuilder, SegmentRules

Sample = tuple[float, float]
patient = settings(deadline=None)  # a busy machine is no failure
RULES = SegmentRules()
NO, WATCHED, HELD, HIT, SURE = 0.1, 0.55, 0.7, 0.85, 0.98


def builder(
    rules: SegmentRules = RULES, *, after: float | None = None, previous: tuple[str, float] | None = None
) -> SegmentBuilder:
    ids = count(1)
    return SegmentBuilder(
        "sexual",
        rules,
        new_id=lambda: f"seg-{next(ids)}",
        previous_sample_s=after,
        previous=previous,
    )


def every(step_s: float, *scores: float) -> list[Sample]:
    return [(number * step_s, score) for number, score in enumerate(scores)]


def play(
    samples: Sequence[Sample],
    rules: SegmentRules = RULES,
    end_s: float | None = None,
    reason: EndReason = "end_of_stream",
) -> list[Segment]:
    """All revisions of a session; without ``end_s`` it is still going on."""
    machine = builder(rules)
    changes = [change for time_s, score in samples for change in machine.add(time_s, score)]
    return changes if end_s is None else changes + machine.end(end_s, reason)


def closed(changes: Sequence[Segment]) -> list[Segment]:
    return [change for change in changes if change.state == "closed"]


def states(changes: Sequence[Segment]) -> list[str]:
    return [change.state for change in changes]


# ---- hit, held, open, close -------------------------------------------------------------------------------


def test_a_score_of_exactly_open_is_a_hit_and_opens_a_segment() -> None:
    assert states(play([(0.0, NO), (2.0, 0.80)])) == ["open"]


def test_a_score_just_under_open_opens_nothing() -> None:
    assert play([(0.0, NO), (2.0, math.nextafter(0.80, 0.0))], end_s=4.0) == []


def test_a_score_of_exactly_close_holds_an_open_segment_and_one_just_under_it_does_not() -> None:
    (held,) = closed(play(every(2.0, NO, HIT, 0.60, NO), end_s=7.0))
    (missed,) = closed(play(every(2.0, NO, HIT, math.nextafter(0.60, 0.0), NO), end_s=7.0))
    assert (held.end_s, missed.end_s) == (5.0, 3.0)


def test_a_held_score_alone_opens_nothing() -> None:
    assert play(every(2.0, HELD, HELD, HELD), end_s=6.0) == []


def test_a_segment_opens_only_when_min_hits_of_the_last_window_samples_are_hits() -> None:
    rules = replace(RULES, min_hits=2, window=3)
    assert play(every(2.0, HIT, NO, NO, HIT, NO, NO), rules) == []
    assert states(play(every(2.0, HIT, NO, HIT), rules)) == ["open"]


def test_hits_of_a_closed_segment_do_not_open_the_next_one() -> None:
    rules = replace(RULES, min_hits=2, window=4, gap_s=1.0)
    assert len(closed(play(every(2.0, HIT, HIT, NO, HIT, NO, NO), rules, end_s=12.0))) == 1


def test_one_score_of_instant_or_more_opens_at_once() -> None:
    rules = replace(RULES, min_hits=3, window=5)
    assert states(play([(0.0, NO), (2.0, 0.97)], rules)) == ["open"]
    assert play([(0.0, NO), (2.0, math.nextafter(0.97, 0.0))], rules) == []


def test_a_segment_closes_when_more_than_gap_s_passes_after_the_last_held_sample() -> None:
    samples = [(0.0, NO), (2.0, HIT), (4.0, NO)]
    assert states(play([*samples, (6.0, NO)])) == ["open"], "6 - 2 is gap_s, not more"
    assert states(play([*samples, (6.1, NO)])) == ["open", "closed"]


def test_gap_s_is_not_exceeded_by_a_rounded_sum() -> None:
    """8.3 - 4.3 is 4.0 in arithmetic, and a hair more in floating point."""
    assert 8.3 - 4.3 > 4.0
    assert states(play([(4.3, HIT), (8.3, HIT)])) == ["open"]


def test_a_held_sample_within_gap_s_keeps_one_segment() -> None:
    (segment,) = closed(play(every(2.0, NO, HIT, NO, HELD, NO), end_s=9.0))
    assert (segment.start_s, segment.end_s) == (1.0, 7.0)


def test_a_hit_after_more_than_gap_s_closes_the_old_segment_and_opens_a_new_one() -> None:
    changes = play([(0.0, HIT), (10.0, HIT)])
    assert states(changes) == ["open", "closed", "open"]
    assert changes[1].end_s == changes[2].start_s == 5.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"watch": 0.7},
        {"close": 0.9},
        {"open": 0.98},
        {"instant": 0.7},
        {"instant": 1.1},
        {"watch": -0.1},
        {"open": math.nan},
        {"min_hits": 2},
        {"min_hits": 0},
        {"window": 0},
        {"gap_s": 0.0},
        {"min_s": -1.0},
        {"max_s": 0.0},
        {"max_s": math.inf},
        {"min_s": 121.0},
        {"cooldown_s": -1.0},
    ],
)
def test_rules_out_of_order_or_range_are_refused_by_name_and_value(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        SegmentRules(**wrong)  # type: ignore[arg-type]


def test_thresholds_may_all_be_equal() -> None:
    same = SegmentRules(watch=0.5, close=0.5, open=0.5, instant=0.5)
    assert states(play([(0.0, 0.5)], same)) == ["open"]


# ---- boundaries -------------------------------------------------------------------------------------------


def test_start_is_the_midpoint_between_the_first_hit_and_the_sample_before_it() -> None:
    (segment,) = play([(3.0, NO), (4.5, HIT)])
    assert (segment.start_s, segment.start_uncertainty_s) == (3.75, 0.75)


def test_start_is_0_when_no_sample_comes_before() -> None:
    """The stream's edge stands in for the missing sample, in the uncertainty too."""
    (segment,) = play([(0.5, HIT)])
    assert (segment.start_s, segment.start_uncertainty_s) == (0.0, 0.25)
    (segment,) = play([(0.0, HIT)])
    assert (segment.start_s, segment.start_uncertainty_s) == (0.0, 0.0)


def test_start_counts_from_the_first_hit_of_the_window_not_from_the_one_that_opened() -> None:
    (segment,) = play(every(2.0, NO, HIT, NO, HIT), replace(RULES, min_hits=2, window=3))
    assert (segment.start_s, segment.samples, segment.hits) == (1.0, 3, 2)


def test_end_is_the_midpoint_between_the_last_held_sample_and_the_one_after_it() -> None:
    (segment,) = closed(play([(0.0, HIT), (2.0, HELD), (3.0, NO), (5.0, NO), (7.0, NO)], end_s=8.0))
    assert (segment.end_s, segment.end_uncertainty_s, segment.reason) == (2.5, 0.5, "ended")


def test_end_is_the_end_of_the_stream_when_no_sample_follows_the_last_held_one() -> None:
    (segment,) = closed(play([(0.0, NO), (2.0, HIT)], end_s=3.0))
    assert (segment.end_s, segment.end_uncertainty_s, segment.reason) == (3.0, 0.5, "end_of_stream")


def test_end_is_the_last_packet_of_a_stream_that_was_lost() -> None:
    (segment,) = closed(play([(0.0, NO), (2.0, HIT)], end_s=2.5, reason="stream_lost"))
    assert (segment.end_s, segment.reason) == (2.5, "stream_lost")


def test_end_stays_the_midpoint_when_the_stream_ends_within_gap_s() -> None:
    (segment,) = closed(play([(0.0, HIT), (2.0, NO)], end_s=3.0))
    assert (segment.end_s, segment.end_uncertainty_s, segment.reason) == (1.0, 1.0, "end_of_stream")


def test_a_segment_that_was_over_before_the_end_of_the_stream_ended_by_itself() -> None:
    (segment,) = closed(play([(0.0, HIT), (2.0, NO)], end_s=9.0))
    assert (segment.end_s, segment.reason) == (1.0, "ended")


def test_an_end_before_the_last_held_sample_ends_the_segment_at_that_sample() -> None:
    (segment,) = closed(play([(0.0, NO), (2.0, HIT)], end_s=1.9, reason="stream_lost"))
    assert (segment.end_s, segment.end_uncertainty_s) == (2.0, 0.0)


def test_a_file_that_goes_on_after_a_crash_counts_the_sample_before_it() -> None:
    (segment,) = builder(after=50.0).add(52.0, HIT)
    assert (segment.start_s, segment.start_uncertainty_s) == (51.0, 1.0)


# ---- min_s, max_s, cooldown_s -----------------------------------------------------------------------------


def test_min_s_holds_publishing_back_until_the_segment_is_that_long() -> None:
    """Samples every 2 s: the segment starts at 1, is 1 s long at 2, 3 s at 4, 5 s at 6."""
    machine = builder(replace(RULES, min_s=5.0))
    assert [states(machine.add(t, s)) for t, s in every(2.0, NO, HIT, HIT, HIT)] == [[], [], [], ["open"]]


def test_a_segment_shorter_than_min_s_is_counted_and_never_published() -> None:
    machine = builder(replace(RULES, min_s=5.0))
    assert [machine.add(t, s) for t, s in every(2.0, NO, HIT, NO, NO, NO, NO)] == [[]] * 6
    assert (machine.shorter, machine.open) == (1, None)


def test_a_segment_that_proves_long_enough_only_by_its_end_is_published_whole() -> None:
    """Start 1, end 5: 4 s, but 3 s when it was last held."""
    changes = play(every(2.0, NO, HIT, HIT, NO, NO, NO), replace(RULES, min_s=4.0))
    assert [(change.rev, change.state) for change in changes] == [(1, "open"), (2, "closed")]


def test_max_s_closes_with_max_length_and_a_new_segment_goes_on_that_names_it() -> None:
    changes = play(every(2.0, *[HIT] * 5), replace(RULES, max_s=6.0))
    first, second = closed(changes)[0], changes[-1]
    assert states(changes) == ["open", "closed", "open"]
    assert (first.reason, first.end_s, first.end_uncertainty_s) == ("max_length", 5.0, 1.0)
    assert (second.previous_segment_id, second.start_s) == (first.segment_id, 5.0)
    assert second.segment_id != first.segment_id


def test_what_goes_on_after_max_length_is_held_by_close_not_by_open() -> None:
    changes = play(every(2.0, HIT, HELD, HELD, HELD), replace(RULES, max_s=6.0), end_s=7.0)
    follower = closed(changes)[1]
    assert (follower.hits, follower.samples, follower.end_s) == (0, 1, 7.0)


def test_a_segment_that_fades_before_max_s_is_not_cut() -> None:
    changes = play(every(2.0, HIT, HIT, NO, NO, NO, NO), replace(RULES, max_s=6.0))
    assert [change.reason for change in closed(changes)] == ["ended"]


def test_what_goes_on_after_max_length_is_published_however_short() -> None:
    changes = play(every(2.0, *[HIT] * 4, NO, NO, NO), replace(RULES, min_s=6.0, max_s=6.0), end_s=14.0)
    assert [change.reason for change in closed(changes)] == ["max_length", "ended"]


def test_a_hit_within_cooldown_s_of_a_close_names_the_segment_before() -> None:
    """The first segment ends at 1, the next hit comes at 8: 7 s later."""
    samples = every(2.0, HIT, NO, NO, NO, HIT)
    assert play(samples, replace(RULES, cooldown_s=7.0))[-1].previous_segment_id == "seg-1"
    assert play(samples, replace(RULES, cooldown_s=6.9))[-1].previous_segment_id is None


def test_without_a_cooldown_no_segment_names_the_one_before() -> None:
    assert play([(0.0, HIT), (4.1, HIT)])[-1].previous_segment_id is None


def test_a_segment_that_was_never_published_is_not_named() -> None:
    rules = replace(RULES, cooldown_s=60.0, min_s=3.0)
    changes = play(every(2.0, HIT, NO, NO, NO, HIT, HIT, HIT), rules)
    assert [(change.segment_id, change.previous_segment_id) for change in changes] == [("seg-1", None)]


def test_the_last_segment_before_a_crash_is_named_within_cooldown_s() -> None:
    rules = replace(RULES, cooldown_s=5.0)
    (segment,) = builder(rules, after=50.0, previous=("old", 47.0)).add(52.0, HIT)
    assert segment.previous_segment_id == "old"


# ---- revisions --------------------------------------------------------------------------------------------


def test_an_update_comes_when_the_peak_rose_by_5_hundredths() -> None:
    assert states(play(every(2.0, 0.80, 0.84, 0.85))) == ["open", "update"]


def test_an_update_counts_the_rise_since_the_last_one() -> None:
    assert states(play(every(2.0, 0.80, 0.85, 0.89, 0.90))) == ["open", "update", "update"]


def test_an_update_comes_after_10_s_of_media_time() -> None:
    changes = play(every(2.0, *[HIT] * 11))
    assert [(change.state, change.end_s) for change in changes] == [
        ("open", 0.0),
        ("update", 10.0),
        ("update", 20.0),
    ]


def test_updates_come_at_most_once_a_second() -> None:
    changes = play(every(0.25, 0.80, 0.85, 0.90, 0.95, 0.96, 1.0))
    assert [(change.state, change.end_s) for change in changes] == [
        ("open", 0.0),
        ("update", 0.25),
        ("update", 1.25),
    ]


def test_rev_starts_at_1_and_rises_by_1() -> None:
    changes = play(every(2.0, 0.80, 0.90, 0.99, NO, NO, NO))
    assert [(change.rev, change.state) for change in changes] == [
        (1, "open"),
        (2, "update"),
        (3, "update"),
        (4, "closed"),
    ]


def test_an_open_segment_reaches_to_its_last_held_sample_and_has_no_reason() -> None:
    *_, update = play(every(2.0, NO, 0.80, 0.90))
    assert (update.end_s, update.end_uncertainty_s, update.reason) == (4.0, 0.0, None)


@pytest.mark.parametrize("reason", ["end_of_stream", "stream_lost", "shutdown", "policy_change"])
def test_the_end_closes_what_is_open_with_its_reason(reason: EndReason) -> None:
    assert [change.reason for change in closed(play([(0.0, HIT)], end_s=1.0, reason=reason))] == [reason]


def test_hits_count_open_or_more_and_samples_count_all_from_the_first_hit_to_the_last_held() -> None:
    (segment,) = closed(play(every(2.0, NO, HIT, NO, HELD, HIT, HELD, NO, NO), end_s=20.0))
    assert (segment.samples, segment.hits) == (5, 2)
    assert segment.mean == pytest.approx((HIT + NO + HELD + HIT + HELD) / 5)


def test_peak_is_the_highest_score_and_peak_s_the_first_sample_that_had_it() -> None:
    (segment,) = closed(play(every(2.0, 0.85, 0.9, 0.9, 0.7), end_s=7.0))
    assert (segment.peak, segment.peak_s) == (0.9, 2.0)


def test_open_is_the_latest_published_revision_until_the_segment_closes() -> None:
    machine = builder()
    assert machine.open is None
    (opened,) = machine.add(0.0, HIT)
    assert machine.open == opened
    machine.add(2.0, NO)
    machine.add(4.1, NO)
    assert machine.open is None


# ---- time that passes, and its end ------------------------------------------------------------------------


def test_media_time_closes_a_segment_that_is_over_before_the_next_sample_comes() -> None:
    machine = builder()
    machine.add(0.0, HIT)
    machine.add(2.0, NO)
    assert machine.advance(4.0) == []
    (segment,) = machine.advance(4.1)
    assert (segment.end_s, segment.reason) == (1.0, "ended")


def test_a_segment_stays_open_while_nothing_was_scored_after_it() -> None:
    """Where it ends is the midpoint to the next sample; until that one comes nobody knows."""
    machine = builder()
    machine.add(0.0, HIT)
    assert machine.advance(60.0) == []
    (segment,) = machine.add(60.0, NO)
    assert (segment.end_s, segment.end_uncertainty_s, segment.reason) == (30.0, 30.0, "ended")


def test_nothing_comes_after_the_end() -> None:
    machine = builder()
    machine.add(0.0, HIT)
    assert len(machine.end(1.0, "shutdown")) == 1
    assert machine.advance(100.0) == machine.end(100.0, "end_of_stream") == []
    with pytest.raises(ValueError, match="ended"):
        machine.add(2.0, HIT)


def test_times_that_do_not_rise_are_refused() -> None:
    machine = builder(after=1.0)
    for time_s in (1.0, 0.5):
        with pytest.raises(ValueError, match="rise"):
            machine.add(time_s, NO)


def test_a_score_that_is_not_a_number_is_refused_instead_of_passing_as_clean() -> None:
    with pytest.raises(ValueError, match="nan"):
        builder().add(0.0, math.nan)


def test_a_score_a_hair_above_1_by_an_engine_s_rounding_counts_as_1() -> None:
    (segment,) = builder().add(0.0, 1.0000001)
    assert segment.peak == 1.0


# ---- for any scores ---------------------------------------------------------------------------------------

scores = st.sampled_from([0.0, 0.3, 0.55, 0.6, 0.7, 0.8, 0.84, 0.9, 0.97, 1.0]) | st.floats(0.0, 1.0)
steps = st.sampled_from([0.25, 0.5, 1.0, 2.0, 2.002, 4.0, 5.0, 30.0])
sessions = st.lists(st.tuples(steps, scores), max_size=60).map(
    lambda pairs: [(sum(step for step, _ in pairs[: n + 1]), score) for n, (_, score) in enumerate(pairs)]
)
rule_sets = st.builds(
    SegmentRules,
    gap_s=st.sampled_from([1.0, 4.0, 10.0]),
    min_hits=st.integers(1, 2),
    window=st.integers(2, 4),
    min_s=st.sampled_from([0.0, 3.0]),
    max_s=st.sampled_from([5.0, 120.0]),
    cooldown_s=st.sampled_from([0.0, 8.0]),
)
tails = st.sampled_from([0.0, 0.5, 3.0, 20.0])


def end_of(samples: Sequence[Sample], tail: float) -> float:
    return (samples[-1][0] if samples else 0.0) + tail


@patient
@given(sessions, rule_sets, tails)
def test_the_same_scores_give_the_same_segments(
    samples: list[Sample], rules: SegmentRules, tail: float
) -> None:
    end_s = end_of(samples, tail)
    assert play(samples, rules, end_s) == play(samples, rules, end_s)


@patient
@given(sessions, rule_sets, tails, st.lists(st.floats(0.0, 1.0), max_size=30))
def test_asking_whether_time_has_passed_changes_no_revision(
    samples: list[Sample], rules: SegmentRules, tail: float, asks: list[float]
) -> None:
    """Between any two samples media time may be reported as often as one likes."""
    machine, changes = builder(rules), list[Segment]()
    end_s = end_of(samples, tail)
    times = [time_s for time_s, _ in samples] + [end_s]
    for (time_s, score), next_s in zip(samples, times[1:], strict=True):
        changes += machine.add(time_s, score)
        for ask in sorted(asks):
            changes += machine.advance(time_s + ask * (next_s - time_s))
    assert changes + machine.end(end_s, "end_of_stream") == play(samples, rules, end_s)


@patient
@given(sessions, rule_sets, tails)
def test_segments_come_in_order_do_not_overlap_and_stay_in_their_session(
    samples: list[Sample], rules: SegmentRules, tail: float
) -> None:
    end_s = end_of(samples, tail)
    segments = closed(play(samples, rules, end_s))
    for segment in segments:
        assert 0.0 <= segment.start_s <= segment.peak_s <= segment.end_s <= end_s
    for before, after in pairwise(segments):
        assert before.end_s <= after.start_s


@patient
@given(sessions, rule_sets, tails)
def test_every_segment_is_opened_once_closed_once_and_its_revs_rise_by_1(
    samples: list[Sample], rules: SegmentRules, tail: float
) -> None:
    changes = play(samples, rules, end_of(samples, tail))
    by_id: dict[str, list[Segment]] = {}
    for change in changes:
        by_id.setdefault(change.segment_id, []).append(change)
    for revisions in by_id.values():
        assert [revision.rev for revision in revisions] == list(range(1, len(revisions) + 1))
        assert [r.state == "open" for r in revisions] == [True] + [False] * (len(revisions) - 1)
        assert [r.state == "closed" for r in revisions] == [False] * (len(revisions) - 1) + [True]
        assert len({(r.start_s, r.previous_segment_id) for r in revisions}) == 1
        for old, new in pairwise(revisions):
            assert old.peak <= new.peak
            assert old.end_s <= new.end_s
            assert old.samples <= new.samples


@patient
@given(sessions, rule_sets, tails)
def test_each_uncertainty_is_half_the_distance_of_the_two_samples_around_the_boundary(
    samples: list[Sample], rules: SegmentRules, tail: float
) -> None:
    end_s = end_of(samples, tail)
    times = [0.0, *(time_s for time_s, _ in samples), end_s]
    half_gaps = {(after + before) / 2: (after - before) / 2 for before, after in pairwise(times)}
    for segment in closed(play(samples, rules, end_s)):
        if segment.start_s > 0.0:
            assert segment.start_uncertainty_s == half_gaps[segment.start_s]
        if segment.end_s < end_s:
            assert segment.end_uncertainty_s == half_gaps[segment.end_s]
        else:
            assert segment.end_uncertainty_s == (end_s - times[-2]) / 2


@patient
@given(sessions, tails)
def test_with_one_hit_enough_segments_are_what_a_plain_reading_of_the_rules_gives(
    samples: list[Sample], tail: float
) -> None:
    """The rules again, written as a search over the whole session instead of as a machine."""
    end_s, found, at = end_of(samples, tail), list[tuple[float, float, int, int]](), 0
    while at < len(samples):
        if samples[at][1] < RULES.open:
            at += 1
            continue
        first = last = at
        while True:
            held = [n for n in range(last + 1, len(samples)) if samples[n][1] >= RULES.close]
            if not held or round(samples[held[0]][0] - samples[last][0], 6) > RULES.gap_s:
                break
            last = held[0]
        at = last + 1
        end = end_s if at == len(samples) else (samples[last][0] + samples[at][0]) / 2
        hits = sum(score >= RULES.open for _, score in samples[first:at])
        found.append((_start(samples, first), end, at - first, hits))
    segments = closed(play(samples, replace(RULES, max_s=1e9), end_s))
    assert [(s.start_s, s.end_s, s.samples, s.hits) for s in segments] == found


def _start(samples: Sequence[Sample], first: int) -> float:
    return 0.0 if first == 0 else (samples[first - 1][0] + samples[first][0]) / 2


@patient
@given(sessions, rule_sets)
def test_every_hit_lies_in_a_published_segment_when_one_hit_is_enough(
    samples: list[Sample], rules: SegmentRules
) -> None:
    rules = replace(rules, min_hits=1, min_s=0.0)
    segments = closed(play(samples, rules, end_of(samples, 0.0)))
    for time_s, score in samples:
        if score >= rules.open:
            assert any(segment.start_s <= time_s <= segment.end_s for segment in segments)


@patient
@given(sessions, st.integers(0, 60))
def test_a_file_that_goes_on_after_its_last_sample_finds_the_same_segments_from_there(
    samples: list[Sample], cut: int
) -> None:
    """Cut where nothing is open: what was found before and after is what one run finds."""
    before, after = samples[:cut], samples[cut:]
    first = builder()
    changes = [change for time_s, score in before for change in first.add(time_s, score)]
    if before and after and first.open is None:
        rest = builder(after=before[-1][0])
        changes += [change for time_s, score in after for change in rest.add(time_s, score)]
        changes += rest.end(samples[-1][0], "end_of_stream")
        whole = play(samples, end_s=samples[-1][0])
        assert [replace(s, segment_id="") for s in changes] == [replace(s, segment_id="") for s in whole]


def test_a_million_samples_are_judged_and_cost_no_memory() -> None:
    """Eleven days of a stream at one sample a second: nothing grows with the number of samples."""
    machine, revisions = builder(replace(RULES, min_hits=2, window=5)), 0
    pattern = [NO] * 50 + [HIT] * 10 + [HELD] * 30 + [NO, WATCHED] * 5
    for number in range(1_000_000):
        revisions += len(machine.add(float(number), pattern[number % 100]))
    assert revisions == 10_000 * 6
    assert len(machine._recent) <= 5
