"""A soak as a page of Markdown."""

import datetime
from collections.abc import Mapping, Sequence

from tests.faults.lines import Line
from tests.fixtures.history import Verdict


def render(
    command: str,
    lines: Sequence[Line],
    *,
    verdict: Verdict | None,
    segments: int,
    struck: Mapping[str, int],
    failures: Sequence[str],
    machine: str,
) -> str:
    """What was run, the lines that were fitted, what was lost, and what struck."""
    now = datetime.datetime.now(datetime.UTC)
    text = [
        "# Soak" + (" with faults" if struck else ""),
        "",
        f"`{command}`, {now:%Y-%m-%d %H:%M} UTC. **{'Failed' if failures else 'Good'}**.",
        "",
        "The whole process tree, read every five seconds; the first fifth (at most five minutes) is not "
        "fitted. A line fails when it rises faster than its limit and by more than three standard errors.",
        "",
        "| | first | last | highest | an hour | standard error | scatter | limit an hour |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        numbers = (line.first, line.last, line.highest, line.an_hour, line.error, line.noise, line.limit)
        text.append(f"| {line.name} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    text += ["", f"{segments} segments closed. {verdict if verdict is not None else 'Not judged'}.", ""]
    if struck:
        text += ["| fault | struck |", "|---|---|", *(f"| {name} | {n} |" for name, n in struck.items()), ""]
    if failures:
        text += ["## What failed", "", *(f"- {failure}" for failure in failures), ""]
    return "\n".join([*text, machine + ".", ""])
