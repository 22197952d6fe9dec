"""What supervisor and worker say to each other, beside heartbeats and events."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backends.registry import Device
from pipeline.config import Config, Stream
from pipeline.flow.segment import EndReason
from pipeline.flow.source import Kind
from pipeline.service.marks import Board
from pipeline.service.messages import Item


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What a worker is told at its start. ``cores`` it may fill, ``slots`` frames a model may wait in, of
    which files leave ``live_slots`` to live streams. ``board`` is where it marks its decode calls, ``crash``
    the file that says, if it crashes, in which thread. ``gpu`` is the only one that it sees, "" for all.
    ``once``: a recording whose server is away is not waited for."""

    number: int
    config: Config
    models: tuple[str, ...]
    device: Device
    cores: int
    slots: int
    live_slots: int
    outbox: Path
    board: Board
    crash: Path
    gpu: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True)
class Add:
    """Take a stream. ``number`` is unique in the run; ``ledger`` goes on where a worker stopped that died at
    ``worker_lost_s`` (monotonic seconds), or that handed it over; ``segments`` were published before.
    Files in ``left_out`` have failed."""

    number: int
    stream: Stream
    kind: Kind
    start_clock_s: float
    open_at_s: float
    ledger: dict[str, Any] | None = None
    worker_lost_s: float | None = None
    segments: int = 0
    left_out: frozenset[Item] = frozenset()


@dataclass(frozen=True, slots=True)
class Remove:
    """Give a stream up; what is open of it closes with ``reason``.

    With ``policy_change`` it goes on elsewhere: a live one is not reported as ended, its ledger comes
    back."""

    number: int
    reason: EndReason = "shutdown"


@dataclass(frozen=True, slots=True)
class Settings:
    """From the next ``Add`` on this config holds."""

    config: Config


@dataclass(frozen=True, slots=True)
class Reads:
    """``thread`` (as a crash report names it) is about to open stream ``number``, or this file of it."""

    number: int
    thread: int
    item: Item


@dataclass(frozen=True, slots=True)
class Done:
    """A stream has ended; ``failed`` says why it did before its end. ``ledger``: it is to go on with this."""

    number: int
    failed: str | None
    segments: int
    status: dict[str, Any]
    ledger: dict[str, Any] | None = None
