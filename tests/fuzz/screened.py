"""Damaged films through the command as a user starts it, with its supervisor, workers and model."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.parent import Finding, Tally
from tests.fuzz.targets import damaged_film

SECONDS = 3.0
"""A film's deadline; a group of n has n times as long, and START_S."""
START_S = 60.0
CODES = (0, 1)
DIED = ("crashed the worker", "worker died")


def screen(folder: Path, films: Path, seeds: Sequence[int], tally: Tally) -> None:
    """Screen the damaged films of these seeds in one ``screen --json`` and count how each ended."""
    names = {}
    for seed in seeds:
        data, suffix = damaged_film(random.Random(f"film:{seed}"), films)
        path = folder / f"{seed}{suffix}"
        path.write_bytes(data)
        names[str(path)] = seed
    command = [sys.executable, "-m", "pipeline", "screen", *names, "--json"]
    began = time.monotonic()
    deadline = START_S + SECONDS * len(seeds)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=deadline, check=False,
            cwd=folder, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        tally.findings.append(Finding("screen", seeds[0], "hang", f"{seeds} took over {deadline} s: {error}"))
        return
    seconds = (time.monotonic() - began) / len(seeds)
    if done.returncode not in CODES or "Traceback" in done.stderr:
        at = done.stderr.find("Traceback")
        shown = done.stderr[max(0, at - 300) : at + 2700] if at >= 0 else done.stderr[-3000:]
        text = f"exit code {done.returncode} of {list(seeds)}\n{shown}"
        tally.findings.append(Finding("screen", seeds[0], "error", text))
    ends, junk = _ends(done.stdout)
    if junk:
        text = f"stdout of {list(seeds)} holds what is no event: {junk[:5]}"
        tally.findings.append(Finding("screen", seeds[0], "error", text))
    for name, seed in names.items():
        state, reason = ends.get(name, ("no event", ""))
        tally.add("screen", state, seconds, 0.0)
        if name not in ends or any(word in reason for word in DIED):
            tally.findings.append(Finding("screen", seed, "crash", f"{Path(name).name}: {state}: {reason}"))
        Path(name).unlink()


def _ends(out: str) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """State and reason of the last stream event of each input, and lines that are no events."""
    found, junk = {}, []
    for line in out.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            junk.append(line)
            continue
        if event["type"] == "framewarden.stream.v1":
            data = event["data"]
            found[data["stream"]["id"]] = (data["state"], str(data.get("reason") or ""))
    return found, junk
