"""The SQLite file under the outbox: connections, versions, and what happens when the file goes away.

One connection a thread. A file that is deleted or replaced while it is open lives on, unseen, as long as
somebody holds it; so every use first looks whether the file at the path is still the one that is open. If
not, a new one is made and everything that the old one holds is carried over, under the old one's write lock:
whichever thread or process notices first does it, the others find nothing left to carry. A file that proves
to be damaged is set aside under another name and then carried over as far as it can be read.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import FramewardenError
from pipeline.outbox_salvage import SUFFIXES, copy_readable, set_aside
from pipeline.outbox_sql import MIGRATIONS, TABLES

_BUSY_S = 30.0
_CURES = {
    sqlite3.SQLITE_FULL: ("disk_full", "free some space there; it goes on by itself"),
    sqlite3.SQLITE_IOERR: ("disk_error", "is the disk full or failing? it goes on by itself once it is not"),
    sqlite3.SQLITE_READONLY: ("read_only", "make its files and folder writable; it goes on by itself"),
    sqlite3.SQLITE_CANTOPEN: ("read_only", "make the folder writable; it goes on by itself"),
    sqlite3.SQLITE_PERM: ("read_only", "make its files and folder writable; it goes on by itself"),
    sqlite3.SQLITE_BUSY: ("busy", "another program holds it; it is tried again"),
    sqlite3.SQLITE_CORRUPT: (
        "damaged",
        "move it aside (sqlite3 FILE .recover reads what is left) and start again",
    ),
    sqlite3.SQLITE_NOTADB: ("damaged", "it is no outbox: move it aside, or name another state_dir"),
}


_SAME = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_CANTOPEN,
    errno.EPERM: sqlite3.SQLITE_CANTOPEN,
}
"""What SQLite would call an error of the operating system."""


class OutboxError(FramewardenError):
    """The outbox file could not be read or written; nothing of this call was accepted.

    ``reason`` is a short, stable word."""

    def __init__(self, message: str, reason: str = "failed") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Held:
    """An open connection and the file that it has open."""

    db: sqlite3.Connection
    inode: tuple[int, int]


class OutboxFile:
    """Opens ``path`` for any number of threads and processes.

    :raises OutboxError: it cannot be opened, is no outbox, or was written by a newer framewarden."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self.mapped():
            self._make()

    def db(self) -> sqlite3.Connection:
        """This thread's connection to the file that lies at the path now."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.inode != _inode(self.path):
            self._carry_over(held)
            held = None
        return (held or self._hold()).db

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
            code = getattr(exc, "sqlite_errorcode", None)
            if code is None:  # not SQLite: the folder
                code = _SAME.get(getattr(exc, "errno", 0) or 0, 0)
            reason, cure = _CURES.get(code & 0xFF, ("failed", "see the disk"))
            if code & 0xFF == sqlite3.SQLITE_CORRUPT and (aside := self._set_aside()) is not None:
                cure = f"it is kept as {aside.name}, and what can be read of it goes into a new one"
            elif isinstance(exc, sqlite3.Error) and reason not in ("busy", "failed"):
                self._let_go()
            raise OutboxError(f"{self.path}: outbox cannot be used: {exc}: {cure}", reason) from exc

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
            self._local = threading.local()

    def _begun(self) -> sqlite3.Connection:
        """A connection with its write transaction begun, on the file that lies at the path."""
        while True:
            db = self.db()
            db.execute("BEGIN IMMEDIATE")
            # Looked at again under the lock that carrying over takes: what is written now is carried.
            if self._local.held.inode == _inode(self.path):
                return db
            db.execute("ROLLBACK")

    def _hold(self) -> _Held:
        while True:
            self._make()  # also waits for whoever makes it just now
            before = _inode(self.path)
            db = self._connect()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if before is not None and before == _inode(self.path) and version == len(MIGRATIONS):
                held = _Held(db, before)
                self._local.held = held
                return held
            self._discard(db)  # it was deleted between two lines

    def _connect(self) -> sqlite3.Connection:
        # Autocommit: transactions are ours. check_same_thread is off so that close() may close them.
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        with self._lock:
            self._all.append(db)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "journal_size_limit=16777216"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def _make(self) -> None:
        """Create the file where it is missing, and bring it to this version."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path.parent):
            if not self.path.exists():
                for suffix in SUFFIXES[1:]:  # of a file that is gone: they must not meet a new one
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            db = self._connect()
            try:
                self._migrate(db)
            finally:
                self._discard(db)

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

    def _carry_over(self, old: _Held) -> None:
        """Move what a file holds that was deleted or replaced under us into the one at the path."""
        self._make()
        try:
            self._carry_all(old.db)
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            fresh = self._connect()
            try:
                copy_readable(old.db, fresh)
            finally:
                self._discard(fresh)
        self._local.held = None
        self._discard(old.db)

    def _carry_all(self, db: sqlite3.Connection) -> None:
        db.execute("ATTACH ? AS fresh", (str(self.path),))
        try:
            db.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                db.execute(f"INSERT OR IGNORE INTO fresh.{table} SELECT * FROM main.{table}")
                db.execute(f"DELETE FROM main.{table}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.execute("DETACH fresh")

    def _set_aside(self) -> Path | None:
        """Give a damaged file another name, so that a new one is made and filled by the next use. None when
        it is not the file that this thread has open: somebody has done so already."""
        held: _Held | None = getattr(self._local, "held", None)
        with _alone(self.path.parent):
            if held is None or held.inode != _inode(self.path):
                return None
            return set_aside(self.path)

    def release(self) -> None:
        """Close this thread's connection, if it has one."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None:
            self._local.held = None
            self._discard(held.db)

    def _let_go(self) -> None:
        """After an error open anew: a connection that was opened read-only would stay so for ever."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.inode == _inode(self.path):
            self._local.held = None
            self._discard(held.db)

    def _discard(self, db: sqlite3.Connection) -> None:
        with self._lock:
            if db in self._all:
                self._all.remove(db)
        db.close()


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
