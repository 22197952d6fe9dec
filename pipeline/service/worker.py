"""One process that owns some streams, one device, the engines and the whole flow.

    reader threads (one a stream) ──frames──▶ inference thread ──recordings──▶ recorder thread ──▶ outbox

The main thread takes the supervisor's orders, a fourth one sends it a heartbeat: so the orders are always
read, and neither of the two ever waits for the other. The worker ends when its supervisor does."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import structlog

from pipeline.config import Config
from pipeline.errors import FramewardenError
from pipeline.masking import mask_text
from pipeline.outbox import Outbox
from pipeline.service.admission import Admission, Live, Turns
from pipeline.service.ahead import Ahead
from pipeline.service.crew import Crew, contained
from pipeline.service.engine import Engine
from pipeline.service.inference import Inference
from pipeline.service.lead import Budget, Lead
from pipeline.service.marks import Marks
from pipeline.service.memory import Trimmer
from pipeline.service.orders import Add, Done, Reads, Remove, Settings, WorkerPlan
from pipeline.service.plan import at_once, drain_s, models_in_use
from pipeline.service.process import ORPHANED
from pipeline.service.reader import Reader
from pipeline.service.recorder import Recorder
from pipeline.service.retry import HostGate
from pipeline.service.session import Desk, Position
from pipeline.service.stream import StreamScreen

HEARTBEAT_S = 1.0
FILE_LEAD = 6
"""Samples that a file's reader may be ahead of what was decided about them."""
TURN, SCORING = 0.5, 0.4
"""Shares of ``stale_s``: a live keyframe may wait so long for its turn, and its picture for its score."""
LOOK_SHARE = 0.2
"""Share of the cores that closer looks at live streams may take."""


