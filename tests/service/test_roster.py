"""When a run's streams are told to open."""

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.outbox import Outbox
from pipeline.service import plan
from pipeline.service.health import DEATHS
from pipeline.service.jobs import Job
from pipeline.service.records import Records
from pipeline.service.roster import Roster
from tests.fixtures.events import segment

NOW_S = 1000.0


class Clock(SimpleNamespace):
    """The roster's ``time``, which stands still."""

    now_s = NOW_S

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1_795_428_000.0 + self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A machine of two cores at 1,000 s."""
    found = Clock()
    monkeypatch.setattr("pipeline.service.roster.time", found)
    monkeypatch.setattr(plan, "cores", lambda: 2)
    return found


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox") as opened:
        yield opened


def roster(outbox: Outbox, live: int, files: int = 0, gpus: int = 0, **sampling: Any) -> Roster:
    streams = [{"id": f"cam-{n}", "url": f"rtsp://127.0.0.1/{n}"} for n in range(live)]
    streams += [{"id": f"film-{n}", "url": f"film-{n}.mp4"} for n in range(files)]
    config = Config.model_validate({"streams": streams, "sampling": sampling})
    jobs = [Job(n, one, plan.kind_of(one)) for n, one in enumerate(config.streams, 1)]
    return Roster(config, Records(outbox, lambda event: None), jobs, gpus=gpus)


def openings(found: Roster) -> list[float]:
    """When each stream opens, in seconds from now, in the order in which they are told."""
    orders = [found.order(job) for job in found.jobs.values()]
    return [order.open_at_s - NOW_S for order in orders if order is not None]


@pytest.mark.parametrize(
    ("streams", "max_gap_s", "spread_s"),
    [
        (10, 2.0, 2.0),  # evenly over one gap
        (10, 0.5, 1.5),  # ten starts take 1.25 s of two cores: three gaps
        (100, 2.0, 14.0),
        (4, 60.0, 2.0),  # a long gap is nothing to wait for
    ],
)
@pytest.mark.usefixtures("clock")
def test_live_streams_open_one_after_the_other_over_as_many_gaps_as_their_starts_need(
    outbox: Outbox, streams: int, max_gap_s: float, spread_s: float
) -> None:
    found = openings(roster(outbox, streams, max_gap_s=max_gap_s))
    assert found == pytest.approx([spread_s * number / streams for number in range(streams)])
    assert all(earlier < later for earlier, later in itertools.pairwise(found))
    assert math.remainder(spread_s, min(max_gap_s, 2.0)) == pytest.approx(0.0), "keyframes stay apart"


@pytest.mark.parametrize("streams", [20, 38, 60, 75, 90, 100])
@pytest.mark.usefixtures("clock")
def test_no_two_live_streams_open_at_the_same_moment_of_the_gap(outbox: Outbox, streams: int) -> None:
    """75 need five gaps: in 75 equal steps every fifteenth would meet the first."""
    moments = sorted(round(open_s % 2.0, 6) for open_s in openings(roster(outbox, streams)))
    apart = [later - earlier for earlier, later in itertools.pairwise([*moments, moments[0] + 2.0])]
    assert min(apart) > 0.9 * 2.0 / streams


@pytest.mark.parametrize(("gpus", "spread_s"), [(1, 20.0 * 100 / 101), (2, 14.0), (4, 14.0)])
@pytest.mark.usefixtures("clock")
def test_on_a_gpu_each_start_has_the_time_that_a_decoder_takes_to_open(
    outbox: Outbox, gpus: int, spread_s: float
) -> None:
    """A hundred on one GPU: 0.2 s each, however many cores there are; on more the cores have more to do."""
    assert openings(roster(outbox, 100, gpus=gpus))[-1] == pytest.approx(0.99 * spread_s)


@pytest.mark.usefixtures("clock")
def test_files_open_at_once(outbox: Outbox) -> None:
    assert openings(roster(outbox, 3, files=4))[3:] == [0.0] * 4


def test_what_waits_for_the_disk_does_not_grow_with_the_time_that_it_refuses(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two quarantined streams the time is told every minute; for 50 of them the outbox is full."""
    monkeypatch.setattr("pipeline.service.keeper.time", clock)
    with Outbox(tmp_path / "outbox") as outbox:
        outbox.accept([segment()], now=1.0)
        outbox.max_bytes = outbox.counts().bytes
        found, jobs = roster(outbox, 2), (1, 2)
        for number in jobs * DEATHS:
            found.jobs[number].start_clock_s = clock.now_s
            found.blame(found.jobs[number], None, clock.now_s)
        records = found._records
        assert "bring Redis back" in records.error
        first = len(records._waiting)
        for _ in range(50):
            clock.now_s += 60.0
            found.tick(clock.now_s)
        assert len(records._waiting) == first
        assert [found.order(found.jobs[number]) for number in jobs] == [None, None]
        outbox.max_bytes = 100_000
        found.tick(clock.now_s)
        assert (records.error, records._waiting) == ("", [])
        told = [json.loads(row.event.body) for row in outbox.pending()]
        gaps = [one["data"] for one in told if one["type"] == "framewarden.coverage.v1"]
        assert {gap["stream"]["id"] for gap in gaps} == {"cam-0", "cam-1"}
        assert sum(gap["seconds"] for gap in gaps) == pytest.approx(2 * 3000.0, abs=5.0)


def test_a_stream_that_is_told_again_keeps_its_place_and_a_late_one_does_not_wait(
    outbox: Outbox, clock: Clock
) -> None:
    found = roster(outbox, 4)
    first, second, third, last = found.jobs.values()
    assert [order.open_at_s for job in (first, second) if (order := found.order(job))] == [1000.0, 1000.5]
    clock.now_s = 1000.2
    again, following = found.order(first), found.order(third)
    assert again is not None
    assert following is not None
    assert (again.open_at_s, following.open_at_s) == (1000.0, 1001.0)
    clock.now_s = 1030.0
    late = found.order(last)
    assert late is not None
    assert late.open_at_s == 1030.0
