"""Whether a run kept its promises, and what it cost next to what it cannot do without. Pure arithmetic."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.bench.service import Window
from pipeline.flow.sample import TOLERANCE

LATENCY_MS = 1000.0
"""99th percentile from capture to score."""
MEMORY_MB = 40.0
"""A stream, over the base."""
WORKER_WINDOW = 4096
"""Latest samples that a worker's percentiles are of."""
ROUNDED_S = 0.01  # a snapshot's seconds are rounded
PYTHON = "rest (Python, service, Redis)"
GROWTH = 1.5
CLOSE = 0.03
"""The limit is found when the numbers that were kept and broken are this close, or next to each other."""


@dataclass(frozen=True, slots=True)
class Promise:
    """``said`` is what was seen, in words."""

    name: str
    kept: bool
    said: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run came to. CPU in seconds over the window, ``ms`` a stream-second; latencies in ms; memory in
    MB, ``memory_each_mb`` over the base (None: one stream only)."""

    streams: int
    seconds: float
    cpu_s: float
    cores: float
    ms: float
    used_s: dict[str, float]
    server_s: float
    samples_a_second: float
    worst_gap_s: float
    p50_ms: float | None
    p99_ms: float | None
    latency_of: int
    latency_with_start: bool
    drops: dict[str, int]
    lost_s: dict[str, float]
    memory_mb: float
    memory_base_mb: float | None
    memory_each_mb: float | None
    plans: dict[str, int]
    promises: tuple[Promise, ...]

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return all(promise.kept for promise in self.promises)

    @property
    def broken(self) -> str:
        """The promises that were not kept, with what was seen."""
        return "; ".join(f"{promise.name}: {promise.said}" for promise in self.promises if not promise.kept)


def judge(window: Window, *, one_mb: float | None) -> Finding:
    """Judge a window. ``one_mb`` is the memory of a run with a single stream (None: not measured)."""
    rows = window.after["streams"]
    count = len(rows)
    earlier = {row["id"]: row for row in window.before["streams"]}
    base_mb, each_mb = memory(window.memory_mb, count, one_mb)
    latency, latency_of, with_start = _latency(window)
    drops: Counter[str] = Counter()
    for row in rows:
        drops += Counter(row["drops"]) - Counter(earlier[row["id"]]["drops"])
    between_s = window.after["time"] - window.before["time"]
    samples = sum(row["frames"] - earlier[row["id"]]["frames"] for row in rows)
    promises = (
        _all_up(rows),
        _gaps(rows, earlier, window.lost),
        Promise("nothing dropped", not drops, _counts(drops) or "nothing was"),
        _quick(latency["p99"]),
        _workers(window),
        *([] if each_mb is None else [_lean(each_mb)]),
    )
    return Finding(
        streams=count,
        seconds=window.seconds,
        cpu_s=window.cpu_s,
        cores=window.cpu_s / window.seconds,
        ms=1e3 * window.cpu_s / (count * window.seconds),
        used_s=window.used,
        server_s=window.server_s,
        samples_a_second=samples / between_s if between_s else 0.0,
        worst_gap_s=max(row["gap_worst_s"] or 0.0 for row in rows),
        p50_ms=latency["p50"],
        p99_ms=latency["p99"],
        latency_of=latency_of,
        latency_with_start=with_start,
        drops=dict(drops),
        lost_s=window.lost,
        memory_mb=window.memory_mb,
        memory_base_mb=base_mb,
        memory_each_mb=each_mb,
        plans=dict(Counter(row["plan"] or row["state"] for row in rows)),
        promises=promises,
    )


def memory(all_mb: float, count: int, one_mb: float | None) -> tuple[float | None, float | None]:
    """Base and MB a stream, from a run of ``count`` streams and one of a single stream."""
    if one_mb is None or count < 2:
        return None, None
    each_mb = (all_mb - one_mb) / (count - 1)
    return one_mb - each_mb, each_mb


def shares(ms: float, alone: Mapping[str, float]) -> dict[str, float]:
    """A stream-second's CPU ms by part: what each costs alone, and the rest. They add up to ``ms``."""
    return {**alone, PYTHON: ms - sum(alone.values())}


