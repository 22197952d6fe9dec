"""What ``bench streams`` found, as sentences, tables, plots and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.backends.software_contexts import UNFILTERED_WIDTH
from pipeline.bench import files, films, judge, parts, service
from pipeline.bench.judge import UNSURE_MB, Finding
from pipeline.bench.machine import cores
from pipeline.bench.material import Material
from pipeline.bench.parts import Parts
from pipeline.bench.peers import Cost
from pipeline.bench.report import Bars, Cell, Lines, Plot, Section, Table, film_table

OURS = "framewarden run"
WHOLE = 0.99
"""Share of the stream-seconds that must have been screened for costs to be compared."""
READING = {"realtime": "demux", "rtsp": "reading RTSP with libavformat"}
"""What the limit's first part is."""
QUIET = 0.1
"""Cores that others may use in a window that still counts as quiet."""


def section(
    found: Sequence[Finding],
    *,
    alone: Sequence[Parts],
    pictures_a_second: float,
    others: Sequence[Cost],
    kind: str,
    find_limit: bool,
    flagged: Material | None = None,
) -> Section:
    """``found`` are the runs in the order in which they were made; ``alone`` the parts as measured before and
    after them: the limit is their mean cost of so many screened ``pictures_a_second``. ``flagged`` is the
    film of the flagged streams."""
    best, broken = judge.limit(found)
    shown = best or found[-1]
    each = parts.mean(alone)
    needed = each.per_stream_second(pictures_a_second)
    limits_ms = [sum(one.per_stream_second(pictures_a_second).values()) for one in alone]
    limit_ms = sum(needed.values())
    shares = _shares(shown, each)
    says = [
        *_carried(best, broken, find_limit=find_limit),
        judge.stops(broken or shown, _shares(broken or shown, each), cores()),
        _window(shown),
        *_costs(shown, others, limit_ms, kind),
        *_turns(limits_ms),
        *([files.bound(shares)] if shown.screened >= WHOLE else []),
    ]
    if shown.flagged:
        says.append(
            f"{shown.flagged} of {shown.streams} streams showed something to flag for 10 s of each minute; "
            f"{shown.segments} segments were opened. Closer looks at them are in the rest; "
            f"{shown.looks_refused} were refused in the window, for want of CPU."
        )
    if kind == "rtsp":
        says.append(
            f"The RTSP server beside it used {shown.server_s / shown.seconds:.2f} cores, not counted above."
        )
    data: dict[str, Any] = {
        "kind": kind,
        "streams": shown.streams,
        "kept": shown.kept,
        "limit_streams": best.streams if find_limit and best else None,
        "stopped_by": broken.broken if find_limit and broken else None,
        "runs": [asdict(one) | {"kept": one.kept} for one in found],
        "limit": {
            "alone": asdict(each),
            "turns_ms": limits_ms,
            "ms_a_stream_second": needed,
            "total_ms": limit_ms,
            "ours_ms": shown.ms,
            "ours_times_limit": shown.ms / limit_ms,
            "streams": 1e3 * cores() / limit_ms,
        },
        "shares_ms": shares,
        "peers": [
            asdict(peer) | {"ms": peer.ms, "times_ours": peer.ms / shown.ms} for peer in others if peer.ran
        ],
        "says": says,
        **({"flagged_material": films.facts(flagged)} if flagged is not None else {}),
    }
    title = f"{shown.streams} live streams" + (" (RTSP)" if kind == "rtsp" else "")
    tables = [_promises(shown), _runs(found), *_groups(broken), _peers(shown, others, limit_ms)]
    tables += [film_table("flagged film", films.facts(flagged))] if flagged is not None else []
    return Section("streams", title, says, tables, data, _plots(found, shares, shown, others))


def _turns(limits_ms: Sequence[float]) -> list[str]:
    """What the limit was in each turn, if there were two."""
    if len(limits_ms) < 2:
        return ["Limit and peers were measured before the runs only."]
    before, after = limits_ms
    return [
        f"Before the runs the limit was {before:.1f} ms, after them {after:.1f}: "
        "the mean counts, and that of the peers."
    ]


def _shares(found: Finding, alone: Parts) -> dict[str, float]:
    """A stream-second's CPU ms by part, at the rate at which pictures were really screened."""
    return judge.shares(found.ms, alone.per_stream_second(found.samples_a_second / found.streams))


def _carried(best: Finding | None, broken: Finding | None, *, find_limit: bool) -> list[str]:
    if not find_limit:
        one = best or broken
        assert one is not None
        verdict = "every promise kept" if one.kept else f"NOT kept: {one.broken}"
        return [f"{one.streams} live streams for {one.seconds:.0f} s on {cores()} cores: {verdict}."]
    number = best.streams if best else 0
    if broken is None:
        return [f"{number} live streams kept every promise on {cores()} cores; more were not tried."]
    return [
        f"{number} live streams are the most that kept every promise on {cores()} cores.",
        f"{broken.streams} did not: {broken.broken}.",
    ]


def _window(shown: Finding) -> str:
    """What was counted and what was not, and whether the machine was ours alone."""
    quiet = shown.other_cores <= QUIET
    others = "" if quiet else ": the machine was NOT quiet, and alone the numbers would be better"
    return (
        f"Counted are {shown.seconds:.0f} s, after {shown.ready_s:.0f} s until every stream had a score and "
        f"{shown.warm_s:g} s of warm-up. Others and the host used {shown.other_cores:.2f} cores meanwhile"
        f"{others}."
    )


