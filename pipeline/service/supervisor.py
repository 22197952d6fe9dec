"""Starts workers, gives them streams, restarts a dead one, and keeps the status snapshot.

Workers are spawned, never forked, and end when their supervisor does: each reads a pipe whose other end only
the supervisor holds. The outbox file is shared; its one publisher is a thread here."""

import contextlib
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import structlog

from pipeline.backends import registry
from pipeline.config import Config
from pipeline.errors import ModelError
from pipeline.events import Event
from pipeline.outbox import Outbox
from pipeline.service import plan, worker
from pipeline.service.jobs import Hand, Job
from pipeline.service.orders import Add, Done, WorkerPlan
from pipeline.service.state import OnEvent, close_left_open, failed_event

SPAWN = multiprocessing.get_context("spawn")
LOOK_S = 0.25
RESTART_FIRST_S = 0.5
RESTART_MOST_S = 5.0


class Supervisor:
    """Runs jobs on workers until all have ended, a time is over, or it is told to stop."""

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        device: registry.Device,
        *,
        jobs: list[Job],
        one_by_one: bool,
        on_event: OnEvent,
    ) -> None:
        self.config = config
        self.jobs = {job.number: job for job in jobs}
        self.restarts = 0
        self._outbox = outbox
        self._device = device
        self._one_by_one = one_by_one
        self._on_event = on_event
        self._log = structlog.get_logger()
        self._queue: deque[Job] = deque(jobs)
        count = plan.worker_count(config, len(jobs))
        self._cores = max(1, plan.cores() // count)
        self._share = self._cores + 1 if one_by_one else len(jobs)
        self.each = min(self._share, -(-len(jobs) // count))
        self.hands = [Hand(number) for number in range(count)]

    def run(self, stop: threading.Event, *, until: Callable[[], bool], tick: Callable[[], None]) -> None:
        """Carry on until ``until`` is true or ``stop`` is set, then bring every worker home."""
        try:
            for hand in self.hands:
                self._start(hand)
            while not stop.is_set() and not until():
                self._give_out()
                self._listen(LOOK_S)
                self._mend()
                tick()
        finally:
            self._bring_home(tick)

    @property
    def flagged(self) -> int:
        """Segments found so far, by jobs that have ended and by those that go on."""
        return sum(job.segments if job.done else job.status.get("segments", 0) for job in self.jobs.values())

    # ---- workers ------------------------------------------------------------------------------------------

    def _start(self, hand: Hand) -> None:
        ours, theirs = SPAWN.Pipe()
        live = sum(job.kind == "live" for job in self.jobs.values())
        orders = WorkerPlan(
            number=hand.number,
            config=self.config,
            models=plan.models_in_use(self.config),
            device=self._device,
            cores=self._cores,
            slots=plan.slots(self.config, self.each),
            live_slots=min(-(-live // len(self.hands)), self.each),
            outbox=self._outbox.path,
        )
        hand.process = SPAWN.Process(
            target=worker.main, args=(orders, theirs), name=f"framewarden-worker-{hand.number}", daemon=True
        )
        hand.process.start()
        theirs.close()
        hand.pipe, hand.ready, hand.started = ours, False, time.monotonic()

    def _mend(self) -> None:
        """Start what has died again, after a pause that grows with each death."""
        now = time.monotonic()
        for hand in self.hands:
            if hand.process is not None and not hand.process.is_alive():
                self._bury(hand)
            if hand.process is None and now >= hand.restart_at and (hand.jobs or self._queue):
                self._start(hand)

    def _bury(self, hand: Hand) -> None:
        """A worker is dead: settle its streams in the outbox and plan its return."""
        self._hear(hand)
        process, hand.process, hand.ready = hand.process, None, False
        if hand.pipe is not None:
            hand.pipe.close()
            hand.pipe = None
        if hand.refused is not None:
            raise ModelError(hand.refused)
        assert process is not None
        code = process.exitcode
        process.close()
        hand.restarts += 1
        self.restarts += 1
        if time.monotonic() - hand.started > 60:
            hand.restarts = 1
        hand.restart_at = time.monotonic() + min(RESTART_MOST_S, RESTART_FIRST_S * 2 ** (hand.restarts - 1))
        self._log.error("worker.died", worker=hand.number, exit_code=code, streams=len(hand.jobs))
        for job in list(hand.jobs.values()):
            close_left_open(self._outbox, job.stream.id, self._on_event)
            job.worker_lost_s = time.monotonic()
            if self._one_by_one:
                self._suspect(hand, job)

    def _suspect(self, hand: Hand, job: Job) -> None:
        """Which file killed the worker is unknown: each goes on alone, and one that kills it again has
        failed."""
        del hand.jobs[job.number]
        if job.suspect:
            job.done, job.failed = True, "its decoder crashed the worker twice"
            self._tell_failed(job)
        else:
            job.suspect = True
            self._queue.append(job)

    def _tell_failed(self, job: Job) -> None:
        event = failed_event(self.config, job.stream, job.kind, job.failed or "")
        self._outbox.accept([event], now=time.time())
        self._on_event(event)

    def _bring_home(self, tick: Callable[[], None]) -> None:
        """Tell all to stop; kill what has not ended within ``shutdown_s``."""
        for hand in self.hands:
            hand.tell("stop")
        until = time.monotonic() + self.config.shutdown_s + 2
        while time.monotonic() < until and any(
            h.process is not None and h.process.is_alive() for h in self.hands
        ):
            self._listen(0.1)
            tick()
        for hand in self.hands:
            if hand.process is None:
                continue
            if hand.process.is_alive():
                self._log.error(
                    "worker.killed", worker=hand.number, why=f"did not stop within {self.config.shutdown_s} s"
                )
                hand.process.kill()
            hand.process.join()
            self._hear(hand)
            for job in hand.jobs.values():
                close_left_open(self._outbox, job.stream.id, self._on_event)
        for hand in self.hands:
            if hand.refused is not None:
                raise ModelError(hand.refused)

    # ---- jobs ---------------------------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Give waiting jobs to the workers with the fewest; a suspect is given only to an idle one."""
        for _ in range(len(self._queue)):
            job = self._queue[0]
            hand = min(self.hands, key=lambda h: (len(h.jobs), h.number))
            alone = job.suspect or any(other.suspect for other in hand.jobs.values())
            if len(hand.jobs) >= (1 if alone else self._share):
                return
            self._queue.popleft()
            hand.jobs[job.number] = job
            if hand.ready:
                hand.tell(self._order(job))

    def _order(self, job: Job) -> Add:
        """The order that starts a job, or makes it go on where a dead worker left it."""
        if job.start_clock_s is None:
            job.start_clock_s = time.monotonic()
        progress = self._outbox.progress(job.stream.id) if job.kind == "live" else None
        ledger = progress.ledger if progress else None
        return Add(job.number, job.stream, job.kind, job.start_clock_s, ledger, job.worker_lost_s)

    # ---- messages -----------------------------------------------------------------------------------------

    def _listen(self, timeout: float) -> None:
        """Hear what workers say for up to ``timeout`` seconds."""
        pipes = {hand.pipe: hand for hand in self.hands if hand.pipe is not None}
        if not pipes:
            time.sleep(timeout)
            return
        for pipe in wait(list(pipes), timeout):
            self._hear(pipes[pipe])  # type: ignore[index]

    def _hear(self, hand: Hand) -> None:
        with contextlib.suppress(EOFError, ConnectionResetError, OSError):
            while hand.pipe is not None and hand.pipe.poll():
                self._obey(hand, hand.pipe.recv())

    def _obey(self, hand: Hand, message: Any) -> None:
        match message:
            case ("event", str(body)):
                self._on_event(Event.from_json(body))
            case ("status", dict(said)):
                hand.status = said
                for row in said["streams"]:
                    job = self.jobs[row["number"]]
                    if not job.done:  # the last word on a job came with Done
                        job.status = row
            case ("ready", int()):
                hand.ready = True
                for job in hand.jobs.values():
                    hand.tell(self._order(job))
            case ("refused", str(why)):
                hand.refused = why
            case Done():
                job = self.jobs[message.number]
                job.done, job.failed, job.segments, job.status = (
                    True,
                    message.failed,
                    message.segments,
                    message.status,
                )
                hand.jobs.pop(message.number, None)
