"""Files of one entry that crash workers: one fails by itself, several set the entry apart."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load
from pipeline.events import Event
from pipeline.flow.coverage import CoverageLedger
from pipeline.outbox import Outbox, Progress
from pipeline.service.health import RETRY_S, WINDOW_S
from pipeline.service.jobs import Job
from pipeline.service.messages import Item
from pipeline.service.records import Records
from pipeline.service.roster import Roster
from tests.fixtures.lifecycle import write_config

SCORED_S, DURATION_S = 4.0, 10.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "uploads").mkdir()
    streams = [{"id": "uploads", "url": "uploads"}, {"id": "one", "url": "uploads/one.mp4"}]
    return load(write_config(tmp_path / "run.yaml", streams))


@pytest.fixture
def said() -> list[Event]:
    return []


@pytest.fixture
def roster(config: Config, said: list[Event], tmp_path: Path) -> Iterator[Roster]:
    with Outbox(tmp_path / "outbox.db") as outbox:
        jobs = [Job(number, stream, "file") for number, stream in enumerate(config.streams, start=1)]
        yield Roster(config, Records(outbox, said.append), jobs)


def data(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(event.body)["data"] for event in events]


def screened_halfway(roster: Roster, tmp_path: Path, job: Job, item: Item) -> None:
    """Samples at 0, 2 and 4 s of a film of 10 s."""
    ledger = CoverageLedger(max_gap_s=2.0, kind="file", start_clock_s=0.0)
    for time_s in (0.0, 2.0, SCORED_S):
        ledger.scored(time_s, time_s, late=False)
    step = Progress(job.stream.id, item.path, item.size, item.mtime, "session", SCORED_S, ledger.snapshot())
    with Outbox(tmp_path / "outbox.db") as theirs:
        theirs.accept([], now=time.time(), progress=[step])
    job.status = {"item": item.path, "duration_s": DURATION_S}


def test_a_second_crash_fails_the_file_says_what_was_not_screened_and_leaves_the_entry(
    roster: Roster, said: list[Event], tmp_path: Path
) -> None:
    job, bad = roster.jobs[1], Item(str(tmp_path / "uploads" / "bad.mp4"), 7, 8.0)
    screened_halfway(roster, tmp_path, job, bad)
    assert not roster.blame(job, bad, 100.0)
    assert not said
    assert not roster.blame(job, bad, 110.0)
    gap, failed = data(said)
    assert (gap["cause"], gap["media"]["to_s"]) == ("quarantined", DURATION_S)
    assert failed["state"] == "failed"
    assert failed["stream"]["url"] == bad.path
    parts = [failed[name] for name in ("screened_s", "late_s", "dropped_s", "lost_s")]
    assert sum(parts) == pytest.approx(failed["duration_s"], abs=0.1)
    assert failed["lost_s"] == pytest.approx(gap["seconds"], abs=0.1)
    order = roster.order(job)
    assert order is not None
    assert order.left_out == {bad}


def test_a_changed_file_is_another_one(roster: Roster, tmp_path: Path) -> None:
    job, path = roster.jobs[1], str(tmp_path / "uploads" / "bad.mp4")
    roster.blame(job, Item(path, 7, 8.0), 100.0)
    roster.blame(job, Item(path, 7, 9.0), 110.0)
    order = roster.order(job)
    assert order is not None
    assert not order.left_out


def test_a_third_crash_within_ten_minutes_sets_the_entry_apart(
    roster: Roster, said: list[Event], tmp_path: Path
) -> None:
    """So that a folder full of such files does not go on ending workers; an hour later the first stays
    out."""
    job, now = roster.jobs[1], time.monotonic()
    first, second = (Item(str(tmp_path / "uploads" / name)) for name in ("a.mp4", "b.mp4"))
    assert not roster.blame(job, first, now)
    assert not roster.blame(job, first, now)
    assert roster.blame(job, second, now)
    assert [event["state"] for event in data(said)] == ["failed", "quarantined"]
    assert job.retry_at == now + RETRY_S
    roster.tick(job.retry_at - 1)
    assert roster.quarantined() == [job]
    roster.tick(job.retry_at)
    assert roster.quarantined() == []
    order = roster.order(job)
    assert order is not None
    assert order.left_out == {first}
    assert not roster.blame(job, second, now)


def test_an_entry_of_one_file_is_set_apart_as_a_whole(
    roster: Roster, said: list[Event], tmp_path: Path
) -> None:
    job, now = roster.jobs[2], time.monotonic()
    file = Item(str(tmp_path / "uploads" / "one.mp4"))
    assert [roster.blame(job, file, now) for _ in range(3)] == [False, False, True]
    assert [event["state"] for event in data(said)] == ["quarantined"]


def test_three_crashes_in_more_than_ten_minutes_set_nothing_apart(roster: Roster) -> None:
    job = roster.jobs[2]
    assert not any(roster.blame(job, None, now) for now in (0.0, 300.0, WINDOW_S + 1.0, WINDOW_S + 301.0))
