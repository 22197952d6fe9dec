"""Gives cases to a child, watches its time and memory, and starts another one when it died."""

import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.fuzz import corpus

SECONDS = 30.0
"""A case's deadline: two connects and their timeouts on a busy machine take less than ten."""
MEGABYTES = 1024.0
"""A case's memory, the interpreter and engines included."""


@dataclass(frozen=True)
class Finding:
    """A case that ended badly; ``python -m tests.fuzz --one TARGET SEED`` runs it again."""

    target: str
    seed: int
    kind: str
    text: str


@dataclass
class Tally:
    """How the cases of a run ended, by target and outcome."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        return sum(counter.total() for counter in self.outcomes.values())

    def add(self, target: str, outcome: str, seconds: float, megabytes: float) -> None:
        self.outcomes.setdefault(target, Counter())[outcome] += 1
        self.slowest[target] = max(self.slowest.get(target, 0.0), seconds)
        self.largest[target] = max(self.largest.get(target, 0.0), megabytes)


class Child:
    """The process under test; a new one after each death."""

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self._folder = folder
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        corpus.make(folder / "corpus")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, cases: Iterable[tuple[str, int]], tally: Tally | None = None) -> Tally:
        """Every case, one after the other, added to ``tally``."""
        tally = tally or Tally()
        for target, seed in cases:
            self._run(target, seed, tally)
        return tally

    def _run(self, target: str, seed: int, tally: Tally) -> None:
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{target} {seed}\n")
        process.stdin.flush()
        line = self._answer(process, self._seconds)
        if line is None or not line:
            kind = "hang" if line is None else "crash"
            self._end()
            text = f"no answer in {self._seconds:g} s" if line is None else _cause(process.returncode)
            tally.findings.append(Finding(target, seed, kind, f"{text}\n{self._last_words()}"))
            tally.add(target, kind, self._seconds if line is None else 0.0, 0.0)
            return
        answer = json.loads(line)
        tally.add(target, answer["outcome"], answer["seconds"], answer["megabytes"])
        if answer["finding"]:
            tally.findings.append(Finding(target, seed, "error", answer["finding"]))
        if answer["megabytes"] > MEGABYTES:
            tally.findings.append(Finding(target, seed, "memory", f"{answer['megabytes']:.0f} MB"))
        if answer["finding"] or answer["megabytes"] > MEGABYTES:
            self._end()  # the next case starts clean

    def _start(self) -> "subprocess.Popen[str]":
        self._log = (self._folder / "child.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.child", str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONFAULTHANDLER": "1"},
        )  # fmt: skip
        assert self._answer(self._process, 60) == "{}\n", self._last_words()
        return self._process

    def _answer(self, process: "subprocess.Popen[str]", seconds: float) -> str | None:
        """The next line; empty when the child died, None when it took too long."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        return process.stdout.readline() if ready else None

    def _end(self) -> None:
        """Let the child end, or make it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdout is not None
        try:
            process.communicate(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=10)
        if self._log is not None:
            self._log.close()

    def _last_words(self) -> str:
        path = self._folder / "child.log"
        return path.read_text(errors="replace")[-1500:] if path.exists() else ""


def _cause(code: int) -> str:
    """The name of the signal that ended a process, or its exit code."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
