"""``framewarden bench engine``: what a picture costs on each engine, at each precision and batch size."""

from collections.abc import Sequence
from dataclasses import asdict

from pipeline.backends.registry import ENGINES
from pipeline.bench import parts
from pipeline.bench.machine import cores
from pipeline.bench.parts import Speed
from pipeline.bench.peers import Say
from pipeline.bench.report import Bars, Cell, Section, Table

BATCHES = (1, 2, 4, 8, 16)


def precise() -> list[str]:
    """The engines of a CPU whose name fixes their precision."""
    return [name for name, engine in ENGINES.items() if engine.device == "cpu" and engine.options]


def bench(models: Sequence[str], *, batches: Sequence[int], threads: int | None, say: Say) -> Section:
    """Measure every engine with every model, each in a process of its own. ``threads`` None: one a core."""
    count = threads or cores()
    rows: list[tuple[Cell, ...]] = []
    found: list[dict[str, object]] = []
    best: list[tuple[str, Speed]] = []
    for model in models:
        for engine in precise():
            say(f"measuring {model} on {engine}")
            speeds, why = parts.measure_engine(model, engine, threads=count, batches=tuple(batches))
            rows += [(model, engine, one.batch, one.cpu_ms, one.per_second) for one in speeds]
            rows += [] if speeds else [(model, f"{engine}: {why}", None, None, None)]
            found.append(
                {"model": model, "engine": engine, "why": why, "speeds": [asdict(one) for one in speeds]}
            )
            best += [(f"{model} {engine}", min(speeds, key=lambda one: one.cpu_ms))] if speeds else []
    titles = ("model", "engine", "batch", "CPU ms a picture", "pictures a second")
    says = [f"CPU over all threads; pictures a second by the clock, on {count} threads of {cores()} cores."]
    if best:
        name, one = min(best, key=lambda pair: pair[1].cpu_ms)
        says.append(f"The cheapest: {name}, {one.cpu_ms:.1f} ms of CPU a picture at batch {one.batch}.")
    plot = Bars(
        "CPU a picture at the cheapest batch", "ms", ("CPU",), [(name, (one.cpu_ms,)) for name, one in best]
    )
    data = {"threads": count, "engines": found, "says": says}
    return Section("engine", "Engines", says, [Table(titles, rows)], data, [plot] if best else [])
