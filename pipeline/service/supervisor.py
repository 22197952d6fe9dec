"""Starts workers, gives them streams, restarts a dead or wedged one, and follows a new config.

Workers are spawned, never forked, and end when their supervisor does. The outbox file is shared; its one
publisher is a thread here."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import structlog

from pipeline.backends import registry
from pipeline.config import Config, Stream
from pipeline.errors import ModelError
from pipeline.events import Event
from pipeline.flow.segment import EndReason
from pipeline.outbox import Outbox
from pipeline.service import plan
from pipeline.service.change import Change
from pipeline.service.hand import Death, Hand
from pipeline.service.health import WEDGED_S, stuck
from pipeline.service.jobs import Job
from pipeline.service.memory import Trimmer
from pipeline.service.orders import Done, Remove, Settings, WorkerPlan
from pipeline.service.placement import lend, place, returning, suspect
from pipeline.service.records import Records
from pipeline.service.roster import Roster
from pipeline.service.state import OnEvent

LOOK_S = 0.25
HELD_UP_S = 3.0
"""When a round of this process took longer, nobody's silence means anything for a while."""
SPARE = 8
"""Streams a worker for which there are slots beyond those that it has at the start: a reload may add some."""


class Supervisor:
    """Runs jobs on workers until all have ended, a time is over, or it is told to stop.

    ``one_by_one``: files to be screened once, a few at a time; else every stream is on a worker at once."""

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        device: registry.Device,
        *,
        jobs: Sequence[Job],
        one_by_one: bool,
        on_event: OnEvent,
        gpus: Sequence[str] = (),
    ) -> None:
        self.config = config
        self._outbox = outbox
        self._device = device
        self._gpus = tuple(gpus)
        self._one_by_one = one_by_one
        self._on_event = on_event
        self._log = structlog.get_logger()
        self._records = Records(outbox, on_event)
        self.roster = Roster(config, self._records, jobs, gpus=len(gpus))
        count = plan.worker_count(config, len(jobs), len(gpus))
        self._cores = max(1, plan.cores() // count)
        self._share = self._cores + 1 if one_by_one else math.inf
        each = len(jobs) if gpus else -(-len(jobs) // count)  # one GPU may have to do for all
        self.each = min(self._cores + 1, each) if one_by_one else each + SPARE
        self.hands: list[Hand] = []
        self._engage(count)
        self._looked = time.monotonic()
        self.stopping = False

    def run(self, stop: threading.Event, *, until: Callable[[], bool], tick: Callable[[], None]) -> None:
        """Carry on until ``until`` is true or ``stop`` is set, then bring every worker home."""
        memory = Trimmer(time.monotonic())
        try:
            for hand in self.hands:
                self._start(hand)
            while not stop.is_set() and not until():
                self._give_out()
                self._listen(LOOK_S)
                self._mend()
                self.roster.tick(time.monotonic())
                memory.step(time.monotonic())
                tick()
        finally:
            try:
                self._bring_home(tick)
            finally:
                for hand in self.hands:
                    hand.kill()

    @property
    def error(self) -> str:
        """Why the outbox takes nothing from this process now."""
        return self._records.error

    # ---- workers ------------------------------------------------------------------------------------------

    def _engage(self, count: int) -> None:
        """Have ``count`` workers, each with a GPU of its own if there are any."""
        for number in range(len(self.hands), count):
            self.hands.append(
                Hand.idle(number, plan.at_once(self._cores), self._gpus[number] if self._gpus else "")
            )

    def _start(self, hand: Hand) -> None:
        jobs = [job for job in self.roster.jobs.values() if job.kind == "live"]
        spare = 0 if self._one_by_one else SPARE
        each = max(self.each, len(hand.jobs))
        live = max(-(-len(jobs) // len(self.hands)), sum(job.kind == "live" for job in hand.jobs.values()))
        hand.start(
            WorkerPlan(
                number=hand.number,
                config=self.config,
                models=plan.models_in_use(self.config),
                device=self._device,
                cores=self._cores,
                slots=plan.slots(self.config, each),
                live_slots=min(live + spare, each),
                outbox=self._outbox.path,
                board=hand.board,
                crash=self._outbox.path.with_name(f"worker-{hand.number}.crash"),
                gpu=hand.gpu,
                once=self._one_by_one,
            )
        )

    def _mend(self) -> None:
        """Kill what is wedged; start what has died again, after a pause that grows with each death."""
        now = time.monotonic()
        held_up, self._looked = now - self._looked > HELD_UP_S, now
        for hand in self.hands:
            if held_up:
                hand.pulse.grace = now + WEDGED_S
            why = hand.check(now)
            if why is not None:
                self._log.error("worker.wedged", worker=hand.number, why=why)
            if hand.died:
                self._hear(hand)
                self._bury(hand, hand.bury(now), now)
            needed = hand.jobs or self.roster.queue or (hand.failing and not self._one_by_one)
            if hand.process is None and now >= hand.restart_at and needed:
                self._start(hand)

    def _bury(self, hand: Hand, death: Death, now: float) -> None:
        """A worker is dead: settle its streams, and find out which of them may have killed it.

        :raises ModelError: it refuses to start."""
        if hand.refused is not None and not hand.served:
            raise ModelError(hand.refused)
        blamed = (stuck(death.marks, now) if hand.wedged else death.blamed()) & set(hand.jobs)
        self._log.error(
            "worker.died",
            worker=hand.number,
            why=hand.why,
            where=death.where,
            streams=len(hand.jobs),
            decoding=[hand.jobs[number].stream.id for number in sorted(blamed)],
            restart_in_s=round(hand.restart_at - now, 1),
        )
        for job in list(hand.jobs.values()):
            self.roster.lost(job, now)
            if job.leaving is not None:
                self._retire(hand, job)
            elif self._one_by_one:
                suspect(hand, job, blamed, self.roster)
            elif job.number in blamed and self.roster.blame(job, hand.file_of(job.number), now):
                del hand.jobs[job.number]
        if hand.jobs and not hand.pulse.ready and any(other.ready for other in self.hands):
            self._log.error("worker.taken_over", worker=hand.number, streams=len(hand.jobs))
            lend(hand, self.roster)

    def _retire(self, hand: Hand, job: Job) -> None:
        del hand.jobs[job.number]
        self.roster.retire(job)

    def _bring_home(self, tick: Callable[[], None]) -> None:
        """Tell all to stop; kill what has not ended in its part of ``shutdown_s``; close every account."""
        self.stopping = True
        for hand in self.hands:
            hand.tell("stop")
        until = time.monotonic() + plan.kill_s(self.config)
        while time.monotonic() < until and any(hand.alive for hand in self.hands):
            self._listen(0.1)
            tick()
        for hand in self.hands:
            if hand.alive:
                self._log.error("worker.killed", worker=hand.number, why="did not stop in time")
            hand.kill()
            self._hear(hand)
            for job in list(hand.jobs.values()):
                self._records.close_open(job.stream.id)
                if not self._one_by_one:
                    self.roster.settle(job)
        for job in list(self.roster.queue) + self.roster.quarantined():
            self.roster.settle(job)
        for hand in self.hands:
            if hand.refused is not None and not hand.served:
                raise ModelError(hand.refused)

    # ---- jobs ---------------------------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Give waiting jobs to workers, and tell those that are ready."""
        queue = self.roster.queue
        while queue and (hand := place(queue[0], self.hands, self._share)) is not None:
            job = queue.popleft()
            hand.jobs[job.number] = job
        for hand in self.hands:
            for job in list(hand.jobs.values()) if hand.ready else ():
                self._tell(hand, job)

    def _tell(self, hand: Hand, job: Job) -> None:
        order = None if job.told or job.leaving else self.roster.order(job)
        if order is None:
            return
        self._inform(hand)
        hand.tell(order)
        job.told = True

    def _inform(self, hand: Hand) -> None:
        if hand.config is not self.config:
            hand.config = self.config
            hand.tell(Settings(self.config))

    # ---- a new config -------------------------------------------------------------------------------------

    def follow(self, change: Change) -> None:
        """A new config: its streams come, go and change; the others are not touched."""
        self.config = self.roster.config = change.config
        for hand in self.hands:
            if hand.ready:
                self._inform(hand)  # first: it loads new models while it still screens as before
        for name in change.removed:
            self._leave(name, "shutdown", None)
        for stream in change.replaced:
            self._leave(stream.id, "shutdown", stream)
        for stream in change.rescreened:
            self._leave(stream.id, "policy_change", stream)
        for stream in change.added:
            self.roster.enter(stream)
        for job in self.roster.quarantined():
            self.roster.release(job)
        count = plan.worker_count(self.config, len(self.roster.jobs), len(self._gpus))
        if count > len(self.hands):
            self._cores = max(1, plan.cores() // count)
            self._engage(count)

    def _leave(self, stream: str, reason: EndReason, successor: Stream | None) -> None:
        """Take a stream from its worker; ``successor`` comes in its place."""
        job = self.roster.job(stream)
        if job is None:
            if successor is not None:
                self.roster.enter(successor)
            return
        if job.done and reason == "policy_change" and successor is not None:
            job.stream = successor  # it has ended, and is not screened again for it
            return
        on_its_way = job.leaving is not None
        job.successor = successor
        job.leaving = "shutdown" if "shutdown" in (reason, job.leaving) else reason
        if on_its_way:
            return
        hand = next((hand for hand in self.hands if job.number in hand.jobs), None)
        if hand is not None and hand.ready and job.told:
            hand.tell(Remove(job.number, reason))
        elif hand is not None:
            self._retire(hand, job)
        else:
            self.roster.retire(job)

    # ---- messages -----------------------------------------------------------------------------------------

    def _listen(self, timeout: float) -> None:
        """Hear what workers say for up to ``timeout`` seconds."""
        pipes = {hand.pipe: hand for hand in self.hands if hand.pipe is not None and not hand.silent}
        if not pipes:
            time.sleep(timeout)
            return
        for pipe in wait(list(pipes), timeout):
            self._hear(pipes[pipe])  # type: ignore[index]

    def _hear(self, hand: Hand) -> None:
        for message in hand.messages():
            self._obey(hand, message)

    def _obey(self, hand: Hand, message: Any) -> None:
        match message:
            case ("event", str(body)):
                event = Event.from_json(body)
                self.roster.heard(event)
                self._on_event(event)
            case ("status", dict(said)):
                for row in said["streams"]:
                    job = self.roster.jobs.get(row["number"])
                    if job is not None and not job.done:  # the last word on a job came with Done
                        job.status = row
            case ("ready", int()):
                word = "worker.back" if hand.restarts else "worker.ready"
                self._log.info(word, worker=hand.number, after_s=round(hand.absent_s, 2))
                for stream in returning(hand, self.roster):
                    self._leave(stream.id, "policy_change", stream)
            case Done():
                hand.jobs.pop(message.number, None)
                self.roster.finished(message)
