"""The outbox on disks that are full, read-only, torn, or that somebody deletes it from: what was accepted is
there, what was refused is said to be, and it goes on by itself."""

import ctypes
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.outbox import Outbox, OutboxError, OutboxFullError, Progress
from tests.fixtures.events import segment

V1 = Path(__file__).parent / "fixtures" / "outbox-1.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


def ids(outbox: Outbox) -> list[str]:
    return [row.event.id for row in outbox.pending(100_000)]


def consistent(outbox: Outbox) -> bool:
    """Whether SQLite finds nothing wrong and the counters agree with the rows."""
    with outbox._file.mapped():
        db = outbox._file.db()
        (found,) = db.execute("SELECT count(*) FROM events WHERE redis_ms IS NULL").fetchone()
        whole = bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    return whole and bool(found == outbox.counts().pending)


# ---- full -------------------------------------------------------------------------------------------------

FILLER = """
import resource, sys
from pathlib import Path
from pipeline.outbox import Outbox, OutboxError
from tests.fixtures.events import segment
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
outbox = Outbox(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))     # no file may grow beyond: as on a full disk
refused = None
for number in range(500):
    event = segment()
    try:
        outbox.accept([event], now=1.0)
    except OutboxError as error:
        refused = error
        break
    print("accepted", event.id)
print("refused", refused.reason if refused else "never")
print("text", refused)
print("still readable", len(outbox.pending(10_000)))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))        # somebody made room
outbox.accept([event], now=1.0)
print("accepted", event.id)
"""


