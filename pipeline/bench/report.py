"""What a benchmark found, ready to be shown: as JSON, as Markdown, and (``page.py``) as one HTML page."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any

from pipeline.bench.machine import Machine
from pipeline.bench.page import Bars, Lines, Plot, page

VERSION = 1
Cell = str | int | float | None
PLACES = ("--report", "--json", "--folder")
"""Options that say where files lie on one machine; they change no number, and a report leaves them out."""

__all__ = ["Bars", "Lines", "Plot", "Report", "Section", "Table", "film_table", "shown"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles; the first column names a row."""

    titles: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    title: str = ""

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers and nothing else."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(cell, int | float) for cell in cells)


@dataclass(frozen=True, slots=True)
class Section:
    """One benchmark: sentences that say what came out, tables, plots, and all numbers as JSON in ``data``."""

    name: str
    title: str
    says: Sequence[str]
    tables: Sequence[Table]
    data: dict[str, Any]
    plots: Sequence[Plot] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """``command`` made it, ``date`` is ISO 8601 in UTC, ``material`` describes the film, if there is one.
    ``label`` tells it from other reports of the same benchmark and day."""

    name: str
    command: str
    date: str
    machine: Machine
    versions: dict[str, str]
    material: dict[str, Any]
    sections: Sequence[Section] = field(default_factory=list)
    label: str = ""

    @property
    def repeatable(self) -> str:
        """The command without ``PLACES``: what makes the same report elsewhere."""
        words, kept = iter(shlex.split(self.command)), list[str]()
        for word in words:
            if word in PLACES:
                next(words, None)
            else:
                kept.append(word)
        return shlex.join(kept)

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        machine = self.machine
        return {
            "version": VERSION,
            "name": self.name,
            "command": self.repeatable,
            "date": self.date,
            "machine": {
                "cpu": machine.cpu,
                "vectors": machine.vectors,
                "cores": machine.cores,
                "memory_gb": machine.memory_gb,
                "system": machine.system,
                "load": machine.load,
            },
            "versions": self.versions,
            "material": self.material,
            **{section.name: section.data for section in self.sections},
        }

    def facts(self) -> list[Table]:
        """Where, when, with what: what every report states."""
        machine = self.machine
        circumstances: list[tuple[str, Cell]] = [
            ("command", self.repeatable),
            ("date", self.date),
            ("processor", machine.cpu),
            ("vector instructions", machine.vectors),
            ("cores", machine.cores),
            ("memory, GB", machine.memory_gb),
            ("system", machine.system),
            ("load before", machine.load),
            *self.versions.items(),
        ]
        film = [film_table("film", self.material)] if self.material else []
        return [*film, Table(("", ""), circumstances, "Circumstances")]

    def markdown(self) -> str:
        """All of it, for people."""
        parts = [f"# framewarden {self.name}", ""]
        for section in self.sections:
            parts += [f"## {section.title}", "", *(f"{say}\n" for say in section.says)]
            for table in section.tables:
                parts += _markdown(table)
        for table in self.facts():
            parts += _markdown(table, "##")
        return "\n".join(parts).rstrip() + "\n"

    def html(self) -> str:
        """All of it on one page that needs nothing else."""
        sections = [
            (
                section.title,
                section.says,
                [(t.title, t.titles, _texts(t)) for t in section.tables],
                section.plots,
            )
            for section in self.sections
        ]
        facts = [(t.title, t.titles, _texts(t)) for t in self.facts()]
        return page(f"framewarden {self.name}", f"{self.date} · {self.machine.cpu}", sections, facts)

    def write(self, folder: Path) -> list[Path]:
        """Write the three forms into ``folder``, named after the benchmark, what was run, and the day; where
        there is such a report already, the new one has a number behind its name."""
        folder.mkdir(parents=True, exist_ok=True)
        words = [*self.name.split(), *([self.label] if self.label else []), self.date[:10]]
        name = re.sub(r"[^\w.-]+", "-", "-".join(words))
        names = (f"{name}-{number}" if number > 1 else name for number in count(1))
        stem = next(stem for stem in names if not any(folder.glob(f"{escape(stem)}.*")))
        forms = {
            "json": json.dumps(self.as_json(), indent=2) + "\n",
            "md": self.markdown(),
            "html": self.html(),
        }
        paths = [folder / f"{stem}.{suffix}" for suffix in forms]
        for path, text in zip(paths, forms.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths


def film_table(name: str, facts: Mapping[str, Cell]) -> Table:
    """What a film is; ``name`` is what it is called in the table."""
    about = [(key.replace("_", " "), value) for key, value in facts.items()]
    return Table((name, ""), about, "Material" if name == "film" else f"Material: {name}")


def shown(cell: Cell) -> str:
    """A cell as text: three significant digits, whole numbers whole, nothing as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, bool) or not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"


def _texts(table: Table) -> list[list[str]]:
    return [[shown(cell) for cell in row] for row in table.rows]


def _markdown(table: Table, level: str = "###") -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = line(["---:" if table.numeric(at) else "---" for at in range(len(table.titles))])
    title = [f"{level} {table.title}", ""] if table.title else []
    return [*title, line(table.titles), rule, *(line(row) for row in _texts(table)), ""]
