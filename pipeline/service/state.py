"""What outlives a process: the state folder's owner, and what a killed worker left open."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import events
from pipeline.config import Config, Stream
from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.flow.source import Kind
from pipeline.masking import mask_text
from pipeline.outbox import Outbox
from pipeline.service.report import context_of

OnEvent = Callable[[Event], None]


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
    """Own ``state_dir``. :raises ConfigError: another run owns it, or it cannot be written."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = open(state_dir / "lock", "a+")  # noqa: SIM115 - closed below
    except OSError as exc:
        raise ConfigError(
            f"state_dir: {state_dir}: cannot be written: {exc.strerror}; name another folder"
        ) from exc
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise ConfigError(
                f"state_dir: {state_dir}: a framewarden with process id {owner} runs on it; "
                "stop that one, or name another folder"
            ) from exc
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
