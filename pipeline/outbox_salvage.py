"""What can still be read of a damaged outbox, and where the damaged file is kept."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.events import Event

SUFFIXES = ("", "-wal", "-shm")
_KEYS = {"events": "seq", "open_segments": "rowid", "progress": "stream", "finished": "stream"}
_JSON = {"progress": ("ledger", "previous")}


def set_aside(path: Path) -> Path:
    """Rename a damaged file and what belongs to it; nothing of it is ever deleted. Its new name."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


def copy_readable(old: sqlite3.Connection, fresh: sqlite3.Connection) -> int:
    """Copy every row that can be read, from both ends up to the damage. Returns how many.

    What is no event any more stays behind.

    :raises sqlite3.Error: ``fresh`` could not be written; nothing was copied."""
    copied = 0
    fresh.execute("BEGIN IMMEDIATE")
    try:
        for table in _KEYS:
            for direction in ("ASC", "DESC"):
                for row in _readable(old, table, direction):
                    marks = ", ".join("?" * len(row))
                    with contextlib.suppress(sqlite3.IntegrityError):  # a number that is none any more
                        done = fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
                        copied += done.rowcount
        fresh.execute("COMMIT")
    finally:
        if fresh.in_transaction:
            fresh.execute("ROLLBACK")
    return copied


def _readable(db: sqlite3.Connection, table: str, direction: str) -> Iterator[tuple[object, ...]]:
    """The good rows from one end on; the damage ends the walk."""
    with contextlib.suppress(sqlite3.DatabaseError):
        cursor = db.execute(f"SELECT * FROM {table} ORDER BY {_KEYS[table]} {direction}")
        names = [column[0] for column in cursor.description]
        while (row := cursor.fetchone()) is not None:
            if _good(table, dict(zip(names, row, strict=True))):
                yield row


def _good(table: str, row: dict[str, object]) -> bool:
    try:
        if "body" in row:
            event = Event.from_json(str(row["body"]))
            return row.get("id", event.id) == event.id
        for column in _JSON.get(table, ()):
            json.loads(str(row[column]))
    except ValueError:
        return False
    return True
