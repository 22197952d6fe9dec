"""A worker process as its supervisor sees it: started, told, heard, judged, buried."""

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.service import process
from pipeline.service.health import Deaths, Pulse
from pipeline.service.jobs import Job
from pipeline.service.marks import SPAWN, Board, board, clear, marked, marked_by
from pipeline.service.memory import bounded
from pipeline.service.messages import Item
from pipeline.service.orders import Done, Reads, WorkerPlan

CRASHED = re.compile(
    r"^Current thread (0x[0-9a-f]+) .*:\n(?:  File \"(.*)\", line (\d+) in (.*)\n)?", re.MULTILINE
)
"""In faulthandler's report."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended: its exit code (negative: a signal); the streams that were in decoding then, and
    since when; those that the crash was in, by decoding or else by reading them, or None when that is not
    known; and where."""

    exit_code: int | None
    marks: dict[int, float]
    crashed: set[int] | None
    where: str

    def blamed(self) -> set[int]:
        """The streams that may have ended it; nobody for an end without a signal."""
        if self.exit_code is None or self.exit_code >= 0:
            return set()
        return set(self.marks) if self.crashed is None else self.crashed


@dataclass(slots=True)
class Hand:
    """One worker. ``gpu`` is the UUID of its own, "" for none. ``config`` is what it was told last.
    ``served``: it was ready once. ``why`` says why it died, ``wedged`` that it was killed for standing still:
    both hold until it is ready again, which took it ``absent_s`` from its start or its death on. ``lent`` are
    the ids of its streams that others have until then. ``readers`` says who reads each stream."""

    number: int
    board: Board
    gpu: str = ""
    jobs: dict[int, Job] = field(default_factory=dict)
    lent: set[str] = field(default_factory=set)
    readers: dict[int, Reads] = field(default_factory=dict)
    process: BaseProcess | None = None
    pipe: Connection | None = None
    silent: bool = False
    pulse: Pulse = field(default_factory=Pulse)
    deaths: Deaths = field(default_factory=Deaths)
    restarts: int = 0
    restart_at: float = 0.0
    config: Config | None = None
    crash: Path = Path()
    served: bool = False
    wedged: bool = False
    why: str = ""
    away_since: float = 0.0
    absent_s: float = 0.0
    status: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None

    @classmethod
    def idle(cls, number: int, at_once: int, gpu: str = "") -> "Hand":
        """A worker that has not been started; ``at_once`` streams may decode in it at a time."""
        return cls(number, board(at_once), gpu)

    @property
    def ready(self) -> bool:
        """Whether it takes orders."""
        return self.process is not None and self.pulse.ready

    @property
    def failing(self) -> bool:
        """Whether it died and has not been ready since."""
        return self.restarts > 0 and self.away_since > 0

    @property
    def state(self) -> str:
        """For the status."""
        if self.wedged:
            return "wedged"
        if self.process is None:
            return "dead" if self.jobs else "idle"
        return "running" if self.pulse.ready else "starting"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    @property
    def died(self) -> bool:
        """Whether there is a process to bury."""
        return self.process is not None and not self.process.is_alive()

    def start(self, plan: WorkerPlan) -> None:
        """Start the process; its first words will be that it is ready, or that it refuses to start."""
        clear(self.board)
        self.readers.clear()
        self.crash = plan.crash
        self.config, self.status, self.refused = plan.config, {}, None
        ours, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(
            target=process.main, args=(plan, theirs), name=f"framewarden-worker-{self.number}", daemon=True
        )
        resource_tracker.ensure_running()  # it would unblock the signals below
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # inherited, until the worker ignores them
        try:
            with bounded():
                self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.pipe, self.silent = ours, False
        self.pulse = Pulse(started=time.monotonic())
        self.away_since = self.away_since or self.pulse.started

    def tell(self, order: Any) -> None:
        """Send an order; a worker that has just died is noticed elsewhere."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.pipe is not None:
                self.pipe.send(order)

    def messages(self) -> Iterator[Any]:
        """What it has said since the last call."""
        try:
            while self.pipe is not None and self.pipe.poll():
                message = self.pipe.recv()
                self._note(message)
                yield message
        except (EOFError, ConnectionResetError, OSError):
            self.silent = True  # its end is closed: waiting on it would return at once, for ever

    def _note(self, message: Any) -> None:
        now = self.pulse.heard = time.monotonic()
        match message:
            case ("ready", int()):
                self.pulse.ready, self.pulse.beat, self.served = True, now, True
                self.wedged, self.why, self.absent_s = False, "", now - self.away_since
                self.away_since = 0.0
            case ("refused", str(why)):
                self.refused = why
            case ("status", dict(said)):
                self.status = said
                self.pulse.beat, self.pulse.excused = said["beat"], said["busy"]
            case Reads(number=number):
                self.readers[number] = message
            case Done(number=number):
                self.readers.pop(number, None)

    def check(self, now: float) -> str | None:
        """Kill the process if it is wedged; why it was, else None."""
        if self.process is None or self.pulse.killed or not self.process.is_alive():
            return None
        why = self.pulse.wedged(now, marked(self.board))
        if why is not None:
            self.wedged, self.why, self.pulse.killed = True, why, True
            self.process.kill()
        return why

    def bury(self, now: float) -> Death:
        """The process has died: how, and a time for the next start."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None
        self.away_since = self.away_since or now
        self.deaths.add(now)
        self.restarts += 1
        self.restart_at = now + self.deaths.pause_s(now)
        if not self.wedged:
            self.why = self.refused or f"ended with {ending(code)}"
        thread, where = _report(self.crash)
        return Death(code, marked(self.board), self._worked_on(thread), where)

    def _worked_on(self, thread: int | None) -> set[int] | None:
        """The streams that a thread was decoding or reading; None for a thread that is not known."""
        if thread is None:
            return None
        reading = {reads.number for reads in self.readers.values() if reads.thread == thread}
        return marked_by(self.board, thread) | reading

    def file_of(self, number: int) -> Item | None:
        """The file that was opened last of a stream; None for what is no file."""
        reads = self.readers.get(number)
        return reads.item if reads is not None and reads.item.path else None

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()


def _report(path: Path) -> tuple[int | None, str]:
    """The thread that a crash was in, and the line of Python that it was at; None if there is no report."""
    try:
        found = CRASHED.search(path.read_text(errors="replace"))
    except OSError:
        return None, ""
    if found is None:
        return None, ""
    thread, file, line, function = found.groups()
    return int(thread, 16), f"{Path(file).name}:{line} in {function}" if file else ""


def ending(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