def next_count(tried: Mapping[int, bool]) -> int | None:
    """How many streams to try next, from what was tried (number → promises kept); None: that is known."""
    broken = min((count for count, kept in tried.items() if not kept), default=None)
    good = max(
        (count for count, kept in tried.items() if kept and (broken is None or count < broken)), default=0
    )
    if broken is None:
        return max(good + 1, round(good * GROWTH))
    if broken - good <= max(1, CLOSE * broken):
        return None
    return (good + broken) // 2


def limit(found: Sequence[Finding]) -> tuple[Finding | None, Finding | None]:
    """The run with most streams that kept every promise below the first that did not, and that one."""
    broken = min((one for one in found if not one.kept), key=lambda one: one.streams, default=None)
    kept = [one for one in found if one.kept and (broken is None or one.streams < broken.streams)]
    return max(kept, key=lambda one: one.streams, default=None), broken


def _all_up(rows: list[dict[str, Any]]) -> Promise:
    down = [row["id"] for row in rows if row["state"] != "screening" or not row["frames"]]
    said = f"{len(down)} of {len(rows)} are not: {', '.join(down[:5])}" if down else f"all {len(rows)}"
    return Promise("every stream screened", not down, said)


def _gaps(
    rows: list[dict[str, Any]], earlier: Mapping[str, dict[str, Any]], lost: Mapping[str, float]
) -> Promise:
    """A gap in the window that was not kept leaves seconds that were not screened, or the worst gap rises, or
    it still lasts at the end (a sample's score may be as late as is promised)."""
    bad, worst = [], 0.0
    for row in rows:
        then, most = earlier[row["id"]], row["max_gap_s"] * TOLERANCE
        before, now = (
            sum(at["coverage"][name] for name in ("late_s", "dropped_s", "lost_s")) for at in (then, row)
        )
        gap, gap_then = row["gap_worst_s"] or 0.0, then["gap_worst_s"] or 0.0
        rose = gap > most + ROUNDED_S and gap > gap_then
        lasts = (row["gap_now_s"] or 0.0) > most + LATENCY_MS / 1e3
        if now - before > ROUNDED_S or rose or lasts:
            bad.append(row["id"])
            worst = max(worst, gap if rose or now > before else row["gap_now_s"])
    name = f"every gap at most {max(row['max_gap_s'] for row in rows) * TOLERANCE:g} s"
    if not bad:
        return Promise(
            name, True, f"worst {max(row['gap_worst_s'] or 0.0 for row in rows):.2f} s since the start"
        )
    why = f" (seconds by cause: {_counts(lost)})" if lost else ""
    return Promise(name, False, f"{worst:.2f} s; on {len(bad)} streams: {', '.join(bad[:5])}{why}")


def _latency(window: Window) -> tuple[dict[str, float | None], int, bool]:
    """The slowest worker's percentiles, of how many samples they are, whether the start is among them."""
    workers = window.after["workers"]
    slowest = max(workers, key=lambda worker: worker["latency_ms"]["p99"] or 0.0)
    scored = {worker["id"]: worker["scored"] for worker in window.before["workers"]}
    of = min(slowest["scored"], WORKER_WINDOW)
    return slowest["latency_ms"], of, slowest["scored"] - scored.get(slowest["id"], 0) < of


def _quick(p99_ms: float | None) -> Promise:
    said = "no sample was scored" if p99_ms is None else f"{p99_ms:.0f} ms"
    return Promise("99 % from capture to score under 1 s", p99_ms is not None and p99_ms < LATENCY_MS, said)


def _workers(window: Window) -> Promise:
    before, after = (
        sum(worker["restarts"] for worker in at["workers"]) for at in (window.before, window.after)
    )
    return Promise("no worker died", after == before, f"{after - before} restarts")


def _lean(each_mb: float) -> Promise:
    return Promise(f"at most {MEMORY_MB:g} MB a stream", each_mb <= MEMORY_MB, f"{each_mb:.1f} MB")


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{cause} {count:g}" for cause, count in sorted(counts.items()))
