"""Streams to be screened and the workers that have them, as the supervisor sees them."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import Stream
from pipeline.flow.segment import EndReason
from pipeline.flow.source import Kind
from pipeline.service.health import Deaths
from pipeline.service.keeper import Keeper
from pipeline.service.messages import Item


@dataclass(slots=True)
class Job:
    """One stream to be screened, wherever it is now.

    ``start_clock_s``: when it was added, from which on its seconds count. ``open_at_s``: when its source may
    be opened, once a worker has it. ``told``: its worker has it. ``left_open``: a worker died
    with it, and what was open is not closed yet. ``leaving``: it is being taken from its worker, for this
    reason, and ``successor`` takes its place. ``ledger`` is what a worker handed over. ``deaths`` counts the
    workers that died while it was being decoded, ``file_deaths`` those of its files; ``keeper`` has it
    while it is quarantined, until ``retry_at``."""

    number: int
    stream: Stream
    kind: Kind
    start_clock_s: float = field(default_factory=time.monotonic)
    open_at_s: float | None = None
    suspect: bool = False
    done: bool = False
    failed: str | None = None
    worker_lost_s: float | None = None
    segments: int = 0
    status: dict[str, Any] = field(default_factory=dict)
    told: bool = False
    left_open: bool = False
    leaving: EndReason | None = None
    successor: Stream | None = None
    ledger: dict[str, Any] | None = None
    deaths: Deaths = field(default_factory=Deaths)
    file_deaths: Counter[Item] = field(default_factory=Counter)
    keeper: Keeper | None = None
    retry_at: float = 0.0

    @property
    def over(self) -> bool:
        """Whether a run that ends with its files need not wait for it."""
        return self.done or self.keeper is not None

    @property
    def why_failed(self) -> str | None:
        return self.keeper.reason if self.keeper is not None else self.failed


@dataclass(slots=True)
class Outcome:
    """How a run ended. ``failed`` holds (stream id, why) of inputs that could not be screened."""

    interrupted: bool
    flagged: int
    failed: list[tuple[str, str]]
    summary: dict[str, Any]
