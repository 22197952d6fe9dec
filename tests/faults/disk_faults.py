"""Faults of the disk on which a running service has its outbox."""

import os
import resource
import sqlite3
import time
from contextlib import closing

from tests.faults.redis_scene import Fault, Stage
from tests.faults.scene import CALM, closed
from tests.fixtures.lifecycle import worker_pids
from tests.fixtures.redis import until


def _limit_files(stage: Stage, most: int) -> None:
    """No file of the service may grow beyond ``most`` bytes: as on a full disk."""
    for pid in (stage.service.pid, *worker_pids(stage.service.pid)):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def full_disk(stage: Stage) -> int:
    """For some seconds the outbox can take nothing."""
    refused = len(stage.service.command.errors)
    _limit_files(stage, 1000)

    def said() -> int:
        return sum("full" in line or "disk" in line for line in stage.service.command.errors[refused:])

    try:
        until(said, 30, lambda: "nobody says that the disk is full")
        return said()
    finally:
        _limit_files(stage, resource.RLIM_INFINITY)


def deleted_outbox(stage: Stage) -> int:
    """While Redis is away, so that it holds what nobody else has."""
    stage.server.kill()
    stage.down("lost", "refused")
    folder = stage.service.folder / "state"
    stage.service.each([CALM[0]], closed(time.time()), 30, "a closed segment while Redis is away")
    for suffix in ("", "-wal", "-shm"):
        (folder / f"outbox.sqlite{suffix}").unlink()
    stage.server.start()
    return 1


def damaged_outbox(stage: Stage) -> int:
    """All of the file but its head is rubbish, just when Redis had taken all that it held."""
    path, logged = stage.service.folder / "state" / "outbox.sqlite", len(stage.service.command.errors)
    stage.service.each([CALM[0]], closed(time.time()), 30, "a closed segment")
    stage.well()
    with closing(sqlite3.connect(path)) as db:  # from its log into the file
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    until(lambda: stage.logged("malformed", logged), 30, lambda: "nobody met the damage")
    return stage.logged("malformed", logged)


DISK_FAULTS: dict[str, Fault] = {
    "full": full_disk,
    "damaged database (what it still held)": damaged_outbox,
    "deleted outbox": deleted_outbox,
}