class Worker:
    """The flow of one process."""

    def __init__(self, plan: WorkerPlan, send: Callable[[Any], None]) -> None:
        self.plan = plan
        self._config = plan.config
        self._send = send
        self._outbox = Outbox(plan.outbox, **plan.config.outbox_limits())
        self._recorder = Recorder(self._outbox, send)
        # A surface of NVDEC would be gone when it is wanted; on one core a second decoder gains nothing.
        ahead = plan.cores + 1 if plan.device == "cpu" and plan.cores > 1 else 0
        self._ahead = Ahead(plan.cores, ahead)
        places = at_once(plan.cores)
        self._turns = Turns(places, Marks(plan.board), spare=places - plan.cores)
        self._gate = HostGate(plan.outbox.with_name("connects.lock"))
        engines = {name: Engine(name, plan, self._turns.scoring) for name in plan.models}
        picture_s = max((engine.picture_s for engine in engines.values()), default=0.0)
        self._budget = Budget(plan.cores, LOOK_SHARE, picture_s)
        self._inference = Inference(plan, self._recorder, self._budget, self._ahead)
        self._inference.engines = engines
        self._loads = False
        self._silent = threading.Event()

    # ---- main thread --------------------------------------------------------------------------------------

    def run(self, orders: Connection) -> None:
        """Obey the supervisor until it says stop; end at once when it is gone."""
        stop = threading.Event()
        with Crew(stop, self._inference.ready, self._recorder, self) as crew:
            crew.start(self._recorder.run, name="recorder")
            crew.start(self._inference.run, name="inference")
            for number in range(self._ahead.threads):
                crew.start(self._ahead.run, name=f"ahead {number}")
            self._send(("ready", os.getpid()))
            crew.start(self._pulse, name="pulse")
            self._obey(orders, crew)
            self._inference.leave_all()
            self._drain(crew)
        for engine in self._inference.engines.values():
            engine.close()  # by itself Python would free an engine's parts in any order

    def close(self) -> None:
        """Wake every thread that waits for a slot or for work, for good."""
        self._ahead.close()
        for engine in self._inference.engines.values():
            engine.pool.close()

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
                    self._inference.leave(order.number, order.reason)
                case Settings():
                    self._follow(order.config)
                case "stop":
                    return

    def _drain(self, crew: Crew) -> None:
        """Wait until every reader has said goodbye and all that it sent is recorded."""
        until = time.monotonic() + drain_s(self._config)
        while not self._inference.idle and time.monotonic() < until and not crew.failed.is_set():
            crew.failed.wait(0.05)
        self._inference.ready.close()
        self._silent.set()
        self._ahead.close()
        crew.join(max(0.5, until - time.monotonic()))
        self._recorder.give_up()
        self._heartbeat()

    # ---- pulse thread -------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        memory = Trimmer(time.monotonic())
        while not self._silent.wait(HEARTBEAT_S):
            self._heartbeat()
            memory.step(time.monotonic())

    def _heartbeat(self) -> None:
        usage = os.times()
        self._send(
            (
                "status",
                {
                    **self._inference.said(),
                    "busy": self._recorder.waits or self._loads,
                    "cpu_s": usage.user + usage.system,
                    "outbox_error": self._recorder.error,
                },
            )
        )

    # ---- main thread: streams and models ------------------------------------------------------------------

    def _add(self, order: Add, crew: Crew) -> None:
        """Start a stream; what prevents it costs that stream alone."""
        seated = contained(partial(self._seat, order))
        if isinstance(seated, Exception):
            if not isinstance(seated, FramewardenError):
                structlog.get_logger().error("stream.surprise", stream=order.stream.id, exc_info=seated)
            self._send(Done(order.number, mask_text(str(seated)), order.segments, {}))
        else:
            crew.start(seated.run, name=f"reader {order.stream.id}")

    def _seat(self, order: Add) -> Reader:
        """Everything that a stream needs here. :raises FramewardenError: it cannot be had."""
        stop, number = threading.Event(), order.number
        names = sorted(self._config.models_of(order.stream))  # sorted: two files never wait for each other
        self._load(names)
        engines, ready = self._inference.engines, self._inference.ready
        position = Position(self._config.sampling_of(order.stream).max_gap_s)
        instead = partial(setattr, position, "decoder") if self._config.device == "auto" else None
        live: Live | None = None
        if order.kind == "live":
            stale_s = self._config.batch.stale_s
            live = Live(
                gap_s=lambda: position.gap_s,
                patience_s=TURN * stale_s,
                room=lambda: min(engines[name].wait_s for name in names) <= SCORING * stale_s,
            )
        desk = Desk(
            number=number,
            live=order.kind == "live",
            send=lambda message: ready.send((number, message)),
            reads=lambda item: self._send(Reads(number, threading.get_ident(), item)),
            left_out=order.left_out,
            pools={name: engines[name].pool for name in names},
            admission=Admission(self.plan.device, self._turns, number, live=live, instead=instead),
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
        models = {name: engines[name].model for name in names}
        self._inference.enter(StreamScreen(order, self._config, models, position, desk.lead), stop)
        return reader

    def _follow(self, config: Config) -> None:
        """Load the models that a new config brings, and anew those that have changed, while the old ones go
        on scoring; then go by it."""
        for engine in self._inference.engines.values():
            self._renew(engine)
        with contextlib.suppress(FramewardenError):  # the streams that want such a model will say so
            self._load(models_in_use(config))
        for engine in self._inference.engines.values():
            engine.follow(config)
        self._config = config

    def _load(self, names: Iterable[str]) -> None:
        """Open the models that a reload brought. :raises ModelError, BackendError: one cannot be used."""
        for name in names:
            if name not in self._inference.engines:
                with self._loading():
                    opened = {name: Engine(name, self.plan, self._turns.scoring)}
                self._inference.engines = self._inference.engines | opened

    def _renew(self, engine: Engine) -> None:
        """Put a model that has changed in the place of the one that scores; where it cannot be used that one
        goes on."""
        try:
            with self._loading():
                opened = engine.newer()
        except FramewardenError as error:
            structlog.get_logger().warning("engine.kept", model=engine.name, why=str(error))
        else:
            if opened is not None:
                engine.swap(opened)

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """Say meanwhile that the inference thread may have to wait for the cores."""
        self._loads = True
        try:
            yield
        finally:
            self._loads = False
