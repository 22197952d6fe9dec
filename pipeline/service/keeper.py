"""A stream that no worker has: its seconds go on being counted, and said."""

import time
from typing import Any

from pipeline.config import Config, Stream
from pipeline.events import Event, Totals
from pipeline.flow.coverage import Cause, CoverageLedger
from pipeline.flow.source import Kind
from pipeline.outbox import Progress
from pipeline.service.account import Account
from pipeline.service.report import Reporter


class Keeper:
    """Has a stream's account while it is quarantined, or closes it for a worker that cannot.

    ``since`` is when its worker died, ``ledger`` how far the account of a live stream was recorded.
    ``progress`` and ``duration_s`` are of the file that was being screened, if any was."""

    def __init__(
        self,
        stream: Stream,
        kind: Kind,
        config: Config,
        *,
        start_clock_s: float,
        since: float,
        cause: Cause,
        reason: str,
        ledger: dict[str, Any] | None = None,
        progress: Progress | None = None,
        duration_s: float | None = None,
        segments: int = 0,
    ) -> None:
        self.reason = reason
        self._live = kind == "live"
        self._max_gap_s = config.sampling_of(stream).max_gap_s
        self._cause: Cause = cause
        self._progress = progress
        self._duration_s = duration_s
        self._report = Reporter(stream, kind, config)
        self._account = Account(
            kind,
            self._max_gap_s,
            config.batch.stale_s,
            start_clock_s=start_clock_s,
            ledger=ledger if self._live else None,
            worker_lost_s=None,
        )
        self._account.published(segments)
        if self._live:
            self._account.lost(cause, since)

    def quarantine(self) -> list[Event]:
        """It is set apart from now on."""
        self._report.state("quarantined", time.time(), self.reason)
        return self._report.collect().events

    def tick(self) -> list[Event]:
        """What is due to be said of a gap that lasts."""
        now = time.monotonic()
        self._report.gaps(self._account.pass_time(now), now, time.time())
        return self._report.collect().events

    def ledger(self) -> dict[str, Any] | None:
        """The account of a live stream, to go on from."""
        return self._account.snapshot() if self._live else None

    def end(self, reason: str = "shutdown") -> list[Event]:
        """It will not go on in this run: the gap so far, and what a live stream came to."""
        now, unix = time.monotonic(), time.time()
        if self._live:
            gaps, totals = self._account.end_live(now)
            self._report.gaps(gaps, now, unix)
            self._report.state("ended", unix, reason, totals)
        elif self._progress is not None and self._duration_s is not None:
            self._end_file(self._progress, self._duration_s, unix)
        return self._report.collect().events

    def fail_file(self, path: str) -> list[Event]:
        """This file of several is given up; the stream goes on."""
        unix, totals = time.time(), None
        self._report.session(None, path)
        if self._progress is not None and self._duration_s is not None:
            totals = self._end_file(self._progress, self._duration_s, unix)
        self._report.state("failed", unix, self.reason, totals)
        return self._report.collect().events

    def _end_file(self, progress: Progress, duration_s: float, unix: float) -> Totals:
        """What is left of a file is not screened."""
        ledger = CoverageLedger(
            max_gap_s=self._max_gap_s, kind="file", start_clock_s=0.0, restore=progress.ledger
        )
        ledger.mark(self._cause, progress.last_scored_s or 0.0)
        self._report.session(progress.session, progress.item)
        self._report.gaps(ledger.end(duration_s), 0.0, unix)
        return Totals(duration_s, *ledger.totals, progress.segments)

    def row(self) -> dict[str, Any]:
        """What it adds to the stream's row of the status."""
        state = {"state": "quarantined", "reason": self.reason, "open_segments": 0}
        return {**state, **(self._account.status(time.monotonic()) if self._live else {})}
