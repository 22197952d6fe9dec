"""Child processes and what they cost: CPU time from the kernel's account of a process, never from a clock.

``os.wait4`` gives the CPU time of a child and of all the descendants that were waited for, start-up included.
What is not in it is Python's resource tracker, which outlives a ``screen`` by a moment (about 0.02 s)."""

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import FramewardenError
from pipeline.service.process import die_with_parent

HOME = Path(__file__).resolve().parents[2]
"""Where ``python -m pipeline`` finds this very code."""
TERM_S = 60.0
"""A child that was told to end and has not after this long is killed."""


class BenchError(FramewardenError):
    """Something that is measured failed; says what it said."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A process that has ended: user and system CPU seconds of it and its children, wall seconds from start
    to end, MB of the largest one of them, and what it wrote."""

    code: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    out: str
    err: str


def python(*arguments: str | Path) -> list[str]:
    """The command line of a program of ours: ``python("pipeline", "run")`` is ``python -m pipeline run``."""
    return [sys.executable, "-m", *map(str, arguments)]


class Child:
    """A running process. As a context manager it is told to end on every way out, and killed if need be; it
    does not outlive the thread that started it."""

    def __init__(self, command: Sequence[str], *, out: Path | None = None) -> None:
        """``out``: a file for its stdout, which may be long; then ``out`` and ``Usage.out`` stay empty."""
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by usage()
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self._started = time.monotonic()
        with out.open("wb") if out is not None else nullcontext(self._out) as stdout:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=self._err,
                cwd=HOME,
                preexec_fn=die_with_parent,  # a bench that is killed leaves no server behind
            )
        self.pid = self._process.pid
        self._watch = os.pidfd_open(self.pid)
        self._usage: Usage | None = None

    def wait(self, timeout_s: float) -> bool:
        """Wait until the process has ended, at most ``timeout_s`` seconds; whether it has."""
        if self._usage is not None:
            return True
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        return bool(poll.poll(max(0.0, 1e3 * timeout_s)))

    def end(self) -> Usage:
        """Ask it to end (SIGTERM) when it still runs, and give what it came to."""
        if not self.wait(0):
            self._process.send_signal(signal.SIGTERM)
            if not self.wait(TERM_S):
                self._process.kill()
        return self.usage()

    def usage(self) -> Usage:
        """What it came to; waits for its end."""
        if self._usage is None:
            _, status, used = os.wait4(self.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
            wall_s = time.monotonic() - self._started
            self._usage = _usage(self._process.returncode, used, wall_s, self.out, self.err)
            os.close(self._watch)
            self._out.close()
            self._err.close()
        return self._usage

    @property
    def out(self) -> str:
        """What it has written to stdout so far."""
        return self._usage.out if self._usage else _text(self._out.fileno())

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return self._usage.err if self._usage else _text(self._err.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def run(command: Sequence[str], *, timeout_s: float = 3600.0) -> Usage:
    """Run a command to its end.

    :raises BenchError: it failed, or did not end within ``timeout_s`` seconds."""
    with Child(command) as child:
        if not child.wait(timeout_s):
            raise BenchError(f"{' '.join(command)}: did not end within {timeout_s:g} s")
        usage = child.usage()
    if usage.code != 0:
        said = usage.err.strip().splitlines()[-3:]
        raise BenchError(
            f"{' '.join(command)}: exit code {usage.code}: {' / '.join(said) or 'it said nothing'}"
        )
    return usage


def _usage(code: int, used: resource.struct_rusage, wall_s: float, out: str, err: str) -> Usage:
    return Usage(code, used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss * 1024 / 1e6, out, err)


def _text(handle: int) -> str:
    """All of a file that another process writes, without moving the place where it writes."""
    return os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace")
