"""A run as a page of Markdown."""

import datetime
import platform
from pathlib import Path

import av
import numpy as np
import onnxruntime
import openvino

from tests.fuzz.parent import MEGABYTES, SECONDS, Tally


def write(path: Path, tally: Tally, *, seed: int, cases: int, seconds: float) -> None:
    """Counts, findings, and what is needed to do it again."""
    now = datetime.datetime.now(datetime.UTC)
    lines = [
        "# Fuzzing: what strangers can send",
        "",
        f"`python -m tests.fuzz --cases {cases} --seed {seed}`, {now:%Y-%m-%d %H:%M} UTC, {seconds:.0f} s. "
        f"{tally.cases} cases, **{len(tally.findings)} findings**.",
        "",
        f"A case is good when it ends in success or in a typed error, in {SECONDS:g} s and {MEGABYTES:g} MB. "
        "`screen` is the real command on damaged films, a hundred at a time; the other targets run in a "
        "child process that may die. The same target and seed give the same bytes: "
        "`python -m tests.fuzz --one TARGET SEED` runs one again.",
        "",
        "| target | cases | outcomes | slowest | most memory |",
        "|---|---|---|---|---|",
    ]
    for target, outcomes in tally.outcomes.items():
        said = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
        memory = f"{tally.largest[target]:.0f} MB" if tally.largest[target] else "not measured"
        slow = f"{tally.slowest[target]:.2f} s" + (" (mean)" if target == "screen" else "")
        lines.append(f"| {target} | {outcomes.total()} | {said} | {slow} | {memory} |")
    lines += ["", "## Findings", ""]
    lines += [
        f"- `{finding.target} {finding.seed}` ({finding.kind}):\n\n```\n{finding.text.strip()}\n```\n"
        for finding in tally.findings
    ] or ["None."]
    versions = ", ".join(
        f"{module.__name__} {module.__version__}" for module in (av, np, onnxruntime, openvino)
    )
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, number))}"
        for name, number in av.library_versions.items()
        if name in ("libavformat", "libavcodec")
    )
    lines += ["", f"Python {platform.python_version()}, {versions}, {libraries}; {_machine()}.", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def _machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown"
    )
    count = sum(line.startswith("processor") for line in info)
    return f"{count} x {model}, {platform.system()} {platform.release()}"