def test_a_full_disk_refuses_loses_nothing_and_goes_on_once_there_is_room(path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    accepted = [line.split()[1] for line in said if line.startswith("accepted")]
    assert len(accepted) > 5
    assert any(line in ("refused disk_full", "refused disk_error") for line in said), said
    assert any("it goes on by itself" in line for line in said)
    assert f"still readable {len(accepted) - 1}" in said
    with Outbox(path) as outbox:
        assert ids(outbox) == accepted
        assert consistent(outbox)


def test_a_database_that_may_not_grow_is_a_full_disk_by_name(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.accept([kept := segment()], now=1.0)
        db = outbox._file.db()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutboxError, match=r"outbox\.sqlite: .*full: free some space") as caught:
            outbox.accept([segment() for _ in range(50)], now=2.0)
        assert caught.value.reason == "disk_full"
        assert ids(outbox) == [kept.id]
        outbox.accept([more := segment()], now=3.0)  # a new connection, without the limit
        assert ids(outbox) == [kept.id, more.id]


def test_the_limits_of_the_test_process_are_as_they_were() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# ---- read-only --------------------------------------------------------------------------------------------

READ_ONLY = """
import os, sys
from pathlib import Path
from tests.test_outbox_disk import without_privileges
from pipeline.outbox import Outbox, OutboxError
from tests.fixtures.events import segment
without_privileges()
path = Path(sys.argv[1])
first, second = segment(), segment()
with Outbox(path) as outbox:
    outbox.accept([first], now=1.0)
path.chmod(0o444)
path.parent.chmod(0o555)
try:
    Outbox(path).accept([second], now=1.0)
except OutboxError as error:
    print("open", error.reason)
outbox = None
path.parent.chmod(0o755)
try:
    outbox = Outbox(path)
    outbox.accept([second], now=1.0)
except OutboxError as error:
    print("accept", error.reason)
for file in path.parent.iterdir():
    file.chmod(0o644)
outbox = outbox or Outbox(path)
outbox.accept([second], now=2.0)
print("then", *(row.event.id for row in outbox.pending()))
print("were", first.id, second.id)
"""


def without_privileges() -> None:
    """File modes count for this process from now on, even if root runs it."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def test_a_read_only_disk_is_named_and_the_open_outbox_goes_on_once_it_is_writable(path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert said[0] == "open read_only"
    assert said[1] == "accept read_only"
    assert said[2].removeprefix("then ") == said[3].removeprefix("were ")


# ---- torn -------------------------------------------------------------------------------------------------


@pytest.fixture
def crashed(path: Path, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """The files of an outbox as they lay when the power went, and what was accepted."""
    with Outbox(path) as outbox:
        events = [segment() for _ in range(30)]
        for event in events:
            outbox.accept([event], now=1.0)
        copy = tmp_path / "copy" / "outbox.sqlite"
        copy.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        yield copy, [event.id for event in events]


@pytest.mark.parametrize("cut", [1, 100, 4000])
def test_a_torn_last_page_costs_at_most_what_was_in_it(crashed: tuple[Path, list[str]], cut: int) -> None:
    path, accepted = crashed
    wal = Path(f"{path}-wal")
    os.truncate(wal, wal.stat().st_size - cut)
    with Outbox(path) as outbox:
        assert ids(outbox) == accepted[:-1]
        assert consistent(outbox)
        outbox.accept([more := segment()], now=2.0)
        assert ids(outbox) == [*accepted[:-1], more.id]


def test_a_last_page_of_rubbish_is_not_believed(crashed: tuple[Path, list[str]]) -> None:
    path, accepted = crashed
    wal = Path(f"{path}-wal")
    with wal.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(os.urandom(1000))
    with Outbox(path) as outbox:
        assert ids(outbox) == accepted[:-1]
        assert consistent(outbox)


def test_untorn_files_give_all_back(crashed: tuple[Path, list[str]]) -> None:
    path, accepted = crashed
    with Outbox(path) as outbox:
        assert ids(outbox) == accepted


def test_a_damaged_database_is_kept_aside_and_what_can_be_read_goes_on(path: Path) -> None:
    """Eight pages in the middle are rubbish: what lies before and after them is found."""
    with Outbox(path) as outbox:
        events = [segment() for _ in range(100)]
        outbox.accept(events, now=1.0, progress=[Progress("cam-1", "", 0, 0.0, "s-1", 1.0)])
    middle = path.stat().st_size // 4096 // 2
    with path.open("r+b") as file:
        file.seek(middle * 4096)
        file.write(os.urandom(8 * 4096))
    with Outbox(path) as outbox, Outbox(path) as other:
        other.counts()  # has the old file open, as another process may
        with pytest.raises(OutboxError, match=r"malformed.*kept as outbox\.sqlite\.damaged-") as caught:
            outbox.pending()
        assert caught.value.reason == "damaged"
        found = ids(outbox)
        assert 40 < len(found) < 100
        assert set(found) < {event.id for event in events}
        assert consistent(outbox)
        outbox.accept([more := segment()], now=2.0)
        assert ids(other) == [*found, more.id]
        assert outbox.progress("cam-1") is not None
    assert len([file for file in path.parent.iterdir() if ".damaged-" in file.name]) >= 1


def test_a_database_that_is_rubbish_but_for_its_head_costs_what_it_held_and_no_more(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.accept([segment() for _ in range(50)], now=1.0)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with Outbox(path) as outbox:
        with pytest.raises(OutboxError, match="damaged-"):
            outbox.pending()
        assert ids(outbox) == []
        outbox.accept([more := segment()], now=2.0)
        assert ids(outbox) == [more.id]
        assert consistent(outbox)


# ---- deleted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffixes", [("", "-wal", "-shm"), ("",)], ids=["all files", "the main file"])
def test_a_deleted_outbox_is_made_again_with_all_that_it_held(path: Path, suffixes: tuple[str, ...]) -> None:
    step = Progress("cam-1", "", 0, 0.0, "s-1", 1.0)
    with Outbox(path) as outbox:
        opened = segment()
        outbox.accept([opened, gone := segment()], now=1.0, progress=[step])
        first, second = outbox.pending()
        outbox.delivered([(second.seq, "5-1")], now=1.0)
        for suffix in suffixes:
            Path(f"{path}{suffix}").unlink()
        assert ids(outbox) == [opened.id]
        assert path.exists()
        assert outbox.pending()[0].seq == first.seq  # what is on its way to Redis can still be noted
        assert [row.event.id for row in outbox.held("segments", 9)] == [gone.id]
        assert outbox.progress("cam-1") == step
        assert {event.id for event in outbox.open_segments()} == {opened.id, gone.id}
        outbox.accept([more := segment()], now=2.0)
        assert ids(outbox) == [opened.id, more.id]
        assert consistent(outbox)
    with Outbox(path) as again:
        assert ids(again) == [opened.id, more.id]


def test_a_deleted_folder_is_made_again_too(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.accept([kept := segment()], now=1.0)
        shutil.rmtree(path.parent)
        outbox.accept([more := segment()], now=2.0)
        assert ids(outbox) == [kept.id, more.id]


def test_an_outbox_that_was_replaced_by_another_gets_what_the_old_one_held(path: Path) -> None:
    """A worker that was restarted has already made a new file and written to it."""
    with Outbox(path) as outbox:
        outbox.accept([old := segment()], now=1.0)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink()
        with Outbox(path) as other:
            other.accept([new := segment()], now=2.0)
            assert ids(outbox) == [old.id, new.id]
            assert ids(other) == [old.id, new.id]
            assert consistent(other)


def test_a_deleted_log_alone_loses_nothing(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.accept([first := segment()], now=1.0)
        Path(f"{path}-wal").unlink()
        outbox.accept([second := segment()], now=1.0)
        with Outbox(path) as other:
            assert ids(other) == ids(outbox) == [first.id, second.id]
            assert consistent(other)


def test_what_an_outbox_holds_alone_is_carried_over_when_it_is_closed(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.accept([event := segment()], now=1.0)
        path.unlink()
    with Outbox(path) as again:
        assert ids(again) == [event.id]


def test_writers_in_threads_and_processes_lose_nothing_when_it_is_deleted_under_them(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    ours: list[str] = []
    stop = threading.Event()
    with Outbox(path) as outbox:

        def write() -> None:
            while not stop.is_set():
                outbox.accept([event := segment()], now=1.0)
                ours.append(event.id)

        theirs = [child.stdout.readline().strip()]
        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(3):
            theirs += [child.stdout.readline().strip() for _ in range(10)]
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        theirs += [child.stdout.readline().strip() for _ in range(10)]
        stop.set()
        thread.join()
        child.stdin.write("\n")
        child.stdin.close()
        theirs += child.stdout.read().split()  # communicate() would pass over what readline() had taken in
        child.stdout.close()
        assert child.wait() == 0
        found = ids(outbox)
    assert set(found) == {*ours, *theirs}
    assert len(found) == len(set(found))
    assert [name for name in found if name in set(ours)] == ours


WRITER = """
import select, sys
from pathlib import Path
from pipeline.outbox import Outbox
from tests.fixtures.events import segment
outbox = Outbox(Path(sys.argv[1]))
while not select.select([sys.stdin], [], [], 0)[0]:
    event = segment()
    outbox.accept([event], now=1.0)
    print(event.id, flush=True)
outbox.pending(1)     # carries over what it may hold alone
outbox.close()
"""


# ---- full by our own bound, and older versions ------------------------------------------------------------


def test_closing_what_a_dead_worker_left_open_goes_beyond_the_bound(path: Path) -> None:
    with Outbox(path, max_bytes=4500) as outbox:
        opened = segment()
        outbox.accept([opened], now=1.0)
        closed = segment(opened.segment_id, 2, "closed")
        outbox.accept([segment()], now=1.0)
        with pytest.raises(OutboxFullError):
            outbox.accept([closed], now=2.0)
        outbox.accept([closed], now=2.0, urgent=True)
        assert ids(outbox)[-1] == closed.id


def test_a_call_larger_than_the_whole_bound_finds_room_once_nothing_else_waits(path: Path) -> None:
    large = [segment() for _ in range(9)]
    with Outbox(path, max_bytes=5000) as outbox:
        outbox.accept([first := segment()], now=1.0)
        with pytest.raises(OutboxFullError) as caught:
            outbox.accept(large, now=2.0)
        assert caught.value.reason == "full"
        outbox.delivered([(outbox.pending()[0].seq, "1-1")], now=2.0)
        outbox.accept(large, now=3.0)
        assert ids(outbox) == [event.id for event in large]
        assert first.id not in ids(outbox)


def test_an_outbox_of_version_1_is_brought_up_and_keeps_all(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(V1.read_text())
    db.close()
    with Outbox(path) as outbox:
        rows = outbox.pending()
        assert [row.seq for row in rows] == [3, 4, 5]
        assert [row.event.state for row in rows] == [None, "closed", "update"]
        assert [row.redis_id for row in outbox.held("segments", 9)] == ["1795428000000-1"]
        assert [event.rev for event in outbox.open_segments()] == [2]
        assert outbox.is_finished("uploads", "/data/a.mp4", 10, 1.25)
        assert (outbox.counts().pending, outbox.counts().held) == (3, 1)
        outbox.accept([more := segment()], now=2.0)
        assert ids(outbox)[-1] == more.id
        assert outbox.pending()[-1].seq > 10**15  # beyond any number of a file that this one may follow
        assert consistent(outbox)


def test_a_new_file_never_numbers_its_rows_like_the_one_before_it(path: Path) -> None:
    numbers: list[int] = []
    for _ in range(3):
        with Outbox(path) as outbox:
            outbox.accept([segment() for _ in range(5)], now=1.0)
            numbers += [row.seq for row in outbox.pending()]
        path.unlink()
    assert len(set(numbers)) == 15
    assert numbers == sorted(numbers)
