"""The table of faults and invariants, as a page of Markdown."""

import datetime
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.cells import INVARIANTS
from tests.faults.matrix import NOT_ASKED, cells, faults

Cell = tuple[str, str]
MEANINGS = {
    "struck": "the fault happened, counted at its source",
    "delivered": "every event that the outbox accepted is in Redis, every closed segment among them",
    "unique": "no event twice for a consumer, no id used again",
    "ordered": "each stream's events in the order in which they were accepted",
    "coverage": "the four seconds make the wall time to within 0.1 s, and what was away is lost",
    "back": "well again without hands: a source in 10 s, Redis in 20 s",
    "nothing left": "no more threads or open files than before; memory within 32 MB",
    "alive": "no process ended or was replaced; exit code 0",
    "others": "streams that were not struck: nothing lost or late, worst gap and 99th percentile as before",
}


@dataclass
class Table:
    """What became of each cell."""

    good: dict[Cell, str] = field(default_factory=dict)
    bad: dict[Cell, str] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    tests: int = 0
    seconds: float = 0.0
    quick: bool = False

    def passed(self, fault: str, invariant: str, said: str) -> None:
        """A test of this cell passed; what it measured, if it says so."""
        self.good[fault, invariant] = said or self.good.get((fault, invariant), "")

    def failed(self, fault: str, invariant: str, why: str) -> None:
        self.bad[fault, invariant] = why

    def red(self) -> list[tuple[str, str, str]]:
        """Cells that are missing or failed, and why."""
        return [(*cell, why) for cell in cells() if (why := self.trouble(cell)) is not None]

    def trouble(self, cell: Cell) -> str | None:
        """Why this cell is red; None when it is green."""
        return self.bad.get(cell) or (None if cell in self.good else "not shown by any test that passed")


def render(table: Table) -> str:
    """The page."""
    now, red = datetime.datetime.now(datetime.UTC), table.red()
    command = "python -m tests.faults" + (" --quick" if table.quick else "")
    many = "12 streams, 7 s" if table.quick else "38 streams, 60 s"
    lines = [
        "# Faults and what must hold",
        "",
        f"`{command}`, {now:%Y-%m-%d %H:%M} UTC, {table.seconds:.0f} s, {table.tests} tests. "
        f"{len(cells())} cells, **{len(red)} red**.",
        "",
        "A cell is green (✓) when every test that judges it passed, and red (✗) when one failed, was "
        "skipped, or when there is none. What was measured stands behind the mark where the test says it.",
        "",
        f"Faults of sources strike one running service all at once ({many}), each its own streams; two "
        "streams are left alone. What is measured on the whole process (`nothing left`, `alive`, `others`) "
        "therefore holds for all of them together. Faults of Redis and of the disk strike a "
        "service one after the other; publisher and outbox alone are tried with the same faults and more "
        "events. `others` allows for what the machine itself held up a thread that only waits.",
        "",
        *(f"- **{name}**: {MEANINGS[name]}." for name in INVARIANTS),
        "",
        "| fault | " + " | ".join(INVARIANTS) + " |",
        "|---" * (len(INVARIANTS) + 1) + "|",
    ]
    for fault in faults():
        marks = [_mark(table, (fault, invariant)) for invariant in INVARIANTS]
        lines.append(f"| {fault} | " + " | ".join(marks) + " |")
    lines += ["", *(f"- – {cell[0]}, {cell[1]}: {why}." for cell, why in NOT_ASKED.items())]
    if red:
        lines += ["", "## Red", "", *(f"- {fault}, {invariant}: {why}" for fault, invariant, why in red)]
    if table.broken:
        lines += ["", "## Tests that failed", ""]
        lines += [f"- `{name}`\n\n```\n{text}\n```\n" for name, text in table.broken]
    return "\n".join([*lines, "", f"Python {platform.python_version()}; {machine()}.", ""])


def _mark(table: Table, cell: Cell) -> str:
    if cell in NOT_ASKED:
        return "–"
    if table.trouble(cell) is not None:
        return "✗"
    return f"✓ {table.good[cell]}".rstrip()


def machine() -> str:
    """Processor, system, and how busy it was."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{len(names)} x {names[0] if names else 'unknown'}, {platform.system()}, load {load}"
