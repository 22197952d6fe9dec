"""The inference thread of a worker: the one thread that touches the engines and the policy."""

import threading
import time
from collections import deque
from functools import partial
from typing import Any

from pipeline.errors import Closed
from pipeline.flow.segment import EndReason
from pipeline.service.account import latency_ms
from pipeline.service.ahead import Ahead
from pipeline.service.crew import Channel, contained
from pipeline.service.engine import Engine
from pipeline.service.lead import Budget
from pipeline.service.messages import LookSample, Message, Sample
from pipeline.service.orders import Done, WorkerPlan
from pipeline.service.overload import Overload
from pipeline.service.recorder import Recorder
from pipeline.service.report import Recording
from pipeline.service.stream import StreamScreen

LOOK_S = 1.0
"""How often the streams' rows of the status are made."""
TURN_S = 0.25
"""How often every stream takes its turn; one with a new message or score does so at once."""


class Inference:
    """Takes what the readers send through ``ready``, scores it in batches, and lets each stream decide.

    ``engines`` may be replaced by a dict with more of them at any time. ``beat`` is when the thread was last
    seen at work, in monotonic seconds."""

    def __init__(self, plan: WorkerPlan, recorder: Recorder, budget: Budget, ahead: Ahead) -> None:
        self.engines: dict[str, Engine] = {}
        self.ready: Channel[tuple[int, Message]] = Channel()  # the pools' slots are its bound
        self.beat = time.monotonic()
        self._recorder = recorder
        self._budget = budget
        self._ahead = ahead
        self._screens: dict[int, StreamScreen] = {}
        self._stops: dict[int, threading.Event] = {}
        self._touched: set[int] = set()  # streams with a new message or score
        self._turned = time.monotonic()
        self._overload = Overload(plan.config.batch.stale_s, time.monotonic())
        self._latencies: deque[float] = deque(maxlen=4096)
        self._latency = latency_ms(self._latencies)
        self._status: list[dict[str, Any]] = []
        self._batches = 0
        self._scored = 0

    # ---- for the other threads ----------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether every stream has left."""
        return not self._screens

    def enter(self, screen: StreamScreen, stop: threading.Event) -> None:
        """A stream joins; ``stop`` ends its reader."""
        self._screens[screen.number] = screen
        self._stops[screen.number] = stop

    def leave(self, number: int, reason: EndReason) -> None:
        """A stream is to end; its reader says goodbye first."""
        screen, stop = self._screens.get(number), self._stops.get(number)
        if screen is not None and stop is not None:
            screen.stop_reason = reason
            stop.set()

    def leave_all(self) -> None:
        """Every stream is to end."""
        for stop in list(self._stops.values()):
            stop.set()

    def said(self) -> dict[str, Any]:
        """What the heartbeat tells of this thread."""
        return {
            "streams": self._status,
            "beat": self.beat,
            "batches": self._batches,
            "scored": self._scored,
            "latency_ms": self._latency,
            "load_shed": round(self._overload.shed, 3),
            "engines": {name: engine.model.info.engine for name, engine in self.engines.items()},
        }

    # ---- its own thread -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Batch, score and decide until every reader has ended and the channel is closed."""
        looked = 0.0
        try:
            while True:
                closed = self._take_messages()
                now = time.monotonic()
                for name, engine in self.engines.items():
                    while engine.batcher.due(now) == 0 or (closed and engine.batcher.due(now) is not None):
                        self._score(name, engine, now)
                        now = time.monotonic()
                self._decide(now)
                self._overload.step(now, list(self._screens.values()))
                self._budget.closed = self._overload.shed > 0.0
                self._budget.audits = not self._overload.strained
                if now - looked >= LOOK_S or closed:
                    self._status = [screen.status(now) for screen in list(self._screens.values())]
                    self._latency = latency_ms(self._latencies)
                    self._ahead.paused = any(screen.share for screen in list(self._screens.values()))
                    looked = now
                self.beat = now
                if closed:
                    return
        finally:
            self._recorder.close()

    def _take_messages(self) -> bool:
        """Sort what the readers sent; True when they have all ended."""
        now = time.monotonic()
        dues = [due for engine in self.engines.values() if (due := engine.batcher.due(now)) is not None]
        try:
            arrived = self.ready.receive_all(min([TURN_S, *dues]))
        except Closed:
            return True
        self.beat = now
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
                self._overload.dropped(frame is None and isinstance(message, Sample))
                if frame is not None:
                    self.engines[model].batcher.put(frame, now)
        return False

    def _score(self, name: str, engine: Engine, now: float) -> None:
        batch, stale = engine.batcher.take(now)
        for frame in stale:
            if frame.stream in self._screens:  # else a closer look, given up, of a stream that has left
                self._overload.dropped(self._screens[frame.stream].results.dropped(frame.sample, name))
                self._touched.add(frame.stream)
        if not batch.frames:
            return
        with batch:
            scores, model = engine.infer(batch.pixels)
        done = self.beat = time.monotonic()
        self._batches += 1
        self._scored += len(batch.frames)
        for frame, row in zip(batch.frames, scores, strict=True):
            ready: float | None = None  # pictures of closer looks are not timed: they waited elsewhere
            if frame.stream in self._screens:
                ready = self._screens[frame.stream].results.scored(frame.sample, name, model, row, done)
                self._touched.add(frame.stream)
            if frame.live and ready is not None:
                self._latencies.append(max(0.0, done - frame.arrived))
                self._overload.scored(max(0.0, done - ready))

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
