"""What can go wrong with the outbox file, in words that say what to do."""

import errno
import sqlite3

from pipeline.errors import FramewardenError

GOES_ON = "; it goes on by itself"
AGAIN = ", then start again (the systemd unit does so by itself)"
"""What becomes of it once the cure is done: while a run lasts, and when the error has ended it."""

_CURES = {
    sqlite3.SQLITE_FULL: ("disk_full", "free some space there"),
    sqlite3.SQLITE_IOERR: ("disk_error", "is the disk full or failing? free some space there or mend it"),
    sqlite3.SQLITE_READONLY: ("read_only", "make its files and folder writable"),
    sqlite3.SQLITE_CANTOPEN: ("read_only", "make the folder writable, or free some space there"),
    sqlite3.SQLITE_PERM: ("read_only", "make its files and folder writable"),
    sqlite3.SQLITE_BUSY: ("busy", "another program holds it; end that one"),
}
_LASTING = {
    sqlite3.SQLITE_CORRUPT: (
        "damaged",
        "move it aside (sqlite3 FILE .recover reads what is left) and start again",
    ),
    sqlite3.SQLITE_NOTADB: ("damaged", "it is no outbox: move it aside, or name another state_dir"),
}
"""What waiting does not mend."""
_SAME = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_CANTOPEN,
    errno.EPERM: sqlite3.SQLITE_CANTOPEN,
}
"""What SQLite would call an error of the operating system."""


class OutboxError(FramewardenError):
    """The outbox file could not be read or written; nothing of this call was accepted.

    ``reason`` is a short, stable word; ``passes``: with the cure done the same call goes well."""

    def __init__(self, message: str, reason: str = "failed", *, passes: bool = False) -> None:
        super().__init__(message + GOES_ON if passes else message)
        self.reason = reason
        self.passes = passes
        self._message = message

    def at_the_end(self) -> "OutboxError":
        """What passes, for a run that it ends: nothing goes on by itself then."""
        return OutboxError(self._message + AGAIN, self.reason)


def meaning(error: sqlite3.Error | OSError) -> tuple[int, str, str, bool]:
    """SQLite's primary code (0: none), our reason, the cure, and whether it passes with that."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # not SQLite: the folder
        code = _SAME.get(getattr(error, "errno", 0) or 0, 0)
    code &= 0xFF
    if code in _CURES:
        return (code, *_CURES[code], True)
    return (code, *_LASTING.get(code, ("failed", "see the disk")), False)
