"""The outbox: what was accepted is on disk, whatever happens next."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.events import closed_by_successor
from pipeline.outbox import Finished, Outbox, OutboxError, OutboxFullError, Progress
from tests.fixtures.events import gap, segment


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        yield outbox


def ids(outbox: Outbox) -> list[str]:
    return [row.event.id for row in outbox.pending()]


def test_accepted_events_come_out_whole_and_oldest_first(outbox: Outbox) -> None:
    events = [segment(), gap(), segment()]
    outbox.accept(events, now=1.0)
    assert [row.event for row in outbox.pending()] == events
    assert [row.event for row in outbox.pending(limit=2)] == events[:2]


def test_an_id_is_accepted_once(outbox: Outbox) -> None:
    event = segment()
    outbox.accept([event], now=1.0)
    outbox.accept([event], now=2.0)
    assert ids(outbox) == [event.id]
    assert outbox.counts().pending == 1


def test_an_accept_that_fails_changes_nothing(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite", max_bytes=5000) as outbox:
        kept = segment()
        outbox.accept([kept], now=1.0)
        before = outbox.counts()
        with pytest.raises(OutboxFullError, match=r"max_bytes \(5000\).*bring Redis back"):
            outbox.accept(
                [segment() for _ in range(9)],
                now=2.0,
                progress=[Progress("cam-1", "", 0, 0.0, "s", 1.0)],
                finished=[Finished("cam-1", "/f", 1, 1.0)],
            )
        assert ids(outbox) == [kept.id]
        assert outbox.counts() == before
        assert outbox.progress("cam-1") is None
        assert not outbox.is_finished("cam-1", "/f", 1, 1.0)


CHILD = """
import sys
from pathlib import Path
from pipeline.outbox import Outbox
from tests.fixtures.events import segment
outbox = Outbox(Path(sys.argv[1]))
for number in range(1_000_000):
    event = segment()
    outbox.accept([event], now=1.0)
    print(event.id, flush=True)
"""


def test_what_accept_returned_from_survives_sigkill_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(20)]
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    with Outbox(path) as outbox:
        found = [row.event.id for row in outbox.pending(limit=100_000)]
        assert len(said) >= 20
        assert found[: len(said)] == said
        assert outbox.counts().pending == len(found)
        assert len(found) <= len(said) + 1  # at most one was stored that the child had no time to say


def test_processes_and_threads_write_at_once_and_nothing_is_skipped(tmp_path: Path) -> None:
    """Two processes and two threads write while the reader goes on from where it was: it misses none."""
    path = tmp_path / "outbox.sqlite"
    program = CHILD.replace("1_000_000", "40")
    with Outbox(path) as outbox:

        def write() -> None:
            for _ in range(40):
                outbox.accept([gap()], now=1.0)

        children = [
            subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) for _ in "ab"
        ]
        threads = [threading.Thread(target=write) for _ in "ab"]
        for thread in threads:
            thread.start()
        taken: list[str] = []
        while len(taken) < 160:
            rows = outbox.pending(limit=7)
            outbox.delivered([(row.seq, f"1-{row.seq}") for row in rows], now=2.0)
            taken += [row.event.id for row in rows]
        for thread in threads:
            thread.join()
        for child in children:
            out, _ = child.communicate()
            assert child.returncode == 0
            assert set(out.decode().split()) <= set(taken)
        assert len(set(taken)) == 160
        assert outbox.pending() == []


def test_the_file_syncs_every_commit_to_disk(outbox: Outbox) -> None:
    db = outbox._file.db()
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_delivered_events_are_held_until_every_group_has_acknowledged_them(outbox: Outbox) -> None:
    outbox.accept([segment(), segment(), gap()], now=1.0)
    first, second, other = outbox.pending()
    outbox.delivered([(first.seq, "9-0"), (second.seq, "10-0"), (other.seq, "10-1")], now=2.0)
    assert outbox.counts().held == 3
    assert [row.redis_id for row in outbox.held("segments", 10)] == ["9-0", "10-0"]
    assert [row.redis_id for row in outbox.held("segments", 10, after="9-0")] == ["10-0"]
    assert outbox.held("segments", 10, until="9-5") == [replace(first, redis_id="9-0")]
    outbox.remove([first.seq])
    count, ends = outbox.held_ends("segments")
    assert (count, [row.redis_id for row in ends]) == (1, ["10-0", "10-0"])
    counts = outbox.counts()
    assert (counts.pending, counts.held, counts.delivered) == (0, 2, 3)


def test_a_bound_at_the_very_end_of_a_millisecond_is_understood(outbox: Outbox) -> None:
    """What lies before entry 10-0 ends at 9-18446744073709551615, which is beyond SQLite's integers."""
    outbox.accept([segment(), segment()], now=1.0)
    first, second = outbox.pending()
    outbox.delivered([(first.seq, "9-7"), (second.seq, "10-0")], now=2.0)
    (before,) = outbox.held("segments", 9, until="9-18446744073709551615")
    assert before.redis_id == "9-7"


def test_what_redis_lost_is_pending_again_in_its_old_place(outbox: Outbox) -> None:
    outbox.accept([segment() for _ in range(3)], now=1.0)
    rows = outbox.pending()
    outbox.delivered([(row.seq, f"5-{row.seq}") for row in rows[:2]], now=2.0)
    outbox.undelivered([rows[0].seq])
    assert [row.seq for row in outbox.pending()] == [rows[0].seq, rows[2].seq]


