"""One process that owns some streams, one device, the engines and the whole flow.

    reader threads (one a stream) ──frames──▶ inference thread ──recordings──▶ recorder thread ──▶ outbox

The main thread takes the supervisor's orders and sends it a heartbeat. The worker ends when its supervisor
does."""

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pipeline.errors import Closed, FramewardenError
from pipeline.outbox import Outbox, OutboxError
from pipeline.service.account import latency_ms
from pipeline.service.admission import Admission
from pipeline.service.crew import Channel, Crew
from pipeline.service.engine import Engine
from pipeline.service.lead import Budget, Lead
from pipeline.service.messages import LookSample, Message, Sample
from pipeline.service.orders import Add, Done, Remove, WorkerPlan
from pipeline.service.reader import Reader
from pipeline.service.report import Recording
from pipeline.service.retry import HostGate
from pipeline.service.session import Desk
from pipeline.service.stream import StreamScreen

HEARTBEAT_S = 0.5
TURN_S = 0.25
RECORD_S = 1.0
OUTBOX_RETRY_S = 1.0
FILE_LEAD = 3
"""Samples that a file's reader may be ahead of what was decided about them."""
LOOK_SHARE = 0.2
"""Share of the cores that closer looks at live streams may take."""
M_ARENA_MAX = -8  # malloc.h


