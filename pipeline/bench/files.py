"""``framewarden bench files``: what it costs to screen a file, against what others would use, in one run."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.bench import child, films, parts, peers
from pipeline.bench.machine import cores
from pipeline.bench.material import Material
from pipeline.bench.parts import Parts
from pipeline.bench.peers import Cost, Say
from pipeline.bench.report import Bars, Section, Table
from pipeline.flow.sample import SamplingRules

OURS = "framewarden screen"
TIMES, PROMISED_S = 6, 595.0
"""How many times less CPU than the OpenCV loop is promised, on a film at least this long."""
REST = "rest (Python, audit, last picture)"


@dataclass(frozen=True, slots=True)
class Screened:
    """One run of ``screen``: its CPU seconds, and what it says it did with the film's seconds."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    duration_s: float
    screened_s: float
    segments: int


def bench(film: Material, *, model: str, repeat: int, say: Say) -> Section:
    """Measure ``screen`` on the film ``repeat`` times (the median counts), and its peers once."""
    max_gap_s = SamplingRules().max_gap_s
    path, seconds = Path(film.path), film.seconds
    say("measuring the start-up of screen")
    start_s = start_up(model)
    runs = []
    for number in range(repeat):
        say(f"measuring {OURS} on {seconds:g} s of film ({number + 1} of {repeat})")
        runs.append(screen(path, model))
    say("measuring each part alone")
    alone = parts.measure(path, seconds=seconds, model=model, threads=cores(), turn=0)
    others = peers.measure(
        path, seconds=seconds, every_s=max_gap_s, model=model, start_up=True, say=say, turn=0
    )
    ours = Cost(OURS, median(run.cpu_s for run in runs), runs[0].duration_s, "start-up included")
    shares = breakdown(ours, alone, start_s=start_s, every_s=films.interval_s(film, max_gap_s))
    return section(ours, runs, others, alone, shares)


def screen(path: Path, model: str) -> Screened:
    """Screen a file as a user would, in a process of its own."""
    used = child.run(child.python("pipeline", "screen", path, "--model", model, "--json"))
    events = [json.loads(line) for line in used.out.splitlines()]
    (ended,) = (event["data"] for event in events if event["type"] == "framewarden.stream.v1")
    kept = {key: ended[key] for key in ("duration_s", "screened_s", "segments")}
    return Screened(used.cpu_s, used.wall_s, used.peak_mb, **kept)


def start_up(model: str) -> float:
    """CPU seconds of ``screen`` on a film of two tiny pictures: interpreters, imports, loading the engine."""
    with tempfile.TemporaryDirectory(prefix="framewarden-bench-") as folder:
        grey = np.full((64, 64, 3), 128, np.uint8)
        return screen(write_clip(Path(folder) / "tiny.mp4", [grey, grey]), model).cpu_s


def breakdown(ours: Cost, alone: Parts, *, start_s: float, every_s: float) -> dict[str, float]:
    """Where the CPU of ``ours`` goes, in seconds: each part's cost alone, and the rest. They add up to it."""
    ms = alone.per_stream_second(1 / every_s)
    shares = {"start-up": start_s} | {name: cost * ours.media_s / 1e3 for name, cost in ms.items()}
    return shares | {REST: ours.cpu_s - sum(shares.values())}


def bound(shares: Mapping[str, float]) -> str:
    """One sentence: what most of the CPU goes to."""
    whole = sum(shares.values())
    name, most = max(shares.items(), key=lambda share: share[1])
    parts_said = ", ".join(f"{part} {100 * cost / whole:.0f} %" for part, cost in shares.items())
    return f"Bound by: {name} ({100 * most / whole:.0f} % of the CPU). All: {parts_said}."


def section(
    ours: Cost, runs: list[Screened], others: list[Cost], alone: Parts, shares: dict[str, float]
) -> Section:
    """The numbers, as sentences, table, plots and JSON."""
    ran = [ours, *(peer for peer in others if peer.ran)]
    costs = [_row(cost, ours) for cost in [ours, *others]]
    says = [*_verdicts(ours, runs, others), bound(shares)]
    titles = (
        "program",
        "CPU s",
        "ms a stream-second",
        "stream-hours a core-hour",
        "times ours",
        "what it does",
    )
    data: dict[str, Any] = {
        "programs": [_data(cost, ours) for cost in [ours, *others]],
        "runs": [asdict(run) for run in runs],
        "alone": asdict(alone),
        "shares_s": shares,
        "says": says,
    }
    plots = [
        Bars("CPU a stream-second", "ms", ("CPU",), [(cost.name, (cost.ms,)) for cost in ran]),
        Bars(
            "Where the CPU of screen goes",
            "s",
            tuple(shares),
            [(OURS, tuple(max(0.0, share) for share in shares.values()))],
        ),
    ]
    return Section("files", "Screening a file", says, [Table(titles, costs)], data, plots)


def _verdicts(ours: Cost, runs: list[Screened], others: list[Cost]) -> list[str]:
    lost_s = max(run.duration_s - run.screened_s for run in runs)
    wall_s = median(run.wall_s for run in runs)
    says = [
        f"{ours.density:.0f} stream-hours a core-hour: {ours.cpu_s:.2f} s of CPU for {ours.media_s:g} s of "
        f"film, start-up included; {lost_s:.1f} s of it were not screened within the promised gap.",
        f"By the clock it took {wall_s:.1f} s: {ours.media_s / wall_s:.0f} stream-hours an hour.",
    ]
    loop = next((peer for peer in others if peer.name == "OpenCV loop" and peer.ran), None)
    if loop is not None:
        times = loop.ms / ours.ms
        verdict = (
            "this film is shorter" if ours.media_s < PROMISED_S else "kept" if times >= TIMES else "NOT kept"
        )
        says.append(
            f"The OpenCV loop uses {times:.1f} times the CPU; at least {TIMES} times is promised for ten "
            f"minutes of 1080p30: {verdict}."
        )
    return says


def _row(cost: Cost, ours: Cost) -> tuple[str | float | None, ...]:
    if not cost.ran:
        return cost.name, None, None, None, None, cost.note
    return cost.name, cost.cpu_s, cost.ms, cost.density, cost.ms / ours.ms, cost.note


def _data(cost: Cost, ours: Cost) -> dict[str, Any]:
    about: dict[str, Any] = asdict(cost)
    if cost.ran:
        about |= {
            "ms_a_stream_second": cost.ms,
            "stream_hours_a_core_hour": cost.density,
            "ours_to_this": ours.ms / cost.ms,
        }
    return about
