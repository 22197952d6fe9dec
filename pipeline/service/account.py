"""A stream's seconds and counts: what its status and its last event say."""

from collections import Counter, deque
from typing import Any

from pipeline.events import Totals
from pipeline.flow.coverage import Accounted, Cause, CoverageLedger, Gap
from pipeline.flow.source import Kind
from pipeline.service.messages import Begin, End
from pipeline.service.order import Verdict

LATENCIES = 512


class Account:
    """Every sample, drop and loss of one stream, over all its sessions.

    A live stream has one ledger on the monotonic clock from ``start_clock_s`` on, a file one for each session
    on its own media time. ``ledger`` goes on where a dead worker stopped, that died at ``worker_lost_s``."""

    def __init__(
        self,
        kind: Kind,
        max_gap_s: float,
        stale_s: float,
        *,
        start_clock_s: float,
        ledger: dict[str, Any] | None,
        worker_lost_s: float | None,
    ) -> None:
        self.frames = 0
        self.segments = 0
        self.drops: Counter[str] = Counter()
        self.last_scored_s: float | None = None
        self.item_segments = 0
        self._kind: Kind = kind
        self._live = kind == "live"
        self._max_gap_s = max_gap_s
        self._stale_s = stale_s
        self._started = start_clock_s
        self._past = Accounted(0.0, 0.0, 0.0, 0.0)  # of the files before this one
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._latency_ms: dict[str, float | None] | None = None  # of them, once it was asked for
        self._ledger = self._open(start_clock_s, ledger) if self._live else self._open(0.0, None)
        if self._live and worker_lost_s is not None:
            self._ledger.mark("worker_lost", worker_lost_s)

    def _open(self, start: float, restore: dict[str, Any] | None) -> CoverageLedger:
        return CoverageLedger(
            max_gap_s=self._max_gap_s, kind=self._kind, start_clock_s=start, restore=restore
        )

    def begin(self, begin: Begin) -> None:
        """A session has opened."""
        self.item_segments = begin.segments
        self.last_scored_s = begin.resumed_s
        if self._live:
            self._ledger.session(begin.clock_s)
        else:
            self._ledger = self._open(0.0, begin.ledger)

    def sample(self, verdict: Verdict, *, stretched: bool) -> list[Gap]:
        """A sample has been scored or dropped; the gap that it ends, if that one was not kept.

        ``stretched``: the next one will come later than promised, for overload."""
        sample = verdict.sample
        clock_s = sample.arrived if self._live else sample.time_s
        if verdict.dropped:
            self.drops["overload"] += 1
            self._ledger.mark("overload", clock_s)
            return []
        waited = max(0.0, verdict.scored_at - sample.arrived)
        late = self._live and waited > self._stale_s
        self.drops["late"] += late
        if self._live:
            self._latencies.append(waited)
            self._latency_ms = None
        self.frames += 1
        self.last_scored_s = sample.time_s
        gaps = self._ledger.scored(sample.time_s, clock_s, late=late)
        if stretched and not late:
            self._ledger.mark("overload", clock_s)
        return gaps

    def published(self, segments: int) -> None:
        """That many segments were opened."""
        self.segments += segments
        self.item_segments += segments

    def lost(self, cause: Cause, clock_s: float) -> None:
        """What comes after ``clock_s`` is lost for this cause, until the next sample."""
        self.drops["corrupt"] += cause == "corrupt"
        self._ledger.mark(cause, clock_s)

    def pass_time(self, now: float) -> list[Gap]:
        """The part of a lasting gap of a live stream that is due to be reported."""
        return self._ledger.tick(now) if self._live else []

    def end_file(self, begin: Begin, end: End) -> tuple[list[Gap], Totals]:
        """A file has been read: to its end, or as far as it goes.

        It ends where its header says, or where reading ended when that is later. What the header promised is
        lost when the file broke off, or when there is less of it than a last picture may stand for."""
        promised = begin.info.duration_s or 0.0
        read = end.time_s + (1.0 / float(begin.info.frame_rate) if begin.info.frame_rate else 0.0)
        broken = end.cause is not None or promised - read > self._max_gap_s / 2
        duration = max(promised, read)
        gaps = self._ledger.end(duration, cut_s=read if broken else None)
        totals = Totals(duration, *self._ledger.totals, self.item_segments)
        self._past = self._so_far()
        self._ledger = self._open(0.0, None)
        return gaps, totals

    def end_live(self, clock_s: float) -> tuple[list[Gap], Totals]:
        """A live stream is given up."""
        gaps = self._ledger.end(clock_s)
        return gaps, Totals(clock_s - self._started, *self._ledger.totals, self.segments)

    def snapshot(self) -> dict[str, Any]:
        """The ledger, to go on from in another process."""
        return self._ledger.snapshot()

    def status(self, clock_s: float) -> dict[str, Any]:
        """The stream's numbers in the status snapshot; ``clock_s`` is now, or a file's position."""
        names = ("screened_s", "late_s", "dropped_s", "lost_s")
        if self._latency_ms is None:
            self._latency_ms = latency_ms(self._latencies)
        return {
            "gap_now_s": round(self._ledger.gap_now(clock_s), 3),
            "gap_worst_s": round(self._ledger.gap_worst, 3),
            "frames": self.frames,
            "segments": self.segments,
            "drops": {cause: count for cause, count in self.drops.items() if count},
            "coverage": {name: round(s, 3) for name, s in zip(names, self._so_far(), strict=True)},
            "latency_ms": self._latency_ms,
        }

    def _so_far(self) -> Accounted:
        return Accounted(*(past + now for past, now in zip(self._past, self._ledger.totals, strict=True)))


def latency_ms(latencies: "deque[float]") -> dict[str, float | None]:
    """Median and 99th percentile (nearest rank) of capture to score, in milliseconds; None without a
    sample."""
    if not latencies:
        return {"p50": None, "p99": None}
    ranked, last = sorted(latencies), len(latencies) - 1
    return {
        name: round(ranked[round(last * share)] * 1e3, 1) for name, share in (("p50", 0.5), ("p99", 0.99))
    }
