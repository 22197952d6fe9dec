"""A run that starts on a bad disk: real ones that are full, or mounted read-only. It ends with one line that
says what to do, and may be started again; a folder that the config names wrongly is another thing."""

import errno
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, FramewardenError
from pipeline.outbox_errors import OutboxError
from pipeline.service.state import locked

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "then start again (the systemd unit does so by itself)"
FAILED, REFUSED = 1, 2

DISK = """
import json, os, subprocess, sys
from pathlib import Path
from pipeline.outbox import Outbox
from pipeline.status import FILE
from tests.fixtures.events import segment
disk, what, rounds = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=True)
state, config, filler = disk / "state", disk.parent / "run.yaml", disk / "fill"
config.write_text(json.dumps({
    "state_dir": str(state), "workers": 1, "device": "cpu",
    "redis": {"url": "redis://127.0.0.1:1/0"},
    "streams": [{"id": "cam", "url": "rtsp://127.0.0.1:1/a"}],
}))
if what != "new":
    state.mkdir()
    with Outbox(state / "outbox.sqlite") as outbox:
        outbox.accept([segment()], now=1.0)          # left open by a run that was killed
    (state / "lock").write_text("1")

def run():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", config, "--for", "1"], capture_output=True, text=True
    )
    said = {"code": done.returncode, "stderr": done.stderr.splitlines()}
    print(json.dumps(said | {"ran": (state / FILE).exists()}), flush=True)

for pages in rounds:                                 # free pages; None: the disk is sound
    if what == "read-only":
        subprocess.run(["mount", "-o", "remount," + ("rw" if pages is None else "ro"), disk], check=True)
    elif pages is None:
        filler.unlink(missing_ok=True)
    else:
        with filler.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                file.truncate(filler.stat().st_size - pages * 4096)
    run()
"""


@functools.cache
def no_disks() -> str:
    """Why this machine lets us mount no disk of our own; empty: it does."""
    try:
        done = subprocess.run(
            ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""


def runs(folder: Path, what: str, *rounds: int | None) -> list[dict[str, object]]:
    """Exit code and stderr of runs one after another, on a disk with so many free pages."""
    if why := no_disks():
        pytest.skip(f"no mounts in a user namespace here, so no disk that is full or read-only: {why}")
    (folder / "disk").mkdir()
    arguments = [str(folder / "disk"), what, json.dumps(rounds)]
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", DISK, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def the_line(run: dict[str, object]) -> str:
    """The one line of a run that did not start: it may be started again, and claims no more than that."""
    assert run["code"] == FAILED, run
    assert not run["ran"]
    assert isinstance(run["stderr"], list)
    (line,) = run["stderr"]
    assert line.startswith("framewarden: error: ")
    assert line.endswith(AGAIN)
    assert "goes on by itself" not in line
    return str(line)


def test_a_full_disk_at_the_first_start_is_one_line_and_the_next_start_is_as_ever(tmp_path: Path) -> None:
    full, mended = runs(tmp_path, "new", 0, None)
    line = the_line(full)
    assert (
        f"state_dir: {tmp_path}/disk/state: cannot be written: No space left on device: free some space there"
        in line
    )
    assert (mended["code"], mended["ran"]) == (0, True), mended


def test_a_full_disk_at_a_later_start_is_said_of_whatever_finds_no_room(tmp_path: Path) -> None:
    """The lock has its page from the run before, so the outbox finds it; with a little more room, what the
    last run left open cannot be closed."""
    *full, mended = runs(tmp_path, "left", 0, 12, None)
    for run in full:
        line = the_line(run)
        assert f"{tmp_path}/disk/state/outbox.sqlite: outbox cannot be used: " in line
        assert "free some space" in line
    assert (mended["code"], mended["ran"]) == (0, True), mended


def test_a_read_only_disk_is_one_line_and_the_next_start_is_as_ever(tmp_path: Path) -> None:
    bad, mended = runs(tmp_path, "read-only", 0, None)
    line = the_line(bad)
    assert f"state_dir: {tmp_path}/disk/state: cannot be written: Read-only file system: remount it" in line
    assert (mended["code"], mended["ran"]) == (0, True), mended


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
def test_what_needs_a_quota_or_a_broken_disk_is_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Neither can be had without a disk of that kind: the system's call says it."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(FramewardenError, match=os.strerror(number)) as caught, locked(tmp_path):
        pass
    assert not isinstance(caught.value, ConfigError)
    assert str(caught.value).endswith(AGAIN)
    monkeypatch.undo()
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text().split() == [str(os.getpid())]


FORBIDDEN = """
import sys
from pathlib import Path
from tests.test_outbox_disk import without_privileges
without_privileges()
from pipeline.cli import main
main(["run", sys.argv[1], "--for", "1"])
"""


def ends(config: Path, state: Path) -> tuple[int, str]:
    """How a run on this folder ends for a user without privileges."""
    stream = {"id": "cam", "url": "rtsp://127.0.0.1:1/a"}
    settings = {"state_dir": str(state), "device": "cpu", "redis": {"url": "redis://127.0.0.1:1/0"}}
    config.write_text(json.dumps(settings | {"streams": [stream]}))
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, str(config)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_folder_that_may_not_be_made_or_is_none_is_a_wrong_config(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o555)
    code, said = ends(tmp_path / "run.yaml", above / "state")
    assert (code, said.count("\n")) == (REFUSED, 1), said
    assert f"state_dir: {above}/state: cannot be written: Permission denied; name another folder" in said
    (tmp_path / "file").write_text("")
    code, said = ends(tmp_path / "run.yaml", tmp_path / "file")
    assert (code, said.count("\n")) == (REFUSED, 1), said
    assert "name another folder" in said


def test_a_folder_that_another_run_owns_is_a_wrong_config(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        code, said = ends(tmp_path / "run.yaml", tmp_path / "state")
    assert (code, said.count("\n")) == (REFUSED, 1), said
    assert f"a framewarden with process id {os.getpid()} runs on it" in said


def test_what_a_longer_number_left_in_the_lock_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999999999")
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=f"process id {os.getpid()} runs"),
        locked(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("passes", "lasts", "ended"),
    [
        (True, "full: free some space there; it goes on by itself", f"full: free some space there, {AGAIN}"),
        (False, "full: free some space there", "full: free some space there"),
    ],
)
def test_an_error_of_the_outbox_that_ends_a_run_promises_no_more_than_a_new_start(
    tmp_path: Path, passes: bool, lasts: str, ended: str
) -> None:
    error = OutboxError("full: free some space there", passes=passes)
    assert str(error) == lasts
    with pytest.raises(OutboxError) as caught, locked(tmp_path):
        raise error
    assert str(caught.value) == ended
    assert caught.value.__cause__ is (error if passes else None)
