"""Closer looks at a live stream: beside what it brings, on cores that nobody else wants."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.backends import registry
from pipeline.errors import SourceTimeout
from pipeline.flow.frames import InputSpec
from pipeline.flow.look import LIVE_LOOK_S, Look
from pipeline.flow.sample import SamplingRules
from pipeline.service.admission import Turns
from pipeline.service.ahead import Ahead
from pipeline.service.crew import Crew
from pipeline.service.lead import Lead
from pipeline.service.marks import Marks, board
from pipeline.service.messages import Looked, LookSample, Message, Sample
from pipeline.service.session import Position
from tests.fixtures.media import Clips, clips
from tests.fixtures.session import live_session

__all__ = ["clips"]

T = TypeVar("T")
FPS, GOP_S, SECONDS = 24, 1.0, 10
RULES = SamplingRules(max_gap_s=1.0, plan="auto", burst_fps=8.0, burst_s=4.0)
LOOK = Look(1, 2.0, 3.0, RULES.burst_fps, 3.0 + RULES.burst_s)
"""Asked for when the sample at 3 s was scored."""


class Noted(Ahead):
    """Remembers what it was asked to do."""

    def __init__(self, began: list[Future[Any]]) -> None:
        super().__init__(1, 0)
        self._began = began

    def start(self, work: Callable[[], T]) -> Future[T]:
        started = super().start(work)
        self._began.append(started)
        return started


class Screened:
    """A session's messages. After the sample at 3 s it is asked for the look; ``waits``: the one at 4 s is
    held until the thread that looks is done with it."""

    def __init__(self, lead: Lead, *, waits: bool) -> None:
        self.messages: list[Message] = []
        self.position = Position(1.0)
        self.lead = lead
        self._waits = waits
        self.began: list[Future[Any]] = []

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        if not isinstance(message, Sample | LookSample):
            return
        for frame in message.frames.values():
            assert frame is not None
            frame.release()
        if isinstance(message, Sample) and message.time_s == pytest.approx(3.0):
            self.ask()
        if isinstance(message, Sample) and message.time_s == pytest.approx(4.0) and self._waits:
            assert self.began
            assert not wait(self.began, 20).not_done

    def ask(self) -> None:
        self.lead.ask(LOOK)

    def times(self, kind: type[Sample] | type[LookSample]) -> list[float]:
        return [message.time_s for message in self.messages if isinstance(message, kind)]


def read(path: Path, screened: Screened, *, threads: bool = True, turns: Turns | None = None) -> None:
    """Read the film to its end, with the thread that looks beside it, or none."""
    ahead, rules = Noted(screened.began), RULES
    pool = registry.open_pool(InputSpec(32, 32), 64, device="cpu", live_reserve=0)
    lead, position = screened.lead, screened.position
    with Crew(threading.Event(), ahead) as crew:
        if threads:
            crew.start(ahead.run, name="ahead")
        try:
            with live_session(
                path, pool, screened, rules=rules, lead=lead, position=position, ahead=ahead, turns=turns
            ) as session:
                session.read()
        finally:
            ahead.close()
    assert pool.free == pool.slots


def screen(path: Path, *, threads: bool = True) -> Screened:
    """What comes of the film."""
    screened = Screened(Lead(None), waits=threads)
    read(path, screened, threads=threads)
    return screened


@pytest.fixture
def film(clips: Clips) -> Path:
    return clips(pictures=SECONDS * FPS, rate=FPS, gop=round(GOP_S * FPS))


def assert_every_gap_is_kept(screened: Screened) -> None:
    times = [*screened.times(Sample), float(SECONDS)]
    assert max(b - a for a, b in pairwise(times)) <= RULES.max_gap_s * 1.05


def test_the_interval_is_seen_densely_before_the_answer_and_the_stream_is_watched_on(film: Path) -> None:
    screened = screen(film)
    assert screened.times(LookSample) == pytest.approx([2 + n / 8 for n in range(1, 8)], abs=0.5 / FPS)
    kinds = [type(message) for message in screened.messages]
    assert LookSample not in kinds[kinds.index(Looked) :]
    assert len(screened.times(Sample)) > SECONDS + RULES.burst_fps


def test_a_look_that_nobody_begins_holds_up_neither_its_stream_nor_its_end(film: Path) -> None:
    screened = screen(film, threads=False)
    assert not screened.times(LookSample)
    assert_every_gap_is_kept(screened)


def test_a_look_for_which_there_was_no_core_in_time_is_answered_and_nothing_is_watched(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.service.session.LIVE_LOOK_S", 0.0)
    screened = screen(film)
    assert screened.position.refused == 1
    assert not screened.times(LookSample)
    assert sum(isinstance(message, Looked) for message in screened.messages) == 1
    assert_every_gap_is_kept(screened)
    assert len(screened.times(Sample)) <= SECONDS + 2


class HeldUp(Screened):
    """Its reader is held up for half a second at the first sample that follows, once the look was answered:
    just before it begins to watch, or in its first moment of watching."""

    held_up = False

    def __call__(self, message: Message) -> None:
        super().__call__(message)
        if isinstance(message, Sample) and message.time_s > 3.0 + 0.5 / FPS and not self.held_up:
            self.held_up = True
            assert self.began
            assert not wait(self.began, 20).not_done
            threading.Event().wait(0.5)


def test_a_stream_that_is_behind_is_not_watched_on(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.service.session.WATCH_BEHIND_S", 0.2)
    screened = HeldUp(Lead(None), waits=False)
    read(film, screened)
    assert screened.times(LookSample)
    assert_every_gap_is_kept(screened)
    assert len(screened.times(Sample)) <= SECONDS + RULES.burst_fps


class Breaking(Lead):
    """Its stream breaks off a few packets after a look was begun."""

    packets = -1
    broke_at = math.inf

    def next_look(self) -> Look | None:
        if (look := super().next_look()) is not None:
            self.packets = 0
        elif self.packets >= 0:
            self.packets += 1
            if self.packets > 5:
                self.broke_at = time.monotonic()
                raise SourceTimeout("nothing comes any more")
        return look


class Crowded(Screened):
    """Nobody leaves it the core any more from the sample on after which it is asked for the look."""

    def __init__(self, lead: Lead, turns: Turns) -> None:
        super().__init__(lead, waits=False)
        self.core = ExitStack()
        self._turns = turns

    def ask(self) -> None:
        super().ask()
        self.core.enter_context(self._turns.scoring())


def test_a_stream_that_breaks_off_does_not_wait_for_its_look(film: Path) -> None:
    turns = Turns(1, Marks(board(1)))
    breaking = Breaking(None)
    screened = Crowded(breaking, turns)
    with screened.core, pytest.raises(SourceTimeout):
        read(film, screened, turns=turns)
    assert time.monotonic() - breaking.broke_at < LIVE_LOOK_S / 2
    assert screened.times(Sample)[-1] == pytest.approx(3.0)
    assert not screened.times(LookSample)
