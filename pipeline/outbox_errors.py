"""What can go wrong with the outbox file, in words that say what to do."""

import errno
import sqlite3

from pipeline.errors import FramewardenError

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


def meaning(error: sqlite3.Error | OSError) -> tuple[int, str, str]:
    """SQLite's primary code (0: none), our reason, and the cure."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # not SQLite: the folder
        code = _SAME.get(getattr(error, "errno", 0) or 0, 0)
    return (code & 0xFF, *_CURES.get(code & 0xFF, ("failed", "see the disk")))
