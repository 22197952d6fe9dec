"""What the outbox file holds, and the statements that change it; ``outbox.py`` is the face."""

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from pipeline.events import Event, utf8

_MAX_INT = 2**63 - 1
LAST_ID = f"{2**64 - 1}-{2**64 - 1}"
"""No entry of a Redis stream lies beyond."""
_ROW_BYTES = 512  # what a row costs on disk beside its body: columns, three indices, page slack

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, topic TEXT NOT NULL,
            segment_id TEXT, rev INTEGER, state TEXT, body TEXT NOT NULL, bytes INTEGER NOT NULL,
            accepted REAL NOT NULL, redis_ms INTEGER, redis_n INTEGER, delivered REAL)""",
        "CREATE INDEX pending ON events (seq) WHERE redis_ms IS NULL",
        "CREATE INDEX held ON events (topic, redis_ms, redis_n) WHERE redis_ms IS NOT NULL",
        "CREATE INDEX revisions ON events (segment_id, rev) WHERE segment_id IS NOT NULL",
        "CREATE TABLE open_segments (segment_id TEXT PRIMARY KEY, stream TEXT, rev INTEGER, body TEXT)",
        """CREATE TABLE progress (
            stream TEXT, item TEXT, size INTEGER, mtime REAL, session TEXT, last_scored_s REAL, ledger TEXT,
            segments INTEGER, PRIMARY KEY (stream, item)) WITHOUT ROWID""",
        """CREATE TABLE finished (
            stream TEXT, path TEXT, size INTEGER, mtime REAL, PRIMARY KEY (stream, path)) WITHOUT ROWID""",
        "CREATE TABLE totals (pending INTEGER, held INTEGER, delivered INTEGER, bytes INTEGER)",
        "INSERT INTO totals VALUES (0, 0, 0, 0)",
        """CREATE TRIGGER added AFTER INSERT ON events BEGIN
            UPDATE totals SET pending = pending + 1, bytes = bytes + NEW.bytes; END""",
        """CREATE TRIGGER removed AFTER DELETE ON events BEGIN
            UPDATE totals SET pending = pending - (OLD.redis_ms IS NULL),
                held = held - (OLD.redis_ms IS NOT NULL), bytes = bytes - OLD.bytes; END""",
        """CREATE TRIGGER moved AFTER UPDATE OF redis_ms ON events BEGIN
            UPDATE totals SET
                pending = pending - (OLD.redis_ms IS NULL) + (NEW.redis_ms IS NULL),
                held = held - (OLD.redis_ms IS NOT NULL) + (NEW.redis_ms IS NOT NULL),
                delivered = delivered + (OLD.redis_ms IS NULL AND NEW.redis_ms IS NOT NULL); END""",
    ),
    (  # 2: a file that replaces a deleted one must not number its rows like it: numbers begin at the clock
        "INSERT INTO sqlite_sequence SELECT 'events', 0"
        " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events')",
        "UPDATE sqlite_sequence SET seq = max(seq,"
        " CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000) WHERE name = 'events'",
        "DROP TRIGGER added",
        """CREATE TRIGGER added AFTER INSERT ON events BEGIN
            UPDATE totals SET pending = pending + (NEW.redis_ms IS NULL),
                held = held + (NEW.redis_ms IS NOT NULL), bytes = bytes + NEW.bytes; END""",
    ),
    ("ALTER TABLE progress ADD COLUMN previous TEXT NOT NULL DEFAULT '{}'",),
)
"""One entry per version of the file, in order; ``PRAGMA user_version`` says how many were applied."""

TABLES = ("events", "open_segments", "progress", "finished")
"""What is carried over from one file into another; ``totals`` follows by itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """An accepted event. ``redis_id`` is None until it was delivered; ``accepted`` is Unix seconds."""

    seq: int
    event: Event
    accepted: float
    redis_id: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an item of a stream was screened; ``item`` is a file's path, or empty for a live stream.

    ``last_scored_s`` is media time in ``session``; ``ledger`` is the coverage ledger's snapshot. ``previous``
    is the id and the end in media seconds of the last closed segment of each category in the session; it is
    read only, for it follows from the events."""

    stream: str
    item: str
    size: int
    mtime: float
    session: str
    last_scored_s: float | None
    ledger: dict[str, Any] = field(default_factory=dict)
    segments: int = 0
    previous: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that was screened to its end and is not to be screened again."""

    stream: str
    path: str
    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Undelivered events, delivered ones still held, deliveries ever made, and bytes held in all."""

    pending: int
    held: int
    delivered: int
    bytes: int


def split_id(redis_id: str) -> tuple[int, int]:
    """``1700000000000-3`` → (1700000000000, 3), which compares as Redis does."""
    ms, _, n = redis_id.partition("-")
    return int(ms), int(n or 0)


def sql_id(redis_id: str) -> tuple[int, int]:
    """The same for SQLite, whose integers end at half of Redis's range; no real entry lies beyond."""
    ms, n = split_id(redis_id)
    return min(ms, _MAX_INT), min(n, _MAX_INT)


