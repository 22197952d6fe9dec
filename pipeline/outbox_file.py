"""The SQLite file under the outbox: connections, versions, and what happens when the file goes away.

One connection a thread. A file that is deleted or replaced while it is open lives on, unseen, as long as
somebody holds it; so every use first looks whether the file at the path, and its log, are still those that
are open. If not, a new one is made and everything that the old one holds is carried over, under the old one's
write lock: whichever thread or process notices first does it, the others find nothing left to carry. A file
that proves to be damaged is set aside under another name and then carried over as far as it can be read.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.outbox_errors import OutboxError, meaning
from pipeline.outbox_salvage import SUFFIXES, copy_readable, set_aside
from pipeline.outbox_sql import MIGRATIONS, TABLES

_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class _Held:
    """An open connection, and which file and log it has open."""

    db: sqlite3.Connection
    files: "_Files"


class OutboxFile:
    """Opens ``path`` for any number of threads and processes.

    :raises OutboxError: it cannot be opened, is no outbox, or was written by a newer framewarden."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._all: list[_Held] = []
        self._lock = threading.Lock()
        with self.mapped(), _alone(self._folder()):
            self._made().close()

    def db(self) -> sqlite3.Connection:
        """This thread's connection to the file that lies at the path now."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.files != _files(self.path):
            held = self._carry_over(held)
        elif held is None:
            held = self._hold()
        self._local.held = held
        return held.db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on disk when the block ends, undone when it raises."""
        with self.mapped():
            db = self._begun()
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextlib.contextmanager
    def mapped(self) -> Iterator[None]:
        """Turn SQLite's errors into ``OutboxError``."""
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            code, reason, cure, passes = meaning(exc)
            if code == sqlite3.SQLITE_CORRUPT and (aside := self._set_aside()) is not None:
                cure = f"it is kept as {aside.name}, and what can be read of it goes into a new one"
            elif isinstance(exc, sqlite3.Error) and reason not in ("busy", "failed"):
                self._let_go()
            text = f"{self.path}: outbox cannot be used: {exc}: {cure}"
            raise OutboxError(text, reason, passes=passes) from exc

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            every, self._all = self._all, []
            self._local = threading.local()
        errors = [error for held in every if (error := self._part_with(held)) is not None]
        if errors:
            raise errors[0]

    def _begun(self) -> sqlite3.Connection:
        """A connection with its write transaction begun, on the file that lies at the path."""
        while True:
            db = self.db()
            db.execute("BEGIN IMMEDIATE")
            # Looked at again under the lock that carrying over takes: what is written now is carried.
            if self._local.held.files == _files(self.path):
                return db
            db.execute("ROLLBACK")

    def _hold(self) -> _Held:
        """Open the file at the path, made where it is missing and brought to this version."""
        with _alone(self._folder()):
            while True:
                before = _inode(self.path)
                db = self._made()
                files = _files(self.path)
                if files[0] is not None and before in (None, files[0]):
                    held = _Held(db, files)
                    with self._lock:
                        self._all.append(held)
                    return held
                db.close()  # it was deleted between two lines

    def _folder(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.parent

    def _made(self) -> sqlite3.Connection:
        """A connection to a file of this version. By one process at a time."""
        if not self.path.exists():
            for suffix in SUFFIXES[1:]:  # of a file that is gone: they must not meet a new one
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        # Autocommit: transactions are ours. check_same_thread is off so that close() may close them.
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "journal_size_limit=16777216"):
                db.execute(f"PRAGMA {pragma}")
            self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise OutboxError(
                f"{self.path}: outbox version {version} is of a newer framewarden than this one, "
                f"which knows up to {len(MIGRATIONS)}: upgrade, or name another state_dir"
            )
        if version == len(MIGRATIONS):
            return  # without a write: a full disk is no reason not to open it
        db.execute("BEGIN IMMEDIATE")
        try:
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _carry_over(self, old: _Held) -> _Held:
        """Move what a file holds that was deleted or replaced under us into the one at the path."""
        if old.files[0] == _inode(self.path):  # only its log is gone: nobody can go on with such a file
            with _alone(self._folder()):
                if old.files[0] == _inode(self.path):
                    set_aside(self.path)
        gone = [old]
        while True:
            fresh = self._hold()
            try:
                done = all(self._carry_all(held.db, fresh) for held in gone)
            except BaseException:
                for held in (*gone[1:], fresh):
                    self._discard(held)
                raise
            if done:
                break
            gone.append(fresh)  # deleted again meanwhile, with what others may have brought into it
        for held in gone:
            self._discard(held)
        return fresh

    def _carry_all(self, old: sqlite3.Connection, fresh: _Held) -> bool:
        """Whether it was carried; False when ``fresh`` is not the file at the path any more."""
        try:
            self._move(old, fresh.db)
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            copy_readable(old, fresh.db)
        return _files(self.path) == fresh.files

    def _move(self, old: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
        """Durable in the new file before it leaves the old one."""
        try:
            old.execute("BEGIN IMMEDIATE")
            fresh.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                rows = old.execute(f"SELECT * FROM {table}")
                marks = ", ".join("?" * len(rows.description))
                fresh.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
            fresh.execute("COMMIT")
            for table in TABLES:
                old.execute(f"DELETE FROM {table}")
            old.execute("COMMIT")
        finally:
            for db in (fresh, old):
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _set_aside(self) -> Path | None:
        """Give a damaged file another name, so that a new one is made and filled by the next use. None when
        it is not the file that this thread has open: somebody has done so already."""
        held: _Held | None = getattr(self._local, "held", None)
        with _alone(self.path.parent):
            if held is None or held.files[0] != _inode(self.path):
                return None
            return set_aside(self.path)

    def release(self) -> None:
        """Close this thread's connection, if it has one."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None:
            self._local.held = None
            if (error := self._part_with(held)) is not None:
                raise error

    def _part_with(self, held: _Held) -> OutboxError | None:
        """Close a connection. What it may hold alone is carried over first; returns why it could not be."""
        try:
            if held.files != _files(self.path):
                with self.mapped():
                    held = self._carry_over(held)
        except OutboxError as exc:
            return exc
        finally:
            self._discard(held)
        return None

    def _let_go(self) -> None:
        """After an error open anew: a connection that was opened read-only would stay so for ever."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.files == _files(self.path):
            self._local.held = None
            self._discard(held)

    def _discard(self, held: _Held) -> None:
        with self._lock:
            if held in self._all:
                self._all.remove(held)
        held.db.close()


_Files = tuple[tuple[int, int] | None, tuple[int, int] | None]
"""A database and its write-ahead log. Both stay the same for as long as somebody has them open."""


def _files(path: Path) -> _Files:
    return _inode(path), _inode(Path(f"{path}-wal"))


def _inode(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes the file in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