def test_delivered_events_age_out_and_undelivered_ones_never(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite", keep_s=100.0) as outbox:
        outbox.accept([segment(), segment()], now=0.0)
        first, second = outbox.pending()
        outbox.delivered([(first.seq, "1-1")], now=0.0)
        assert outbox.prune(now=99.0) == 0
        assert outbox.prune(now=101.0) == 1
        assert outbox.prune(now=1e9) == 0
        assert ids(outbox) == [second.event.id]


def test_room_is_made_by_delivered_events_first_oldest_first(tmp_path: Path) -> None:
    size = len(segment().body) + 512
    with Outbox(tmp_path / "o.sqlite", max_bytes=size * 4 + size // 2) as outbox:
        outbox.accept([segment() for _ in range(4)], now=1.0)
        rows = outbox.pending()
        outbox.delivered([(row.seq, f"1-{row.seq}") for row in rows[:3]], now=1.0)
        outbox.accept([segment()], now=2.0)
        assert [row.seq for row in outbox.held("segments", 9)] == [rows[1].seq, rows[2].seq]
        assert outbox.counts().pending == 2


def test_then_superseded_updates_are_folded_and_nothing_else(tmp_path: Path) -> None:
    """Room for 6.5 events: open, five updates and the close of one segment fold to open and close."""
    size = len(segment().body) + 512
    with Outbox(tmp_path / "o.sqlite", max_bytes=size * 6 + size // 2) as outbox:
        opened = segment()
        name = str(opened.segment_id)
        updates = [segment(name, rev, "update") for rev in range(2, 7)]
        outbox.accept([opened, *updates], now=1.0)
        closed = segment(name, 7, "closed")
        outbox.accept([closed], now=2.0)
        assert ids(outbox) == [opened.id, closed.id]


def test_the_latest_update_of_an_open_segment_is_never_folded(tmp_path: Path) -> None:
    size = len(segment().body) + 512
    with Outbox(tmp_path / "o.sqlite", max_bytes=size * 3 + size // 2) as outbox:
        opened = segment()
        name = str(opened.segment_id)
        outbox.accept([opened, segment(name, 2, "update"), segment(name, 3, "update")], now=1.0)
        other = segment()
        outbox.accept([other], now=2.0)
        assert ids(outbox) == [opened.id, f"{name}:3", other.id]


def test_open_segments_are_known_although_their_events_were_acknowledged(outbox: Outbox) -> None:
    opened = segment()
    name = str(opened.segment_id)
    update = segment(name, 2, "update")
    outbox.accept([opened, update, segment(stream="cam-2")], now=1.0)
    for row in outbox.pending():
        outbox.delivered([(row.seq, f"1-{row.seq}")], now=1.0)
    outbox.remove(row.seq for row in outbox.held("segments", 9))
    assert outbox.open_segments("cam-1") == [update]
    assert len(outbox.open_segments()) == 2
    outbox.accept([closed_by_successor(update, last_scored_s=9.0, now=2.0)], now=2.0)
    assert outbox.open_segments("cam-1") == []


def test_progress_is_kept_with_its_events_and_ends_when_the_file_is_finished(outbox: Outbox) -> None:
    step = Progress("uploads", "/data/a.mp4", 10, 1.25, "s-1", 7.5, {"screened_s": 7.0}, 2)
    outbox.accept([], now=1.0, progress=[step])
    assert outbox.progress("uploads", "/data/a.mp4") == step
    outbox.accept([], now=2.0, finished=[Finished("uploads", "/data/a.mp4", 10, 1.25)])
    assert outbox.progress("uploads", "/data/a.mp4") is None
    assert outbox.is_finished("uploads", "/data/a.mp4", 10, 1.25)
    assert not outbox.is_finished("uploads", "/data/a.mp4", 11, 1.25)
    assert not outbox.is_finished("other", "/data/a.mp4", 10, 1.25)


def test_the_last_scored_sample_of_an_events_session_is_known(outbox: Outbox) -> None:
    event = segment()
    assert outbox.last_scored(event) is None
    outbox.accept([event], now=1.0, progress=[Progress("cam-1", "", 0, 0.0, "s-1", 7.5)])
    assert outbox.last_scored(event) == 7.5
    outbox.accept([], now=2.0, progress=[Progress("cam-1", "", 0, 0.0, "s-2", 0.5)])
    assert outbox.last_scored(event) is None


def test_a_file_name_that_is_not_utf8_is_remembered_too(outbox: Outbox) -> None:
    name = b"/data/caf\xe9.mp4".decode("utf-8", "surrogateescape")
    outbox.accept([], now=1.0, finished=[Finished("uploads", name, 10, 1.25)])
    assert outbox.is_finished("uploads", name, 10, 1.25)


def test_everything_is_still_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        outbox.accept([segment(), gap()], now=1.0, progress=[Progress("cam-1", "", 0, 0.0, "s", 1.0)])
        before, counts = outbox.pending(), outbox.counts()
    with Outbox(path) as outbox:
        assert (outbox.pending(), outbox.counts()) == (before, counts)
        assert outbox.progress("cam-1") is not None


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    Outbox(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutboxError, match=r"version 99.*newer"):
        Outbox(path)


def test_a_file_that_is_no_outbox_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_text("this is not a database, but long enough to look like one" * 20)
    with pytest.raises(OutboxError, match=r"outbox\.sqlite: outbox cannot be used"):
        Outbox(path)
    assert path.read_text().startswith("this is not")
