"""Whether a run kept its promises, and what it cost next to what it cannot do without. Pure arithmetic."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.bench.promises import Promise, promises, worst_gap_s
from pipeline.bench.service import Window

WORKER_WINDOW = 4096
"""Latest samples that a worker's percentiles are of: no more are in one reading."""
PYTHON = "rest (Python, service, Redis)"
FULL, NEARLY = 0.95, 0.9
"""Shares of the cores at work from which on there is no CPU for another stream, and too little to make up
for a slow moment."""
SLACK = 0.1
"""The rest may fall below nothing by this share of the whole before it means starving."""
CUT = 1.001
"""A gap in force longer than the promised one by this factor has been stretched."""
GROWTH, FALL = 1.5, 0.25
"""The next number is so much larger than one that was kept, or smaller, by more after each that broke."""
NOISE_MB, UNSURE_MB = 30.0, 1.0
"""Two runs of one number of streams differ by so much memory; where that leaves a stream's share less certain
than the second, it is not judged."""
CLOSE = 0.03
"""The limit is found when the numbers that were kept and broken are this close, or next to each other."""


@dataclass(frozen=True, slots=True)
class Few:
    """What so many streams hold: enough of them to make every batch size and decoder be used."""

    streams: int
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Group:
    """What became of the streams of one priority: how many there are, how many were stretched at the end of
    the window and to which gap at most, the worst gap since the start, seconds of the window by fate."""

    priority: int
    streams: int
    cut: int
    gap_s: float
    worst_gap_s: float
    screened_s: float
    late_s: float
    dropped_s: float
    lost_s: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run came to. CPU in seconds over the window, ``ms`` a stream-second, ``cores`` ours,
    ``other_cores`` at work for others and the host, ``thread_cores`` of the busiest thread; memory in MB,
    ``memory_each_mb`` over the base, give or take ``memory_unsure_mb`` (None: few streams only). Latencies in
    ms are of those ``latency_of`` samples in a row of one worker whose 99th percentile was worst, or, with
    less than ``WORKER_WINDOW`` in the window, of the last. ``ready_s`` and ``warm_s`` passed before the
    window. ``segments`` were opened since the start, on ``flagged`` streams with something to flag;
    ``looks_refused`` closer looks in the window had no CPU."""

    streams: int
    seconds: float
    cpu_s: float
    cores: float
    ms: float
    used_s: dict[str, float]
    server_s: float
    other_cores: float
    thread_cores: float
    ready_s: float
    warm_s: float
    flagged: int
    segments: int
    looks_refused: int
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
    memory_unsure_mb: float | None
    plans: dict[str, int]
    groups: tuple[Group, ...]
    promises: tuple[Promise, ...]

    @property
    def screened(self) -> float:
        """Share of the window's stream-seconds that were screened, 0..1; 0 when none is accounted for."""
        screened_s = sum(one.screened_s for one in self.groups)
        all_s = screened_s + sum(one.late_s + one.dropped_s + one.lost_s for one in self.groups)
        return screened_s / all_s if all_s > 0 else 0.0

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return all(promise.kept for promise in self.promises)

    @property
    def broken(self) -> str:
        """The promises that were not kept, with what was seen."""
        return "; ".join(f"{promise.name}: {promise.said}" for promise in self.promises if not promise.kept)


def judge(window: Window, *, few: Few | None, lean: bool = False) -> Finding:
    """Judge a window. ``few`` is the memory of a run with few streams (None: not measured); ``lean``:
    the film is one for which memory is promised."""
    rows = window.after["streams"]
    count = len(rows)
    earlier = {row["id"]: row for row in window.before["streams"]}
    base_mb, each_mb = memory(window.memory_mb, count, few)
    unsure_mb = None if few is None or each_mb is None else NOISE_MB / (count - few.streams)
    latency, latency_of, with_start = _latency(window)
    drops: Counter[str] = Counter()
    for row in rows:
        drops += Counter(row["drops"]) - Counter(earlier[row["id"]]["drops"])
    between_s = window.after["time"] - window.before["time"]
    samples = sum(row["frames"] - earlier[row["id"]]["frames"] for row in rows)
    return Finding(
        streams=count,
        seconds=window.seconds,
        cpu_s=window.cpu_s,
        cores=window.cpu_s / window.seconds,
        ms=1e3 * window.cpu_s / (count * window.seconds),
        used_s=window.used,
        server_s=window.server_s,
        other_cores=max(0.0, (window.machine_s - window.cpu_s - window.server_s) / window.seconds),
        thread_cores=window.thread_s / window.seconds,
        ready_s=window.ready_s,
        warm_s=window.streams.warm_s,
        flagged=len(window.streams.flagged),
        segments=sum(row["segments"] for row in rows),
        looks_refused=sum(row["looks_refused"] - earlier[row["id"]]["looks_refused"] for row in rows),
        samples_a_second=samples / between_s if between_s else 0.0,
        worst_gap_s=max(map(worst_gap_s, rows)),
        p50_ms=latency["p50"],
        p99_ms=latency["p99"],
        latency_of=latency_of,
        latency_with_start=with_start,
        drops=dict(drops),
        lost_s=window.lost,
        memory_mb=window.memory_mb,
        memory_base_mb=base_mb,
        memory_each_mb=each_mb,
        memory_unsure_mb=unsure_mb,
        plans=dict(Counter(row["plan"] or row["state"] for row in rows)),
        groups=_groups(window, earlier),
        promises=promises(
            window,
            drops=drops,
            p99_ms=latency["p99"],
            base_mb=base_mb,
            each_mb=each_mb,
            lean=lean and unsure_mb is not None and unsure_mb <= UNSURE_MB,
        ),
    )


