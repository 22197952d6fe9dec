"""The durable hand-over between screening and Redis: one SQLite file per ``state_dir``, for all its workers.

What ``accept`` returned from is on disk (WAL, ``synchronous=FULL``) and survives kill -9 of any process. Rows
leave only when every consumer group has acknowledged them, or, once delivered, by age (``keep_s``) or for
room (``max_bytes``). Undelivered ones never age out: when room is short, delivered rows go first, then
``update`` revisions that a later revision of their segment supersedes; when that is not enough, ``accept``
refuses with ``OutboxFullError`` and changes nothing. No number (``seq``) and no event id is ever used twice.

Safe for many processes and threads: one connection a thread, writers wait for each other up to 30 s. Rows are
numbered in the order in which they were committed, so a reader that goes on from a number misses none.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline import outbox_sql
from pipeline.events import Event, utf8
from pipeline.outbox_errors import OutboxError
from pipeline.outbox_file import OutboxFile
from pipeline.outbox_sql import LAST_ID, Counts, Finished, Progress, Row, split_id, sql_id

__all__ = ["Counts", "Finished", "Outbox", "OutboxError", "OutboxFullError", "Progress", "Row", "split_id"]


class OutboxFullError(OutboxError):
    """``outbox.max_bytes`` is reached by undelivered events; nothing of this call was accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "full")