def _groups(broken: Finding | None) -> list[Table]:
    """Which streams were cut, how far, and what became of their seconds, when a promise broke."""
    if broken is None:
        return []
    titles = (
        *("priority", "streams", "cut at the end", "longest gap in force s", "worst gap s"),
        *("screened %", "late s", "dropped s", "lost s"),
    )
    rows: list[tuple[Cell, ...]] = []
    for one in broken.groups:
        lost = (one.late_s, one.dropped_s, one.lost_s)
        whole = one.screened_s + sum(lost)
        share = 100 * one.screened_s / whole if whole else None
        rows.append((one.priority, one.streams, one.cut, one.gap_s, one.worst_gap_s, share, *lost))
    return [Table(titles, rows, f"{broken.streams} streams by priority")]


def _costs(shown: Finding, others: Sequence[Cost], limit_ms: float, kind: str) -> list[str]:
    stream_seconds = shown.streams * shown.seconds
    by_process = ", ".join(f"{name} {1e3 * s / stream_seconds:.2f}" for name, s in shown.used_s.items())
    says = [
        f"{shown.streams} streams used {shown.cores:.2f} cores: {shown.ms:.1f} ms of CPU a stream-second, "
        f"{shown.ms / limit_ms:.2f} times the limit of {limit_ms:.1f} ms ({READING[kind]}, keyframes, "
        f"conversion and engine, each alone), at which {1e3 * cores() / limit_ms:.0f} streams would fill "
        f"{cores()} cores. "
        "The limit decodes keyframes as the service does: H.264 from "
        f"{UNFILTERED_WIDTH} pixels of width on is not deblocked; the peers deblock. "
        f"By process, ms a stream-second: {by_process}."
    ]
    if shown.memory_unsure_mb is not None:
        judged = "" if shown.memory_unsure_mb <= UNSURE_MB else ", too uncertain to judge"
        says.append(
            f"Memory: {shown.memory_base_mb:.0f} MB and {shown.memory_each_mb:.1f} MB a stream, "
            f"give or take {shown.memory_unsure_mb:.1f} MB{judged}."
        )
    if shown.screened < WHOLE:
        says.append(
            f"Only {100 * shown.screened:.1f} % of the stream-seconds were screened: what a stream-second "
            "cost here is not what it costs to keep the promise."
        )
    says += [
        f"The OpenCV loop uses {peer.ms / shown.ms:.1f} times the CPU."
        for peer in others
        if peer.ran and peer.name == "OpenCV loop" and shown.screened >= WHOLE
    ]
    return [*says, _latencies(shown)]


def _latencies(shown: Finding) -> str:
    """What the percentiles are of."""
    if shown.latency_of == judge.WORKER_WINDOW and not shown.latency_with_start:
        return (
            "p99, from capture to score, is the worst 99th percentile over any "
            f"{shown.latency_of} samples in a row, read every {service.READ_S:g} s; p50 is their median."
        )
    start = ", those of the start among them" if shown.latency_with_start else ""
    return f"Latencies are of the last {shown.latency_of} samples{start}."


def _promises(shown: Finding) -> Table:
    rows = [(one.name, "kept" if one.kept else "NOT KEPT", one.said) for one in shown.promises]
    return Table(("promise", "", "seen"), rows, f"Promises with {shown.streams} streams")


def _runs(found: Sequence[Finding]) -> Table:
    titles = (
        *("streams", "seconds", "cores", "ms a stream-second", "worst gap s", "p50 ms", "p99 ms"),
        *("dropped", "MB a stream", "promises"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            *(one.streams, one.seconds, one.cores, one.ms, one.worst_gap_s, one.p50_ms, one.p99_ms),
            *(sum(one.drops.values()), one.memory_each_mb, one.broken or "kept"),
        )
        for one in found
    ]
    return Table(titles, rows, "Runs")


def _peers(shown: Finding, others: Sequence[Cost], limit_ms: float) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (OURS, shown.ms, 1.0, f"{shown.streams} streams, all processes, after the start"),
        ("limit", limit_ms, limit_ms / shown.ms, "the parts, each alone"),
    ]
    rows += [
        (peer.name, peer.ms if peer.ran else None, peer.ms / shown.ms if peer.ran else None, peer.note)
        for peer in others
    ]
    return Table(("program", "ms a stream-second", "times ours", "what it does"), rows, "CPU side by side")


def _plots(
    found: Sequence[Finding], shares: dict[str, float], shown: Finding, others: Sequence[Cost]
) -> list[Plot]:
    stacked = tuple(max(0.0, share) for share in shares.values())
    rows = [(OURS, (shown.ms,)), *((peer.name, (peer.ms,)) for peer in others if peer.ran)]
    plots: list[Plot] = [
        Bars("CPU a stream-second", "ms", ("CPU",), rows),
        Bars("Where it goes", "ms", tuple(shares), [(OURS, stacked)]),
    ]
    if len(found) > 1:
        by_count = sorted(found, key=lambda one: one.streams)
        cores_used = [(float(one.streams), one.cores) for one in by_count]
        late = [(float(one.streams), (one.p99_ms or 0.0) / 1e3) for one in by_count]
        plots.append(
            Lines(
                "By number of streams",
                "streams",
                "cores, and seconds",
                ("cores used", "p99 s"),
                [cores_used, late],
            )
        )
    return plots
