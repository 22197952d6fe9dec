"""The checker of the fault tests: a planted loss, repeat or exchange must be found, and nothing else."""

import pytest

from tests.fixtures.history import History


@pytest.fixture
def history() -> History:
    history = History(seed=7)
    history.take(200)
    history.close_all()
    return history


def test_what_came_out_as_it_went_in_is_good(history: History) -> None:
    verdict = history.check(history.accepted)
    assert verdict.good
    assert (verdict.lost, verdict.duplicated, verdict.reordered, verdict.strange) == (0, 0, 0, 0)
    assert len({event.stream for event in history.accepted}) == 4
    assert {event.state for event in history.accepted} == {"open", "update", "closed", None}


def test_a_planted_loss_is_counted(history: History) -> None:
    verdict = history.check(event for number, event in enumerate(history.accepted) if number != 50)
    assert (verdict.lost, verdict.duplicated, verdict.reordered) == (1, 0, 0)
    assert verdict.examples == {"lost": [history.accepted[50].id]}
    assert not verdict.good


def test_a_planted_duplicate_is_counted(history: History) -> None:
    verdict = history.check([*history.accepted, history.accepted[10], history.accepted[10]])
    assert (verdict.lost, verdict.duplicated, verdict.reordered) == (0, 2, 0)


def test_a_planted_reorder_within_a_stream_is_counted_and_one_across_streams_is_none(
    history: History,
) -> None:
    one = [event for event in history.accepted if event.stream == "cam-1" and event.topic == "segments"]
    others = [event for event in history.accepted if event not in one]
    assert history.check([*others, *one]).good
    one[3], one[4] = one[4], one[3]
    verdict = history.check([*others, *one])
    assert (verdict.lost, verdict.duplicated, verdict.reordered) == (0, 0, 1)


def test_what_was_never_accepted_is_strange(history: History) -> None:
    verdict = history.check([*history.accepted, *History(seed=8).take(1)])
    assert (verdict.strange, verdict.good) == (1, False)


def test_only_an_update_that_a_later_revision_says_all_of_may_be_folded(history: History) -> None:
    updates = [event for event in history.accepted if event.state == "update"]
    without = [event for event in history.accepted if event.state != "update"]
    assert history.check(without).lost == len(updates)
    assert history.check(without, folded=True).good
    closed = {event.segment_id for event in updates[:1]}
    cut = [event for event in without if not (event.segment_id in closed and event.state == "closed")]
    assert history.check(cut, folded=True).lost >= 2  # the close itself, and the last update before it


def test_the_same_seed_makes_the_same_history() -> None:
    one, other = History(seed=3).take(50), History(seed=3).take(50)
    assert [(e.stream, e.state, e.rev) for e in one] == [(e.stream, e.state, e.rev) for e in other]
