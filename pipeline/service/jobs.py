"""Streams to be screened and the workers that have them, as the supervisor sees them."""

import contextlib
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from pipeline.config import Stream
from pipeline.flow.source import Kind


@dataclass(slots=True)
class Job:
    """One stream to be screened, wherever it is now. ``start_clock_s``: when a worker first took it."""

    number: int
    stream: Stream
    kind: Kind
    start_clock_s: float | None = None
    suspect: bool = False
    done: bool = False
    failed: str | None = None
    worker_lost_s: float | None = None
    segments: int = 0
    status: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """How a run ended. ``failed`` holds (stream id, why) of inputs that could not be screened."""

    interrupted: bool
    flagged: int
    failed: list[tuple[str, str]]
    summary: dict[str, Any]


@dataclass(slots=True)
class Hand:
    """A worker as its supervisor sees it."""

    number: int
    process: BaseProcess | None = None
    pipe: Connection | None = None
    jobs: dict[int, Job] = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0
    restart_at: float = 0.0
    started: float = 0.0
    status: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None

    @property
    def running(self) -> bool:
        return self.process is not None

    def tell(self, order: Any) -> None:
        """Send an order; a worker that has just died is noticed elsewhere."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.pipe is not None:
                self.pipe.send(order)