def insert(db: sqlite3.Connection, event: Event, now: float) -> None:
    size = len(event.body.encode()) + _ROW_BYTES
    values = (event.id, event.topic, event.segment_id, event.rev, event.state, event.body, size, now)
    db.execute(
        "INSERT INTO events (id, topic, segment_id, rev, state, body, bytes, accepted)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        values,
    )
    if event.segment_id is None:
        return
    if event.state == "closed":
        db.execute("DELETE FROM open_segments WHERE segment_id = ?", (event.segment_id,))
        data = json.loads(event.body)["data"]
        closed = json.dumps({event.category: [event.segment_id, data["media"]["end_s"]]})
        db.execute(
            "UPDATE progress SET previous = json_patch(previous, ?) WHERE session = ?",
            (closed, data["stream"]["session"]),
        )
    else:
        db.execute(
            "INSERT INTO open_segments VALUES (?, ?, ?, ?) ON CONFLICT (segment_id) DO UPDATE"
            " SET rev = excluded.rev, body = excluded.body WHERE excluded.rev > rev",
            (event.segment_id, event.stream, event.rev, event.body),
        )


def set_progress(db: sqlite3.Connection, step: Progress) -> None:
    key = (utf8(step.stream), utf8(step.item))
    rest = (step.size, step.mtime, step.session, step.last_scored_s, json.dumps(step.ledger), step.segments)
    db.execute(
        "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{}') ON CONFLICT DO UPDATE SET"
        " previous = CASE WHEN session = excluded.session THEN previous ELSE '{}' END, size = excluded.size,"
        " mtime = excluded.mtime, session = excluded.session, last_scored_s = excluded.last_scored_s,"
        " ledger = excluded.ledger, segments = excluded.segments",
        (*key, *rest),
    )


def set_finished(db: sqlite3.Connection, done: Finished) -> None:
    key = (utf8(done.stream), utf8(done.path))
    db.execute("INSERT OR REPLACE INTO finished VALUES (?, ?, ?, ?)", (*key, done.size, done.mtime))
    db.execute("DELETE FROM progress WHERE stream = ? AND item = ?", key)


def drop_delivered(db: sqlite3.Connection, over: int) -> None:
    """Delete the oldest delivered rows until ``over`` bytes are free, or none is left."""
    freed, last = 0, None
    for seq, size in db.execute("SELECT seq, bytes FROM events WHERE redis_ms IS NOT NULL ORDER BY seq"):
        freed, last = freed + size, seq
        if freed >= over:
            break
    db.execute("DELETE FROM events WHERE redis_ms IS NOT NULL AND seq <= ?", (last,))


def fold_updates(db: sqlite3.Connection) -> None:
    """Delete undelivered ``update`` revisions that a later revision says all of."""
    db.execute(
        "DELETE FROM events WHERE redis_ms IS NULL AND state = 'update' AND EXISTS (SELECT 1"
        " FROM events AS later WHERE later.segment_id = events.segment_id AND later.rev > events.rev)"
    )
