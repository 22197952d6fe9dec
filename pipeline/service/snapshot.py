"""What a run says of itself, put together from its workers: for the live table, ``status`` and probes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pipeline import status
from pipeline.config import Config
from pipeline.service.hand import Hand
from pipeline.service.jobs import Job
from pipeline.service.outbox_watch import OutboxWatch
from pipeline.service.publisher import Publisher
from pipeline.service.reload import Reloader
from pipeline.service.report import context_of
from pipeline.service.supervisor import Supervisor

WRITE_S = 2.0
SHOW_S = 1.0
PAGE = os.sysconf("SC_PAGE_SIZE")

log = structlog.get_logger(__name__)


class Snapshot:
    """Built on each ``tick``: shown once a second, written to ``state_dir`` every 2 s (without a publisher:
    never)."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        publisher: Publisher | None,
        *,
        device: tuple[str, str],
        bounds: list[str],
        on_status: Callable[[dict[str, Any]], None],
        reloader: Reloader | None = None,
    ) -> None:
        self._config = config
        self._supervisor = supervisor
        self._publisher = publisher
        self._device = device
        self._bounds = bounds
        self._on_status = on_status
        self._reloader = reloader
        self._watch = OutboxWatch(publisher.outbox) if publisher is not None else None
        self._unwritten = ""
        self._started = time.time()
        self._shown = self._written = -WRITE_S
        self.last: dict[str, Any] = {}

    def tick(self) -> None:
        """Show and write what is due."""
        now = time.monotonic()
        if now - self._shown >= SHOW_S:
            self._shown = now
            self.show("running")
        if self._publisher is not None and now - self._written >= WRITE_S:
            self._written = now
            self._write()

    def show(self, state: str) -> None:
        """Build the snapshot anew and hand it on."""
        self.last = self._build(state)
        self._on_status(self.last)

    def write(self, state: str) -> None:
        """The last word of a run."""
        self.show(state)
        self._write()

    def _write(self) -> None:
        """Replace the file; a full disk is no reason to end, its age says that something is wrong."""
        why = ""
        try:
            status.write(self._config.state_dir, self.last)
        except OSError as error:
            why = str(error)
            if not self._unwritten:
                log.warning("status.unwritten", why=why)
        self._unwritten = why

    def _build(self, state: str) -> dict[str, Any]:
        outbox = self._outbox()
        return {
            "version": status.VERSION,
            "time": time.time(),
            "pid": os.getpid(),
            "node": self._config.node,
            "device": self._device[0],
            "device_reason": self._device[1],
            "started": self._started,
            "state": state,
            "redis": self._redis(),
            "outbox": outbox,
            "workers": [self._worker(hand) for hand in self._supervisor.hands],
            "streams": [self._stream(job) for job in self._supervisor.roster.jobs.values()],
            "bounds": self._bounds,
            "config": dict(self._reloader.said) if self._reloader is not None else {},
        }

    def _redis(self) -> dict[str, Any]:
        if self._publisher is None or self._watch is None:
            return {"state": "none", "url": "", "error": "", "pending": 0, "delivered": 0}
        said, counts = self._publisher.state, self._watch.counts
        return {
            "state": said.state,
            "url": said.url,
            "error": said.error or "",
            "pending": counts.pending,
            "delivered": counts.delivered,
        }

    def _outbox(self) -> dict[str, Any]:
        if self._watch is None:
            return {"state": "none", "error": "", "bytes": 0, "max_bytes": 0}
        workers = (str(hand.status.get("outbox_error", "")) for hand in self._supervisor.hands)
        return self._watch.look([self._supervisor.error, *workers])

    def _worker(self, hand: Hand) -> dict[str, Any]:
        said = hand.status
        pid = hand.process.pid if hand.process is not None else None
        return {
            "id": hand.number,
            "gpu": hand.gpu,
            "pid": pid,
            "state": hand.state,
            "streams": len(hand.jobs),
            "why": hand.why,
            "restarts": hand.restarts,
            "rss_mb": rss_mb(pid),
            "cpu_s": said.get("cpu_s", 0.0),
            "models": list(said.get("engines", {})),
            "engine": ", ".join(dict.fromkeys(said.get("engines", {}).values())),
            "batches": said.get("batches", 0),
            "scored": said.get("scored", 0),
            "load_shed": said.get("load_shed", 0.0),
            "latency_ms": said.get("latency_ms", {"p50": None, "p99": None}),
        }

    def _stream(self, job: Job) -> dict[str, Any]:
        row = self._unknown(job) | job.status
        if job.keeper is not None:
            return row | job.keeper.row()
        if job.status and not (job.told or job.done or self._supervisor.stopping):
            return row | {"state": "waiting", "reason": "its worker is started again", "open_segments": 0}
        return row

    def _unknown(self, job: Job) -> dict[str, Any]:
        """A stream that no worker has spoken of yet."""
        gap_s = self._supervisor.config.sampling_of(job.stream).max_gap_s
        return {
            "number": job.number,
            "id": job.stream.id,
            "tenant": job.stream.tenant,
            "url": context_of(job.stream, job.kind, self._supervisor.config).url,
            "kind": job.kind,
            "state": "failed" if job.failed else "waiting",
            "reason": job.failed or "",
            "plan": "",
            "why": "",
            "gap_s": gap_s,
            "max_gap_s": gap_s,
            "gap_now_s": None,
            "gap_worst_s": None,
            "frames": 0,
            "segments": 0,
            "open_segments": 0,
            "shorter": 0,
            "item": "",
            "position_s": 0.0,
            "duration_s": None,
            "size": "",
            "codec": "",
            "fps": None,
            "gop_s": None,
            "drops": {},
            "decoder": "",
            "damaged": 0,
            "held_bytes": 0,
            "looks_refused": 0,
            "audits_refused": 0,
            "coverage": {"screened_s": 0.0, "late_s": 0.0, "dropped_s": 0.0, "lost_s": 0.0},
            "reconnects": 0,
            "latency_ms": {"p50": None, "p99": None},
        }


def rss_mb(pid: int | None) -> float | None:
    """Resident memory of a process in MB; None when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return None
    return round(int(pages) * PAGE / 1e6, 1)
