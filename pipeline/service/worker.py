"""One process that owns some streams, one device, the engines and the whole flow.

    reader threads (one a stream) ──frames──▶ inference thread ──recordings──▶ recorder thread ──▶ outbox

The main thread takes the supervisor's orders, a fourth one sends it a heartbeat: so the orders are always
read, and neither of the two ever waits for the other. The worker ends when its supervisor does."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from pipeline.config import Config
from pipeline.errors import Closed, FramewardenError
from pipeline.outbox import Outbox
from pipeline.service.account import latency_ms
from pipeline.service.admission import Admission, Turns
from pipeline.service.ahead import Ahead
from pipeline.service.crew import Channel, Crew, contained
from pipeline.service.engine import Engine
from pipeline.service.lead import Budget, Lead
from pipeline.service.marks import Marks
from pipeline.service.messages import LookSample, Message, Sample
from pipeline.service.orders import Add, Done, Remove, Settings, WorkerPlan
from pipeline.service.overload import Overload
from pipeline.service.plan import drain_s, models_in_use
from pipeline.service.process import ORPHANED
from pipeline.service.reader import Reader
from pipeline.service.recorder import Recorder
from pipeline.service.report import Recording
from pipeline.service.retry import HostGate
from pipeline.service.session import Desk, Position
from pipeline.service.stream import StreamScreen

HEARTBEAT_S = 0.5
TURN_S = 0.25
FILE_LEAD = 6
"""Samples that a file's reader may be ahead of what was decided about them."""
LOOK_SHARE = 0.2
"""Share of the cores that closer looks at live streams may take."""


