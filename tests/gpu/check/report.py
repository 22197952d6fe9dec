"""What a check found, as JSON for programs and as Markdown for people."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.gpu.check.facts import Facts, package

VERSION = 1
Status = Literal["passed", "measured", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class Number:
    """One figure: what it is, and its unit."""

    what: str
    value: float | int | str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a part. ``why`` is empty for one that passed or was measured; ``tests`` counts by result;
    ``failures`` names tests; ``date`` is when it ended, ISO 8601 in UTC."""

    name: str
    title: str
    status: Status
    why: str = ""
    seconds: float = 0.0
    numbers: tuple[Number, ...] = ()
    tests: dict[str, int] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    date: str = ""

    @property
    def ran(self) -> bool:
        """Whether it was tried at all."""
        return self.status != "not run"


@dataclass(frozen=True, slots=True)
class Report:
    """``date`` is ISO 8601 in UTC; ``command`` made it; ``machine`` describes the host."""

    date: str
    command: str
    machine: dict[str, Any]
    facts: Facts
    outcomes: tuple[Outcome, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        facts = self.facts
        gpu = {"missing": facts.missing["gpu"]} if facts.gpu is None else asdict(facts.gpu)
        return {
            "version": VERSION,
            "name": "gpu-check",
            "date": self.date,
            "command": self.command,
            "gpu": gpu,
            "machine": self.machine,
            "versions": facts.versions,
            "missing": facts.missing,
            "notes": facts.notes,
            "parts": {one.name: _part(one) for one in self.outcomes},
        }

    def markdown(self) -> str:
        """All of it, for people: what ran first, then the circumstances."""
        facts = self.facts
        title = facts.gpu.name if facts.gpu else "no GPU"
        lines = [f"# GPU check: {title}, {self.date[:10]}", "", *(f"{note}.\n" for note in facts.notes)]
        rows = [(one.title, verdict(one), one.date[:16].replace("T", " ")) for one in self.outcomes]
        lines += _table(("part", "result", "when (UTC)"), rows)
        for one in self.outcomes:
            lines += _section(one) if one.numbers or one.failures else []
        lines += ["## Circumstances", ""]
        about = {"date": self.date, "command": self.command} | _gpu_rows(facts) | self.machine
        lines += _table(("", ""), [(name, str(value)) for name, value in about.items()])
        lines += ["## Versions", "", *_table(("module", "version"), list(facts.versions.items()))]
        if absent := {name: why for name, why in facts.missing.items() if name != "gpu"}:
            rows = [(name, why, package(name)) for name, why in absent.items()]
            lines += ["## Missing", "", *_table(("module", "why", "package"), rows)]
        return "\n".join(lines).rstrip() + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Write both into ``folder``, named after the GPU and the day."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.facts.gpu.name if self.facts.gpu else "no gpu"
        stem = f"gpu-check-{'-'.join(name.lower().split())}-{self.date[:10]}".replace("/", "-")
        paths = [folder / f"{stem}.md", folder / f"{stem}.json"]
        paths[0].write_text(self.markdown(), encoding="utf-8")
        paths[1].write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")
        return paths


def earlier(path: Path, facts: Facts) -> dict[str, Outcome]:
    """The parts of an earlier report of the same GPU and driver, by name.

    :raises ValueError: it is no such report; says why."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = (found["gpu"].get("name"), found["gpu"].get("driver"))
        parts = {name: _outcome(name, part) for name, part in found["parts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is no report of a check: {error}") from error
    here = (facts.gpu.name, facts.gpu.driver) if facts.gpu else ("no GPU", "no driver")
    if known != here:
        raise ValueError(
            f"{path}: is of {known[0]} with driver {known[1]}, and here is {here[0]} with {here[1]}"
        )
    return parts


def _outcome(name: str, part: dict[str, Any]) -> Outcome:
    lists = {
        "failures": tuple(part["failures"]),
        "numbers": tuple(Number(**number) for number in part["numbers"]),
    }
    return Outcome(name, **(part | lists))


def verdict(one: Outcome) -> str:
    """A part's result in a line."""
    said = f"{one.status}: {one.why}" if one.why else one.status
    counted = ", ".join(f"{count} {result}" for result, count in one.tests.items() if count)
    return f"{said} ({counted})" if counted else said


def _part(one: Outcome) -> dict[str, Any]:
    part = asdict(one)
    del part["name"]
    return part | {"failures": list(one.failures), "numbers": [asdict(number) for number in one.numbers]}


def _gpu_rows(facts: Facts) -> dict[str, Any]:
    if facts.gpu is None:
        return {"GPU": facts.missing["gpu"]}
    gpu = facts.gpu
    return {
        "GPU": f"{gpu.name}, {gpu.capability}, {gpu.memory_mb} MiB",
        "driver": f"{gpu.driver}, CUDA up to {gpu.cuda}",
        "highest NVDEC clock": gpu.video_mhz,
    }


def _section(one: Outcome) -> list[str]:
    lines = [f"## {one.title}", ""]
    if one.failures:
        lines += [*(f"- failed: `{name}`" for name in one.failures), ""]
    if one.numbers:
        rows = [(number.what, shown(number.value), number.unit) for number in one.numbers]
        lines += _table(("", "value", "unit"), rows)
    return lines


def shown(value: float | int | str) -> str:
    """A value with three significant digits; whole numbers whole."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _table(titles: tuple[str, ...], rows: list[Any]) -> list[str]:
    def line(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(titles), line(["---"] * len(titles)), *(line(row) for row in rows), ""]