def memory(all_mb: float, count: int, few: Few | None) -> tuple[float | None, float | None]:
    """Base and MB a stream, from a run of ``count`` streams and one of fewer."""
    if few is None or count <= few.streams:
        return None, None
    each_mb = (all_mb - few.memory_mb) / (count - few.streams)
    return few.memory_mb - few.streams * each_mb, each_mb


def shares(ms: float, alone: Mapping[str, float]) -> dict[str, float]:
    """A stream-second's CPU ms by part: what each costs alone, and the rest. They add up to ``ms``."""
    return {**alone, PYTHON: ms - sum(alone.values())}


def stops(found: Finding, parts_ms: Mapping[str, float], cores: int) -> str:
    """One sentence: what stops the next stream. ``parts_ms`` are a stream-second's CPU by part."""
    busy = found.cores + found.other_cores + found.server_s / found.seconds
    part, most = max(parts_ms.items(), key=lambda share: share[1])
    at = f"{part} takes most, {most:.1f} of {found.ms:.1f} ms a stream-second"
    if min(parts_ms.values()) < -SLACK * found.ms:
        at = "they got less than their parts need"
    if not found.samples_a_second:
        return f"Nothing was screened, with {busy:.2f} of {cores} cores at work: no stream could be carried."
    if busy >= FULL * cores:
        return (
            f"What stops the next stream: the CPU is full, {busy:.2f} of {cores} cores at work, "
            f"{found.cores:.2f} of them for the streams; {at}."
        )
    if not found.kept and busy >= NEARLY * cores:
        return (
            f"A promise broke with {busy:.2f} of {cores} cores at work, on average: the CPU is so nearly "
            f"full that what one slow moment leaves behind is not made up for in time; {at}."
        )
    if not found.kept:
        return (
            f"A promise broke while {cores - busy:.2f} of {cores} cores were idle, so not for want of CPU; "
            f"the busiest thread of a worker used {found.thread_cores:.2f} of a core."
        )
    return (
        f"Nothing stops the next stream yet: {busy:.2f} of {cores} cores were at work. At {found.ms:.1f} ms "
        f"a stream-second {1e3 * cores / found.ms:.0f} streams fill {cores} cores; {at}."
    )


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
    if not good:  # nearby first: another machine's number is seldom far off
        return max(1, int(broken / (1.0 + FALL * len(tried))))
    return (good + broken) // 2


def limit(found: Sequence[Finding]) -> tuple[Finding | None, Finding | None]:
    """The run with most streams that kept every promise below the first that did not, and that one."""
    broken = min((one for one in found if not one.kept), key=lambda one: one.streams, default=None)
    kept = [one for one in found if one.kept and (broken is None or one.streams < broken.streams)]
    return max(kept, key=lambda one: one.streams, default=None), broken


def _latency(window: Window) -> tuple[dict[str, float | None], int, bool]:
    """The worst percentiles that a worker told of, of how many samples they are, whether some of these were
    taken before the window.

    Of each worker those readings count whose samples are all of the window; a worker that did not score so
    many in it has its last reading."""
    begun = {worker["id"]: worker["scored"] for worker in window.before["workers"]}
    whole = [
        worker
        for workers in (*window.workers, window.after["workers"])
        for worker in workers
        if worker["scored"] - begun.get(worker["id"], 0) >= WORKER_WINDOW
    ]
    told = {worker["id"] for worker in whole}
    rest = [worker for worker in window.after["workers"] if worker["id"] not in told]
    worst = max([*whole, *rest], key=lambda worker: worker["latency_ms"]["p99"] or 0.0)
    of = min(worst["scored"], WORKER_WINDOW)
    return worst["latency_ms"], of, worst["scored"] - begun.get(worst["id"], 0) < of


def _groups(window: Window, earlier: Mapping[str, dict[str, Any]]) -> tuple[Group, ...]:
    """The streams by priority, lowest first."""
    priority = {window.streams.id(at): window.streams.priority(at) for at in range(len(window.streams.urls))}
    found = []
    for one in sorted(set(priority.values())):
        rows = [row for row in window.after["streams"] if priority[row["id"]] == one]
        gaps = [row["gap_s"] for row in rows]
        fate = {
            name: sum(row["coverage"][name] - earlier[row["id"]]["coverage"][name] for row in rows)
            for name in ("screened_s", "late_s", "dropped_s", "lost_s")
        }
        cut = sum(gap > row["max_gap_s"] * CUT for gap, row in zip(gaps, rows, strict=True))
        found.append(Group(one, len(rows), cut, max(gaps), max(map(worst_gap_s, rows)), **fate))
    return tuple(found)
