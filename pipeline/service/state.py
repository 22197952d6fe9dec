"""What outlives a process: the state folder's owner, and what a killed worker left open."""

import contextlib
import errno
import fcntl
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import events
from pipeline.config import Config, Stream
from pipeline.errors import ConfigError, DiskError
from pipeline.events import Event
from pipeline.flow.source import Kind
from pipeline.masking import mask_text
from pipeline.outbox import Outbox
from pipeline.outbox_errors import AGAIN, OutboxError
from pipeline.service.report import context_of

OnEvent = Callable[[Event], None]

_DISK = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise its quota",
    errno.EROFS: "remount it writable, or name another folder",
    errno.EIO: "see the system's log and mend the disk",
}
"""What is wrong with a disk, not with the config, and what to do."""


def close_left_open(outbox: Outbox, stream: str | None, on_event: OnEvent) -> None:
    """Close what a killed worker left open of a stream (None: of all), at the last sample that it scored."""
    now = time.time()
    closed = [
        events.closed_by_successor(last, last_scored_s=outbox.last_scored(last) or 0.0, now=now)
        for last in outbox.open_segments(stream)
    ]
    if closed:
        outbox.accept(closed, now=now, urgent=True)
        for event in closed:
            on_event(event)


def failed_event(config: Config, stream: Stream, kind: Kind, reason: str) -> Event:
    """An input could not be screened at all."""
    return events.stream_event(
        context_of(stream, kind, config), state="failed", now=time.time(), reason=mask_text(reason)
    )


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Own ``state_dir``. An error of the outbox that ends the block says so.

    :raises ConfigError: another run owns it, or it may not be written.
    :raises DiskError: its disk cannot be written now."""
    with contextlib.ExitStack() as stack:
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            _own(state_dir, stack.enter_context(open(state_dir / "lock", "r+b", buffering=0, opener=_made)))
        except OSError as exc:
            why = f"state_dir: {state_dir}: cannot be written: {exc.strerror}"
            if exc.errno in _DISK:
                raise DiskError(f"{why}: {_DISK[exc.errno]}{AGAIN}") from exc
            raise ConfigError(f"{why}; name another folder") from exc
        try:
            yield
        except OutboxError as exc:
            if not exc.passes:
                raise
            raise exc.at_the_end() from exc


def _made(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _own(state_dir: Path, lock: io.RawIOBase) -> None:
    """Take the lock and say who has it.

    In place: a lock that is there has its room, on a full disk, too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        owner = (lock.readline() or b"").decode(errors="replace").strip() or "unknown"
        raise ConfigError(
            f"state_dir: {state_dir}: a framewarden with process id {owner} runs on it; "
            "stop that one, or name another folder"
        ) from exc
    os.ftruncate(lock.fileno(), os.pwrite(lock.fileno(), b"%d\n" % os.getpid(), 0))
