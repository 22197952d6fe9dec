"""A closer look changes what is known of a boundary, as if its samples had been added in their order."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow.segment import Segment, SegmentBuilder, SegmentRules

RULES = SegmentRules(gap_s=4.0)
SCORE = st.sampled_from((0.0, 0.3, 0.55, 0.65, 0.85, 0.99))


def builder() -> SegmentBuilder:
    ids = count(1)
    return SegmentBuilder("sexual", RULES, new_id=lambda: f"id-{next(ids)}")


def test_the_start_moves_to_the_first_hit_of_the_closer_look() -> None:
    """Hit at 4 after a miss at 2; the look sees hits from 2.5 on: the start is the middle of 2.25 and 2.5."""
    build = builder()
    build.add(2.0, 0.1)
    (opened,) = build.add(4.0, 0.9)
    assert (opened.start_s, opened.start_uncertainty_s) == (3.0, 1.0)
    (refined,) = build.refine([(2.25, 0.1), (2.5, 0.9), (3.0, 0.95), (3.5, 0.9)])
    assert (refined.state, refined.rev, refined.segment_id) == ("update", 2, opened.segment_id)
    assert (refined.start_s, refined.start_uncertainty_s) == (2.375, 0.125)
    assert (refined.samples, refined.hits, refined.peak) == (4, 4, 0.95)


def test_a_look_without_a_hit_brings_the_start_close_to_the_sample_that_opened() -> None:
    build = builder()
    build.add(2.0, 0.1)
    build.add(4.0, 0.9)
    (refined,) = build.refine([(3.0, 0.2), (3.75, 0.1)])
    assert (refined.start_s, refined.start_uncertainty_s) == (3.875, 0.125)


def test_the_end_moves_to_the_last_held_picture_of_the_closer_look() -> None:
    """Held at 4, a miss at 6; the look holds up to 5.25: the end is the middle of 5.25 and 5.5."""
    build = builder()
    build.add(2.0, 0.1)
    build.add(4.0, 0.9)
    build.add(6.0, 0.1)
    (refined,) = build.refine([(4.5, 0.9), (5.25, 0.7), (5.5, 0.3), (5.75, 0.1)])
    assert refined.end_s == 5.25
    (closed,) = build.advance(9.5)
    assert (closed.end_s, closed.end_uncertainty_s) == (5.375, 0.125)
    assert closed.samples == 3


def test_a_flash_between_two_clean_samples_is_found() -> None:
    build = builder()
    build.add(2.0, 0.1)
    assert build.add(4.0, 0.55) == []
    (opened,) = build.refine([(2.5, 0.1), (3.0, 0.9), (3.5, 0.2)])
    assert (opened.state, opened.start_s, opened.end_s) == ("open", 2.75, 3.0)
    (closed,) = build.add(8.0, 0.0)
    assert (closed.end_s, closed.end_uncertainty_s) == (3.25, 0.25)


def test_pictures_outside_the_last_interval_are_refused() -> None:
    build = builder()
    build.add(2.0, 0.1)
    build.add(4.0, 0.9)
    for times in ([1.9], [4.0], [3.0, 3.0], [3.5, 3.0]):
        with pytest.raises(ValueError, match="closer look"):
            build.refine([(time_s, 0.5) for time_s in times])


def shape(changes: list[Segment]) -> list[tuple[object, ...]]:
    """Closed segments without what depends on when they were reported."""
    return [
        (s.start_s, s.end_s, s.start_uncertainty_s, s.end_uncertainty_s, s.peak, s.samples, s.hits, s.reason)
        for s in changes
        if s.state == "closed"
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(SCORE, st.lists(SCORE, max_size=4)), min_size=1, max_size=12),
)
def test_a_look_at_a_boundary_is_as_good_as_having_sampled_there(
    steps: list[tuple[float, list[float]]],
) -> None:
    """Looks are asked for where neighbours differ, as ``Lookout`` does; the rest of the interval is then
    known."""
    looked, dense = builder(), builder()
    after_looks: list[Segment] = []
    from_start: list[Segment] = []
    level = 0
    for index, (score, inside) in enumerate(steps):
        time_s = 2.0 * (index + 1)
        now = 2 if score >= 0.8 or (level == 2 and score >= 0.6) else 1 if score >= 0.5 else 0
        crossed, level = now != level and index > 0, now
        between = [(time_s - 2.0 + 0.4 * (n + 1), s) for n, s in enumerate(inside)] if crossed else []
        changes = looked.add(time_s, score)
        if any(change.state == "closed" for change in changes):
            between = []  # what was published as closed stays closed, whatever a look would show
        after_looks += changes + looked.refine(between)
        for when, what in [*between, (time_s, score)]:
            from_start += dense.add(when, what)
    end_s = 2.0 * len(steps) + 1.0
    after_looks += looked.end(end_s, "end_of_stream")
    from_start += dense.end(end_s, "end_of_stream")
    assert shape(after_looks) == shape(from_start)
    published: dict[str, int] = {}
    for change in after_looks:
        assert change.rev == published.get(change.segment_id, 0) + 1
        published[change.segment_id] = change.rev
