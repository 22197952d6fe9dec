"""Every stream of a run, wherever it is: waiting, on a worker, leaving one, or set apart."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any

import structlog

from pipeline import inputs
from pipeline.config import Config, Stream
from pipeline.events import Event
from pipeline.outbox import OutboxError, Progress
from pipeline.service import plan
from pipeline.service.health import DEATHS, FILE_DEATHS, RETRY_S, WINDOW_S
from pipeline.service.jobs import Job
from pipeline.service.keeper import Keeper
from pipeline.service.messages import Item
from pipeline.service.orders import Add, Done
from pipeline.service.records import Records
from pipeline.service.state import failed_event

START_S = 0.25
"""CPU seconds that are set apart for the start of a live stream. On a slow core it takes half of that: the
index of a ten-minute film (46 ms), one keyframe (35), its scores (32). The rest is for those that run."""
START_GPU_S = 0.2
"""Seconds that are set apart for each on a GPU: to open a decoder keeps the driver busy for 60 to 90 ms (an
H200), in which it does nothing else."""
MOST_APART_S = 2.0
"""Two live streams do not wait longer than this for each other, however long their gap may be."""


class Roster:
    """Jobs by their numbers, and those that wait for a worker."""

    def __init__(self, config: Config, records: Records, jobs: Iterable[Job], *, gpus: int = 0) -> None:
        self.config = config
        self._gpus = gpus
        self.jobs = {job.number: job for job in jobs}
        self.queue: deque[Job] = deque(self.jobs.values())
        self._records = records
        self._next = max(self.jobs, default=0) + 1
        self._opened_s = float("-inf")  # when the live stream that was told last will open
        self._past = 0  # segments of streams that have left
        self._log = structlog.get_logger()

    @property
    def flagged(self) -> int:
        """Segments found so far."""
        return self._past + sum(job.segments for job in self.jobs.values())

    def job(self, stream: str) -> Job | None:
        """The job of this stream id."""
        return next((job for job in self.jobs.values() if job.stream.id == stream), None)

    def heard(self, event: Event) -> None:
        """A worker's event was accepted."""
        job = self.job(event.stream) if event.rev == 1 else None
        if job is not None:
            job.segments += 1

    # ---- coming and going ---------------------------------------------------------------------------------

    def enter(self, stream: Stream) -> None:
        """A new stream waits for a worker; one of the same id that is leaving goes first."""
        leaving = self.job(stream.id)
        if leaving is not None:
            leaving.successor = stream
            return
        self._enqueue(Job(self._next, stream, plan.kind_of(stream)))

    def _enqueue(self, job: Job) -> None:
        self._next = job.number + 1
        self.jobs[job.number] = job
        self.queue.append(job)

    def finished(self, done: Done) -> None:
        """A worker is through with a stream."""
        job = self.jobs.get(done.number)
        if job is None:
            return
        if job.leaving is not None:
            self._gone(job, done.ledger)
            return
        job.done, job.failed = True, done.failed
        if done.status:
            job.status = done.status
        elif done.failed is not None:
            self.fail(job, done.failed)

    def fail(self, job: Job, why: str) -> None:
        """It cannot be screened."""
        job.done, job.failed = True, why
        self._records.accept([failed_event(self.config, job.stream, job.kind, why)])

    def retire(self, job: Job) -> None:
        """It leaves, maybe for its successor, and no worker will say so."""
        if job in self.queue:
            self.queue.remove(job)
        ledger = None
        if job.keeper is not None and job.leaving == "policy_change" and job.kind == "live":
            ledger = job.keeper.ledger()
        elif job.leaving != "policy_change":
            self.settle(job)
        self._gone(job, ledger)

    def settle(self, job: Job) -> None:
        """Close the account of a stream that has no worker."""
        if job.keeper is not None:
            self._records.accept(job.keeper.end())
        elif job.kind == "live" and not job.done:
            lost_s = job.worker_lost_s or time.monotonic()
            keeper = self._keep(job, lost_s, "its worker was lost")
            self._records.accept(keeper.end())
            job.status = {**job.status, **keeper.row(), "number": job.number, "state": "lost"}

    def _gone(self, job: Job, ledger: dict[str, Any] | None) -> None:
        """Its number is free; a successor comes in."""
        del self.jobs[job.number]
        successor, goes_on = job.successor, job.leaving == "policy_change" and job.successor is not None
        if successor is not None and goes_on:
            same = dataclasses.replace(job, number=self._next, stream=successor, told=False, leaving=None)
            same.successor, same.keeper, same.ledger = None, None, ledger or job.ledger
            self._enqueue(same)
            return
        if ledger is not None:  # it was to go on, and then it was not
            job.ledger = ledger
            self._records.accept(self._keep(job, time.monotonic(), "removed").end())
        self._past += job.segments
        self._forget(job.stream.id)
        if successor is not None:
            self._enqueue(Job(self._next, successor, plan.kind_of(successor)))

    def _forget(self, stream: str, item: str = "") -> None:
        """How far it got is of no use any more."""
        try:
            self._records.outbox.forget(stream, item)
        except OutboxError as error:
            self._log.warning("outbox.refused", why=str(error))

    # ---- workers that die ---------------------------------------------------------------------------------

    def lost(self, job: Job, now: float) -> None:
        """Its worker has died."""
        job.told = False
        job.worker_lost_s = now
        self._records.close_open(job.stream.id)

    def blame(self, job: Job, file: Item | None, now: float) -> bool:
        """It, or this file of it, was being decoded when its worker died; True when that was once too often,
        and it is set apart."""
        job.deaths.add(now)
        if file is not None and job.kind == "file" and inputs.is_many(job.stream.url):
            self._blame_file(job, file, now)
        if job.deaths.recent(now) < DEATHS:
            return False
        why = f"its decoder ended {DEATHS} workers within {WINDOW_S / 60:.0f} minutes"
        job.keeper = self._keep(job, now, f"{why}; tried again in {RETRY_S / 60:.0f} minutes, or on reload")
        job.retry_at = now + RETRY_S
        self._log.error("stream.quarantined", stream=job.stream.id, why=why)
        self._records.accept(job.keeper.quarantine())
        return True

    def _blame_file(self, job: Job, file: Item, now: float) -> None:
        """One file of several crashes: it fails by itself before the stream is set apart for it."""
        job.file_deaths[file] += 1
        if job.file_deaths[file] != FILE_DEATHS:
            return
        why = f"{file.path}: its decoder crashed the worker twice"
        self._log.error("file.left_out", stream=job.stream.id, why=why)
        self._records.accept(self._keep(job, now, why, file).fail_file(file.path))
        self._forget(job.stream.id, file.path)

    def _keep(self, job: Job, since: float, reason: str, file: Item | None = None) -> Keeper:
        quarantined = file is not None or job.deaths.recent(since) >= DEATHS
        seen = str(job.status.get("item") or "") if job.kind == "file" else ""
        item = seen if file is None else file.path
        return Keeper(
            job.stream,
            job.kind,
            self.config,
            start_clock_s=job.start_clock_s,
            since=since,
            cause="quarantined" if quarantined else "worker_lost" if job.worker_lost_s else "disconnected",
            reason=reason,
            ledger=self._ledger(job),
            progress=self._progress(job, item) if item else None,
            duration_s=job.status.get("duration_s") if item == seen else None,
            segments=job.segments,
        )

    def release(self, job: Job) -> None:
        """Try a quarantined stream again."""
        keeper, job.keeper = job.keeper, None
        job.ledger = keeper.ledger() if keeper is not None else None
        job.worker_lost_s = None
        job.deaths.times.clear()
        job.status = {}
        self._log.info("stream.released", stream=job.stream.id)
        self.queue.append(job)

    def quarantined(self) -> list[Job]:
        """The jobs that are set apart."""
        return [job for job in self.jobs.values() if job.keeper is not None]

    def tick(self, now: float) -> None:
        """Time passes for what waits: for the disk, or in quarantine."""
        self._records.flush()
        for job in self.quarantined():
            assert job.keeper is not None
            if now >= job.retry_at:
                self.release(job)
            elif not self._records.error:
                self._records.accept(job.keeper.tick())

    # ---- orders -------------------------------------------------------------------------------------------

    def order(self, job: Job) -> Add | None:
        """The order that starts a job, or makes it go on where it stopped; None while older events of it wait
        for the disk."""
        if self._records.blocked(job.stream.id):
            return None
        if job.open_at_s is None:
            job.open_at_s = self._opening_s(job)
        return Add(
            job.number,
            job.stream,
            job.kind,
            job.start_clock_s,
            job.open_at_s,
            self._ledger(job),
            job.worker_lost_s,
            job.segments,
            frozenset(file for file, deaths in job.file_deaths.items() if deaths >= FILE_DEATHS),
        )

    def _opening_s(self, job: Job) -> float:
        """When to open, in monotonic seconds. Live streams start one after the other, evenly over one gap or
        as many as their starts need; of those that come together, none at the same moment of the gap as
        another: their keyframes then stay apart. Nothing else waits."""
        now = time.monotonic()
        if job.kind != "live":
            return now
        live = sum(other.kind == "live" for other in self.jobs.values())
        gap_s = min(self.config.sampling_of(job.stream).max_gap_s, MOST_APART_S)
        start_s = max(START_S / plan.cores(), START_GPU_S / self._gpus if self._gpus else 0.0)
        gaps = math.ceil(live * start_s / gap_s)
        places = next(number for number in count(live) if math.gcd(gaps, number) == 1)
        self._opened_s = max(now, self._opened_s + gaps * gap_s / places)
        return self._opened_s

    def _ledger(self, job: Job) -> dict[str, Any] | None:
        """How far a live stream's account got: as recorded, or as handed over, whichever saw more."""
        if job.kind != "live":
            return None
        progress = self._progress(job, "")
        recorded = progress.ledger if progress is not None else None
        if job.ledger is None or recorded is None:
            return job.ledger or recorded
        return recorded if recorded["last_clock_s"] > job.ledger["last_clock_s"] else job.ledger

    def _progress(self, job: Job, item: str) -> Progress | None:
        try:
            return self._records.outbox.progress(job.stream.id, item)
        except OutboxError as error:
            self._log.warning("outbox.refused", why=str(error))
            return None