class Worker:
    """The flow of one process."""

    def __init__(self, plan: WorkerPlan, send: Callable[[Any], None]) -> None:
        self.plan = plan
        self._config = plan.config
        self._send = send
        self._engines = {name: Engine(name, plan) for name in plan.models}
        self._ready: Channel[tuple[int, Message]] = Channel()  # the pools' slots are its bound
        self._outbox = Outbox(plan.outbox, **plan.config.outbox_limits())
        self._recorder = Recorder(self._outbox, send)
        self._screens: dict[int, StreamScreen] = {}
        self._stops: dict[int, threading.Event] = {}
        self._turns = Turns(plan.cores, Marks(plan.board))
        self._ahead = Ahead(plan.cores if plan.device == "cpu" else 1)
        self._gate = HostGate(plan.outbox.with_name("connects.lock"))
        picture_s = max((engine.picture_s for engine in self._engines.values()), default=0.0)
        self._budget = Budget(plan.cores, LOOK_SHARE, picture_s)
        self._latencies: deque[float] = deque(maxlen=4096)
        self._status: list[dict[str, Any]] = []
        self._beat = time.monotonic()
        self._loads = False
        self._turned = time.monotonic()
        self._touched: set[int] = set()  # streams with a new message or score
        self._silent = threading.Event()
        self._latency = latency_ms(self._latencies)
        self._overload = Overload(plan.config.batch.stale_s, time.monotonic())
        self._batches = 0
        self._scored = 0

    # ---- main thread --------------------------------------------------------------------------------------

    def run(self, orders: Connection) -> None:
        """Obey the supervisor until it says stop; end at once when it is gone."""
        stop = threading.Event()
        with Crew(stop, self._ready, self._recorder, self) as crew:
            crew.start(self._recorder.run, name="recorder")
            crew.start(self._infer, name="inference")
            for number in range(self._ahead.threads):
                crew.start(self._ahead.run, name=f"ahead {number}")
            self._send(("ready", os.getpid()))
            crew.start(self._pulse, name="pulse")
            self._obey(orders, crew)
            for event in list(self._stops.values()):
                event.set()
            self._drain(crew)

    def close(self) -> None:
        """Wake every thread that waits for a slot or for work, for good."""
        self._ahead.close()
        for engine in self._engines.values():
            engine.close()

    def _obey(self, orders: Connection, crew: Crew) -> None:
        while not crew.failed.is_set():
            if not orders.poll(HEARTBEAT_S):
                continue
            try:
                order = orders.recv()
            except (EOFError, ConnectionResetError):
                os._exit(ORPHANED)  # its successor closes what is open
            match order:
                case Add():
                    self._add(order, crew)
                case Remove():
                    self._remove(order)
                case Settings():
                    self._follow(order.config)
                case "stop":
                    return

    def _drain(self, crew: Crew) -> None:
        """Wait until every reader has said goodbye and all that it sent is recorded."""
        until = time.monotonic() + drain_s(self._config)
        while self._screens and time.monotonic() < until and not crew.failed.is_set():
            crew.failed.wait(0.05)
        self._ready.close()
        self._silent.set()
        self._ahead.close()
        crew.join(max(0.5, until - time.monotonic()))
        self._recorder.give_up()
        self._heartbeat()

    # ---- pulse thread -------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        while not self._silent.wait(HEARTBEAT_S):
            self._heartbeat()

    def _heartbeat(self) -> None:
        usage = os.times()
        self._send(
            (
                "status",
                {
                    "streams": self._status,
                    "beat": self._beat,
                    "busy": self._recorder.waits or self._loads,
                    "cpu_s": usage.user + usage.system,
                    "batches": self._batches,
                    "scored": self._scored,
                    "latency_ms": self._latency,
                    "load_shed": round(self._overload.shed, 3),
                    "outbox_error": self._recorder.error,
                    "engines": {n: e.model.info.engine for n, e in self._engines.items()},
                },
            )
        )

    def _add(self, order: Add, crew: Crew) -> None:
        stop, number = threading.Event(), order.number
        names = sorted(self._config.models_of(order.stream))  # sorted: two files never wait for each other
        try:
            self._load(names)
        except FramewardenError as error:
            self._send(Done(number, str(error), order.segments, {}))
            return
        position = Position(self._config.sampling_of(order.stream).max_gap_s)
        instead = partial(setattr, position, "decoder") if self._config.device == "auto" else None
        desk = Desk(
            number=number,
            live=order.kind == "live",
            send=lambda message: self._ready.send((number, message)),
            pools={name: self._engines[name].pool for name in names},
            admission=Admission(self.plan.device, self._turns, number, instead=instead),
            ahead=self._ahead,
            lead=Lead(None if order.kind == "live" else FILE_LEAD),
            budget=self._budget,
            stop=stop,
            position=position,
        )
        reader = Reader(
            order.stream,
            self._config,
            desk,
            gate=self._gate,
            outbox=self._outbox,
            open_at_s=order.open_at_s,
            once=self.plan.once,
        )
        models = {name: self._engines[name].model for name in names}
        self._screens[number] = StreamScreen(order, self._config, models, desk.position, desk.lead)
        self._stops[number] = stop
        crew.start(reader.run, name=f"reader {order.stream.id}")

    def _follow(self, config: Config) -> None:
        """Load the models that a new config brings, while the old ones go on scoring; then go by it."""
        with contextlib.suppress(FramewardenError):  # the streams that want such a model will say so
            self._load(models_in_use(config))
        for engine in self._engines.values():
            engine.follow(config)
        self._config = config

    def _load(self, names: Iterable[str]) -> None:
        """Open the models that a reload brought. :raises ModelError, BackendError: one cannot be used."""
        for name in names:
            if name not in self._engines:
                self._loads = True
                try:
                    self._engines = {**self._engines, name: Engine(name, self.plan)}
                finally:
                    self._loads = False

    def _remove(self, order: Remove) -> None:
        screen, stop = self._screens.get(order.number), self._stops.get(order.number)
        if screen is not None and stop is not None:
            screen.stop_reason = order.reason
            stop.set()

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
                self._overload.step(now, list(self._screens.values()))
                self._budget.closed = self._overload.shed > 0.0
                if now - looked >= HEARTBEAT_S or closed:
                    self._status = [screen.status(now) for screen in list(self._screens.values())]
                    self._latency = latency_ms(self._latencies)
                    self._ahead.paused = any(screen.share for screen in list(self._screens.values()))
                    looked = now
                self._beat = now
                if closed:
                    return
        finally:
            self._recorder.close()

    def _take_messages(self) -> bool:
        """Sort what the readers sent; True when they have all ended."""
        now = time.monotonic()
        dues = [due for engine in self._engines.values() if (due := engine.batcher.due(now)) is not None]
        try:
            arrived = self._ready.receive_all(min([TURN_S, *dues]))
        except Closed:
            return True
        self._beat = now
        for number, message in arrived:
            frames = message.frames if isinstance(message, Sample | LookSample) else {}
            if number not in self._screens:  # it was given up; its reader has not heard yet
                for unwanted in frames.values():
                    if unwanted is not None:
                        unwanted.release()
                continue
            self._screens[number].results.push(message)
            self._touched.add(number)
            for model, frame in frames.items():
                self._overload.dropped(frame is None)
                if frame is not None:
                    self._engines[model].batcher.put(frame, now)
        return False

    def _score(self, name: str, engine: Engine, now: float) -> None:
        batch, stale = engine.batcher.take(now)
        self._overload.dropped(len(stale))
        for frame in stale:
            if frame.stream in self._screens:  # else a closer look, given up, of a stream that has left
                self._screens[frame.stream].results.dropped(frame.sample, name)
                self._touched.add(frame.stream)
        if not batch.frames:
            return
        with batch:
            scores = engine.classifier.infer(batch.pixels)
        done = self._beat = time.monotonic()
        self._batches += 1
        self._scored += len(batch.frames)
        for frame, row in zip(batch.frames, scores, strict=True):
            if frame.stream in self._screens:
                self._screens[frame.stream].results.scored(frame.sample, name, row, done)
                self._touched.add(frame.stream)
            if frame.live:
                self._latencies.append(max(0.0, done - frame.arrived))
                self._overload.scored(done - frame.arrived)

    def _decide(self, now: float) -> None:
        """Let every stream take its turn and hand what it wants kept to the recorder."""
        unix = time.time() - (time.monotonic() - now)  # of the same moment, however long ago that was read
        recording, done = Recording(), []
        all_of_them = now - self._turned >= TURN_S
        touched, self._touched = (set(self._screens) if all_of_them else self._touched), set()
        if all_of_them:
            self._turned = now
        for number in touched:
            screen = self._screens[number]
            surprise = contained(partial(screen.turn, now, unix))
            if isinstance(surprise, Exception):
                screen.give_up(surprise, now, unix)
                self._stops[number].set()
            recording.add(screen.collect(now))
            if screen.gone is not None:
                done.append(
                    Done(number, screen.gone.failed, screen.segments, screen.status(now), screen.ledger())
                )
                self._stops.pop(number, None)
        if recording or done:
            self._recorder.put(recording, done)
        for one in done:
            del self._screens[one.number]