class Worker:
    """The flow of one process."""

    def __init__(self, plan: WorkerPlan, send: Callable[[Any], None]) -> None:
        self.plan = plan
        self._send = send
        self._engines = {name: Engine(name, plan) for name in plan.models}
        self._ready: Channel[tuple[int, Message]] = Channel()  # the pools' slots are its bound
        self._records: Channel[tuple[Recording, list[Done]]] = Channel(size=256)
        self._outbox = Outbox(plan.outbox, **plan.config.outbox_limits())
        self._screens: dict[int, StreamScreen] = {}
        self._stops: dict[int, threading.Event] = {}
        self._admission = Admission(plan.device, plan.cores)
        self._gate = HostGate()
        self._budget = Budget(plan.cores, LOOK_SHARE)
        self._latencies: deque[float] = deque(maxlen=4096)
        self._status: list[dict[str, Any]] = []
        self._beat = time.monotonic()
        self._recorded = time.monotonic()
        self._outbox_error = ""
        self._given_up = threading.Event()
        self._latency = latency_ms(self._latencies)
        self._batches = 0
        self._scored = 0

    # ---- main thread --------------------------------------------------------------------------------------

    def run(self, orders: Connection) -> None:
        """Obey the supervisor until it says stop or is gone."""
        stop = threading.Event()
        with Crew(stop, self._ready, self._records, *self._engines.values()) as crew:
            crew.start(self._record, name="recorder")
            crew.start(self._infer, name="inference")
            self._send(("ready", os.getpid()))
            self._obey(orders, crew)
            for event in list(self._stops.values()):
                event.set()
            self._drain(crew)

    def _obey(self, orders: Connection, crew: Crew) -> None:
        while not crew.failed.is_set():
            if orders.poll(HEARTBEAT_S):
                try:
                    order = orders.recv()
                except EOFError:
                    return
                match order:
                    case Add():
                        self._add(order, crew)
                    case Remove():
                        if order.number in self._stops:
                            self._stops[order.number].set()
                    case "stop":
                        return
            self._heartbeat()

    def _drain(self, crew: Crew) -> None:
        """Wait until every reader has said goodbye and all that it sent is recorded."""
        until = time.monotonic() + self.plan.config.shutdown_s
        while self._screens and time.monotonic() < until and not crew.failed.is_set():
            self._heartbeat()
            crew.failed.wait(0.05)
        self._ready.close()
        crew.join(max(0.5, until - time.monotonic()))
        self._given_up.set()
        self._heartbeat()

    def _heartbeat(self) -> None:
        usage = os.times()
        self._send(
            (
                "status",
                {
                    "streams": self._status,
                    "beat": self._beat,
                    "cpu_s": usage.user + usage.system,
                    "batches": self._batches,
                    "scored": self._scored,
                    "latency_ms": self._latency,
                    "outbox_error": self._outbox_error,
                    "engines": {n: e.model.info.engine for n, e in self._engines.items()},
                },
            )
        )

    def _add(self, order: Add, crew: Crew) -> None:
        stop, number = threading.Event(), order.number
        names = sorted(
            self.plan.config.models_of(order.stream)
        )  # sorted: two files never wait for each other
        desk = Desk(
            number=number,
            live=order.kind == "live",
            send=lambda message: self._ready.send((number, message)),
            pools={name: self._engines[name].pool for name in names},
            admission=self._admission,
            lead=Lead(None if order.kind == "live" else FILE_LEAD),
            budget=self._budget,
            stop=stop,
        )
        reader = Reader(order.stream, self.plan.config, desk, gate=self._gate, outbox=self._outbox)
        models = {name: self._engines[name].model for name in names}
        self._screens[number] = StreamScreen(order, self.plan.config, models, desk.position, desk.lead)
        self._stops[number] = stop
        crew.start(reader.run, name=f"reader {order.stream.id}")

    # ---- inference thread ---------------------------------------------------------------------------------

    def _infer(self) -> None:
        """Batch, score, decide: the one thread that touches the engines and the policy."""
        looked = 0.0
        try:
            while True:
                closed = self._take_messages()
                now = time.monotonic()
                for name, engine in self._engines.items():
                    while engine.batcher.due(now) == 0 or (closed and engine.batcher.due(now) is not None):
                        self._score(name, engine, now)
                        now = time.monotonic()
                self._decide(now)
                if now - looked >= HEARTBEAT_S or closed:
                    self._status = [screen.status(now) for screen in list(self._screens.values())]
                    self._latency = latency_ms(self._latencies)
                    looked = now
                self._beat = now
                if closed:
                    return
        finally:
            self._records.close()

    def _take_messages(self) -> bool:
        """Sort what the readers sent; True when they have all ended."""
        now = time.monotonic()
        dues = [due for engine in self._engines.values() if (due := engine.batcher.due(now)) is not None]
        try:
            arrived = self._ready.receive_all(min([TURN_S, *dues]))
        except Closed:
            return True
        for number, message in arrived:
            self._screens[number].results.push(message)
            if isinstance(message, Sample | LookSample):
                for model, frame in message.frames.items():
                    if frame is not None:
                        self._engines[model].batcher.put(frame, now)
        return False

    def _score(self, name: str, engine: Engine, now: float) -> None:
        batch, stale = engine.batcher.take(now)
        for frame in stale:
            self._screens[frame.stream].results.dropped(frame.sample, name)
        if not batch.frames:
            return
        with batch:
            scores = engine.classifier.infer(batch.pixels)
        done = time.monotonic()
        self._batches += 1
        self._scored += len(batch.frames)
        for frame, row in zip(batch.frames, scores, strict=True):
            self._screens[frame.stream].results.scored(frame.sample, name, row, done)
            if frame.live:
                self._latencies.append(done - frame.arrived)

    def _decide(self, now: float) -> None:
        """Let every stream take its turn and hand what it wants kept to the recorder."""
        unix = time.time()
        recording, done = Recording(), []
        due = now - self._recorded >= RECORD_S
        for number, screen in list(self._screens.items()):
            screen.turn(now, unix)
            recording.add(screen.collect(progress=due))
            if screen.gone is not None:
                done.append(Done(number, screen.gone.failed, screen.segments, screen.status(now)))
                self._stops.pop(number, None)
        if due:
            self._recorded = now
        if recording or done:
            self._records.send((recording, done))
        for one in done:
            del self._screens[one.number]

    # ---- recorder thread ----------------------------------------------------------------------------------

    def _record(self) -> None:
        """One transaction for all that waits; only then is it said to have happened."""
        while True:
            try:
                parts = self._records.receive_all(None)
            except Closed:
                return
            whole = Recording()
            for recording, _ in parts:
                whole.add(recording)
            self._accept(whole)
            for event in whole.events:
                self._send(("event", event.body))
            for _, done in parts:
                for one in done:
                    self._send(one)

    def _accept(self, whole: Recording) -> None:
        """Put it into the outbox, trying for as long as it takes: what is flagged is not given up for a full
        disk.

        Meanwhile recordings pile up to their bound, then inference waits, and live frames are dropped and
        counted."""
        while True:
            try:
                self._outbox.accept(
                    whole.events, now=time.time(), progress=whole.progress, finished=whole.finished
                )
            except OutboxError as error:
                self._outbox_error = str(error)
                if self._given_up.wait(OUTBOX_RETRY_S):
                    raise
            else:
                self._outbox_error = ""
                return


def main(plan: WorkerPlan, pipe: Connection) -> None:
    """Entry of the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all; the supervisor decides
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            pipe.send(message)

    # Many reader threads: without a bound glibc keeps up to 2 MB of freed surfaces for each of them.
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    try:
        worker = Worker(plan, send)
    except FramewardenError as error:
        send(("refused", str(error)))
        return
    worker.run(pipe)
