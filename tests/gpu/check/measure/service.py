"""The real service on this GPU: how fast through files, and how many live streams it carries."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.bench import child, judge, service
from pipeline.bench.judge import Finding
from pipeline.bench.service import Streams
from tests.gpu.check.measure import Failed, Row
from tests.gpu.check.measure.film import TURN_S, annex_b, film, longer, packets
from tests.gpu.check.measure.nvdec import rate
from tests.gpu.engines import on_gpu

MODEL = "open-nsfw"
FILES = 8
TIMES = 5
"""The longer run's film is so many times the shorter's."""
LIVE_TIMES = 15
"""Of the live streams' film: none may end and be opened again while hundreds start and are watched."""
WARM_S, WINDOW_S, TRIES = 5.0, 20.0, int(os.environ.get("GPU_CHECK_TRIES", "8"))
FIRST = {
    plan: int(os.environ.get(f"GPU_CHECK_{plan.upper()}", count))
    for plan, count in {"full": 24, "keyframes": 120}.items()
}
"""Streams to begin with: a guess near the answer saves tries."""
RATE = 30
WORKERS = 1
"""One process has one GPU."""


def throughput(device: str = "gpu") -> list[Row]:
    """Pictures a second from files to recorded decisions, everything decoded: the difference of a long and a
    short run, so that what it takes to start is in neither."""
    short, long = (_run(path, device) for path in (film(), longer(TIMES)))
    pictures = FILES * TURN_S * RATE * (TIMES - 1)
    ours = pictures / (long - short)
    rows: list[Row] = [
        (f"{FILES} files at once, every picture decoded", ours, "pictures/s"),
        ("start and end of a run", short - (long - short) / (TIMES - 1), "s"),
    ]
    if device == "gpu":
        limit = rate(annex_b(*packets()), FILES, copied=True)
        rows += [
            (f"NVDEC alone, {FILES} decoders, just after", limit, "pictures/s"),
            ("the whole pipeline, of NVDEC alone", 100 * ours / limit, "%"),
        ]
    return rows


def _run(path: Path, device: str) -> float:
    """Wall seconds of a run over ``FILES`` copies."""
    with TemporaryDirectory(prefix="framewarden-gpu-") as folder:
        settings = Path(folder) / "run.yaml"
        streams = [{"id": f"s{number:02}", "url": str(path)} for number in range(FILES)]
        about = _settings(Path(folder), device, "full") | {"streams": streams}
        settings.write_text(json.dumps(about))
        return child.run(child.python("pipeline", "run", settings, "--exit-at-end", "--json")).wall_s


def _settings(folder: Path, device: str, plan: str) -> dict[str, object]:
    return {
        "node": "gpu-check",
        "state_dir": str(folder / "state"),
        "device": device,
        "engine": on_gpu()[0] if device == "gpu" else "auto",
        "workers": WORKERS,
        "model": MODEL,
        "sampling": {"plan": plan},
    }


@dataclass(frozen=True, slots=True)
class OnDevice(Streams):
    """Streams of the benchmark, on a named device and plan."""

    device: str = "gpu"
    plan: str = "full"

    def config(self, state_dir: Path) -> str:
        about = json.loads(Streams.config(self, state_dir))
        return json.dumps(about | _settings(state_dir.parent, self.device, self.plan))


def streams(plan: str, device: str = "gpu", first: str = "") -> list[Row]:
    """More and more live 1080p30 streams until a promise breaks, then between."""
    tried: list[Finding] = []
    count: int | None = int(first) if first else FIRST[plan]
    while count is not None and len(tried) < TRIES:
        urls = [str(longer(LIVE_TIMES))] * count
        wanted = OnDevice(urls, MODEL, WINDOW_S, WARM_S, device=device, plan=plan)
        tried.append(judge.judge(service.watch(wanted, _quiet), few=None))
        count = judge.next_count({one.streams: one.kept for one in tried})
    best, broken = judge.limit(tried)
    rows = [] if best is None else _rows(best, plan)
    if broken is not None:
        rows.append((f"{broken.streams} streams", f"not carried: {broken.broken}", ""))
    if best is None:
        raise Failed("no number of streams was carried", rows)
    if broken is None or count is not None:
        rows.append(("more than that", f"not tried: {TRIES} runs were", ""))
    return rows


def _rows(best: Finding, plan: str) -> list[Row]:
    decoded: list[Row] = [("pictures decoded", best.streams * RATE, "pictures/s")] if plan == "full" else []
    return [
        (f"1080p30 streams carried, plan {plan}", best.streams, "streams"),
        *decoded,
        ("pictures screened", best.samples_a_second, "pictures/s"),
        ("capture to score, p50", best.p50_ms or 0.0, "ms"),
        ("capture to score, p99", best.p99_ms or 0.0, "ms"),
        ("CPU", best.cores, "cores"),
        ("worst gap", best.worst_gap_s, "s"),
        ("host memory of all processes", best.memory_mb, "MB"),
    ]


def _quiet(text: str) -> None:
    """Progress of a run: standard output is for the answer."""
