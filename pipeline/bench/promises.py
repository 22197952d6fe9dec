"""What a run of live streams promises, and whether it was kept in a window. Pure arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.bench.service import Window
from pipeline.flow.sample import TOLERANCE

LATENCY_MS = 1000.0
"""99th percentile from capture to score."""
BOUNDARY_S = 0.25
"""How far from the truth a boundary may be, unless its event says that it is less certain."""
LEAN_MB, BASE_MB = 8.0, 400.0
"""A live stream of ordinary film, and a worker with all that belongs to the service."""
ROUNDED_S = 0.01  # a snapshot's seconds are rounded


@dataclass(frozen=True, slots=True)
class Promise:
    """``said`` is what was seen, in words."""

    name: str
    kept: bool
    said: str


def promises(
    window: Window,
    *,
    drops: Mapping[str, int],
    p99_ms: float | None,
    base_mb: float | None,
    each_mb: float | None,
    lean: bool,
) -> tuple[Promise, ...]:
    """Every promise, judged. ``drops`` are pictures by cause in the window; memory is judged if ``lean``
    (it is promised for this film, and certain enough) and all streams were up."""
    rows = window.after["streams"]
    earlier = {row["id"]: row for row in window.before["streams"]}
    up = _all_up(rows)
    return (
        up,
        _gaps(rows, earlier, window.lost),
        Promise("nothing dropped", not drops, _counts(drops) or "nothing was"),
        _quick(p99_ms),
        _workers(window),
        _accounted(window),
        *_flagged(window, rows),
        *(_lean(base_mb, each_mb, len(window.after["workers"])) if lean and up.kept else []),
    )


def worst_gap_s(row: Mapping[str, Any]) -> float:
    """The longest gap of a stream so far, one that still lasts included."""
    now = row["gap_now_s"] or 0.0
    return max(row["gap_worst_s"] or 0.0, now if _lasts(now, row["max_gap_s"]) else 0.0)


def _lasts(gap_s: float, max_gap_s: float) -> bool:
    """Whether it is too late for a sample that keeps the gap: its score may be as late as is promised."""
    return gap_s > max_gap_s * TOLERANCE + LATENCY_MS / 1e3


def _all_up(rows: list[dict[str, Any]]) -> Promise:
    down = [row["id"] for row in rows if row["state"] != "screening" or not row["frames"]]
    said = f"{len(down)} of {len(rows)} are not: {', '.join(down[:5])}" if down else f"all {len(rows)}"
    return Promise("every stream screened", not down, said)


def _gaps(
    rows: list[dict[str, Any]], earlier: Mapping[str, dict[str, Any]], lost: Mapping[str, float]
) -> Promise:
    """A gap in the window that was not kept leaves seconds that were not screened, or the worst gap rises, or
    it still lasts at the end. A stream of which no worker has spoken has nothing but a gap."""
    bad, worst = [], 0.0
    for row in rows:
        then, most = earlier[row["id"]], row["max_gap_s"] * TOLERANCE
        before, now = (
            sum(at["coverage"][name] for name in ("late_s", "dropped_s", "lost_s")) for at in (then, row)
        )
        gap, gap_then = row["gap_worst_s"] or 0.0, then["gap_worst_s"] or 0.0
        rose = gap > most + ROUNDED_S and gap > gap_then
        lasts = row["gap_now_s"] is None or _lasts(row["gap_now_s"], row["max_gap_s"])
        if now - before > ROUNDED_S or rose or lasts:
            bad.append(row["id"])
            worst = max(worst, worst_gap_s(row))
    name = f"every gap at most {max(row['max_gap_s'] for row in rows) * TOLERANCE:g} s"
    if not bad:
        return Promise(
            name, True, f"worst {max(row['gap_worst_s'] or 0.0 for row in rows):.2f} s since the start"
        )
    why = f" (seconds by cause: {_counts(lost)})" if lost else ""
    return Promise(name, False, f"{worst:.2f} s; on {len(bad)} streams: {', '.join(bad[:5])}{why}")


def _quick(p99_ms: float | None) -> Promise:
    said = "no sample was scored" if p99_ms is None else f"{p99_ms:.0f} ms"
    return Promise("99 % from capture to score under 1 s", p99_ms is not None and p99_ms < LATENCY_MS, said)


def _workers(window: Window) -> Promise:
    before, after = (
        sum(worker["restarts"] for worker in at["workers"]) for at in (window.before, window.after)
    )
    return Promise("no worker died", after == before, f"{after - before} restarts")


def _accounted(window: Window) -> Promise:
    """Every stream said at the end what became of each of its seconds."""
    accounts, count = window.accounts, len(window.streams.urls)
    wrong = sorted(name for name, account in accounts.items() if not account.adds_up)
    silent = count - len(accounts)
    said = f"on all {count} streams" if not wrong and not silent else f"{silent} of {count} gave no account"
    if wrong:
        said += f"; wrong on {len(wrong)}: {', '.join(wrong[:5])}"
    return Promise("screened, late, dropped and lost add up", not wrong and not silent, said)


def _flagged(window: Window, rows: list[dict[str, Any]]) -> list[Promise]:
    """Where there is something to flag it was flagged, elsewhere nothing was."""
    streams = window.streams
    if not streams.flagged:
        return []
    meant = {streams.id(place) for place in streams.flagged}
    raised = {row["id"] for row in rows if row["segments"]}
    said = f"{len(meant & raised)} of {len(meant)} flagged, {len(raised - meant)} others"
    return [
        Promise("every flagged stream raised a segment, no other did", meant == raised, said),
        *_boundaries(window),
    ]


def _boundaries(window: Window) -> list[Promise]:
    """How far the boundaries of the segments are from when there was something to flag."""
    shown = window.streams.shown
    if shown is None or not window.ended:
        return []
    off, unsure = list[float](), list[float]()
    for one in window.ended:
        off += shown.off_s(one.start_s, one.end_s)
        unsure += one.start_uncertainty_s, one.end_uncertainty_s
    close = sum(off_s <= BOUNDARY_S for off_s in off)
    wrong = sum(
        off_s > max(BOUNDARY_S, unsure_s) + ROUNDED_S for off_s, unsure_s in zip(off, unsure, strict=True)
    )
    said = f"{close} of {len(off)} are so near, the farthest {max(off):.2f} s; {wrong} farther than they say"
    return [Promise(f"every boundary within {BOUNDARY_S:g} s, or as uncertain as it says", not wrong, said)]


def _lean(base_mb: float | None, each_mb: float | None, workers: int) -> list[Promise]:
    if base_mb is None or each_mb is None:
        return []
    most = BASE_MB * workers
    return [
        Promise(f"at most {LEAN_MB:g} MB a stream", each_mb <= LEAN_MB, f"{each_mb:.1f} MB"),
        Promise(f"a base of at most {BASE_MB:g} MB a worker", base_mb <= most, f"{base_mb:.0f} MB"),
    ]


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{cause} {count:g}" for cause, count in sorted(counts.items()))