class Outbox:
    """The outbox file of one ``state_dir``.

    :raises OutboxError: the file cannot be opened, is no outbox, or was written by a newer framewarden."""

    def __init__(self, path: Path, *, max_bytes: int = 1_000_000_000, keep_s: float = 86_400.0) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.keep_s = keep_s
        self._file = OutboxFile(path)

    def accept(
        self,
        events: Iterable[Event],
        *,
        now: float,
        progress: Iterable[Progress] = (),
        finished: Iterable[Finished] = (),
        urgent: bool = False,
    ) -> None:
        """Store all of this in one transaction: on disk when it returns, untouched when it raises.

        ``now`` is Unix seconds. An id that was accepted before is kept as it was first. ``urgent`` may
        go beyond ``max_bytes``: it is for closing what a dead worker left open, once a segment.

        :raises OutboxFullError: there is no room, although everything that may go has gone."""
        with self._file.writing() as db:
            (waiting,) = db.execute("SELECT pending FROM totals").fetchone()
            for step in progress:
                outbox_sql.set_progress(db, step)
            for event in events:
                outbox_sql.insert(db, event, now)
            for done in finished:
                outbox_sql.set_finished(db, done)
            # A call that is larger than the whole bound finds its room once nothing else waits.
            self._make_room(db, must_fit=waiting > 0 and not urgent)

    def pending(self, limit: int = 500) -> list[Row]:
        """Undelivered events, oldest first."""
        return self._rows("redis_ms IS NULL ORDER BY seq LIMIT ?", limit)

    def held(self, topic: str, limit: int, after: str = "0-0", until: str = LAST_ID) -> list[Row]:
        """Delivered events of a topic that are still held, by Redis id, beyond ``after``, up to and with
        ``until``."""
        where = "topic = ? AND redis_ms IS NOT NULL AND (redis_ms, redis_n) > (?, ?)"
        where += " AND (redis_ms, redis_n) <= (?, ?) ORDER BY redis_ms, redis_n LIMIT ?"
        return self._rows(where, topic, *sql_id(after), *sql_id(until), limit)

    def held_ends(self, topic: str) -> tuple[int, list[Row]]:
        """How many delivered events of a topic are held, and the first and the last of them by Redis id."""
        where = "topic = ? AND redis_ms IS NOT NULL"
        with self._file.mapped():
            (count,) = (
                self._file.db().execute(f"SELECT count(*) FROM events WHERE {where}", (topic,)).fetchone()
            )
        first = self._rows(f"{where} ORDER BY redis_ms, redis_n LIMIT 1", topic)
        last = self._rows(f"{where} ORDER BY redis_ms DESC, redis_n DESC LIMIT 1", topic)
        return count, first + last

    def delivered(self, ids: Sequence[tuple[int, str]], *, now: float) -> None:
        """Redis answered: (seq, Redis id) of each."""
        with self._file.writing() as db:
            db.executemany(
                "UPDATE events SET redis_ms = ?, redis_n = ?, delivered = ? WHERE seq = ?",
                [(*sql_id(redis_id), now, seq) for seq, redis_id in ids],
            )

    def undelivered(self, seqs: Iterable[int]) -> None:
        """Redis has lost these: they are pending again, in their old order."""
        with self._file.writing() as db:
            db.executemany(
                "UPDATE events SET redis_ms = NULL, redis_n = NULL, delivered = NULL WHERE seq = ?",
                [(seq,) for seq in seqs],
            )

    def remove(self, seqs: Iterable[int]) -> None:
        """Forget these: every group has acknowledged them."""
        with self._file.writing() as db:
            db.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in seqs])

    def prune(self, now: float) -> int:
        """Forget what was delivered more than ``keep_s`` ago. Returns how many."""
        with self._file.writing() as db:
            return db.execute("DELETE FROM events WHERE delivered < ?", (now - self.keep_s,)).rowcount

    def counts(self) -> Counts:
        """What is in the file now."""
        with self._file.mapped():
            row = self._file.db().execute("SELECT pending, held, delivered, bytes FROM totals").fetchone()
        return Counts(*row)

    def open_segments(self, stream: str | None = None) -> list[Event]:
        """The latest revision of every segment that was never closed, of one stream or of all."""
        where, args = ("", ()) if stream is None else (" WHERE stream = ?", (utf8(stream),))
        with self._file.mapped():
            found = self._file.db().execute(
                f"SELECT body FROM open_segments{where} ORDER BY segment_id", args
            )
            return [Event.from_json(body) for (body,) in found.fetchall()]

    def progress(self, stream: str, item: str = "") -> Progress | None:
        """How far an item got, or None."""
        with self._file.mapped():
            found = self._file.db().execute(
                "SELECT size, mtime, session, last_scored_s, ledger, segments, previous FROM progress"
                " WHERE stream = ? AND item = ?",
                (utf8(stream), utf8(item)),
            )
            row = found.fetchone()
        if row is None:
            return None
        size, mtime, session, scored_s, ledger, segments, closed = row
        previous = {category: (name, end_s) for category, (name, end_s) in json.loads(closed).items()}
        return Progress(stream, item, size, mtime, session, scored_s, json.loads(ledger), segments, previous)

    def last_scored(self, event: Event) -> float | None:
        """Stream time in seconds of the last sample scored in an event's session; None if not known."""
        session = json.loads(event.body)["data"]["stream"]["session"]
        with self._file.mapped():
            found = self._file.db().execute(
                "SELECT last_scored_s FROM progress WHERE session = ?", (session,)
            )
            row = found.fetchone()
        return None if row is None else row[0]

    def forget(self, stream: str, item: str = "") -> None:
        """Drop an item's progress."""
        with self._file.writing() as db:
            db.execute("DELETE FROM progress WHERE stream = ? AND item = ?", (utf8(stream), utf8(item)))

    def is_finished(self, stream: str, path: str, size: int, mtime: float) -> bool:
        """Whether this very file (same size and time of change) was screened to its end."""
        with self._file.mapped():
            found = self._file.db().execute(
                "SELECT 1 FROM finished WHERE stream = ? AND path = ? AND size = ? AND mtime = ?",
                (utf8(stream), utf8(path), size, mtime),
            )
            return found.fetchone() is not None

    def release(self) -> None:
        """Close this thread's connection: for a thread that ends before the outbox does."""
        self._file.release()

    def close(self) -> None:
        """Close every thread's connection."""
        self._file.close()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, where: str, *args: Any) -> list[Row]:
        columns = "seq, body, accepted, redis_ms, redis_n"
        with self._file.mapped():
            found = self._file.db().execute(f"SELECT {columns} FROM events WHERE {where}", args).fetchall()
        return [
            Row(seq, Event.from_json(body), accepted, None if ms is None else f"{ms}-{n}")
            for seq, body, accepted, ms, n in found
        ]

    def _make_room(self, db: sqlite3.Connection, *, must_fit: bool) -> None:
        if (over := self._over(db)) > 0:
            outbox_sql.drop_delivered(db, over)
        if self._over(db) > 0:
            outbox_sql.fold_updates(db)
        if (over := self._over(db)) > 0 and must_fit:
            raise OutboxFullError(
                f"{self.path}: outbox.max_bytes ({self.max_bytes}) is reached by events that Redis has not "
                f"taken; {over} bytes do not fit: bring Redis back or raise outbox.max_bytes"
            )

    def _over(self, db: sqlite3.Connection) -> int:
        (held,) = db.execute("SELECT bytes FROM totals").fetchone()
        return int(held) - self.max_bytes
