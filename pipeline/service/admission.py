"""Who may decode now, on what, and a mark while they do."""

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TypeVar

from pipeline.backends import registry
from pipeline.backends.registry import Device
from pipeline.errors import NoTurn, SourceUnsupported
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.source import Packet, StreamInfo
from pipeline.service.marks import Marks

ROOM_S, WANTED_S = 0.01, 0.1
"""How often a turn that waits looks again: for room, and whether it is still wanted."""


class Line:
    """So many places, and who waits for one: the next is whose picture is due first. Who is due at no time
    leaves ``spare`` places free."""

    def __init__(self, places: int, spare: int = 0) -> None:
        self._places = places
        self._spare = spare
        self._waiting: list[tuple[float, int, threading.Lock]] = []
        self._arrivals = count()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, due_s: float, until_s: float = math.inf) -> bool:
        """Wait for a place, at most until monotonic second ``until_s``; False when there was none by then, or
        that is over."""
        if time.monotonic() >= until_s:
            return False
        with self._lock:
            if self._free_for(due_s):
                self._places -= 1
                return True
            called = threading.Lock()
            called.acquire()
            waiting = (due_s, next(self._arrivals), called)
            heapq.heappush(self._waiting, waiting)
        patience_s = max(0.0, until_s - time.monotonic())
        if called.acquire(timeout=patience_s if patience_s < math.inf else -1):
            return True
        with self._lock:
            if waiting not in self._waiting:  # called at the last moment
                return True
            self._waiting.remove(waiting)
            heapq.heapify(self._waiting)
            return False

    @contextmanager
    def place(self, due_s: float, until_s: float = math.inf) -> Iterator[None]:
        """Have a place, as ``enter`` gives it. :raises NoTurn: there was none in time."""
        if not self.enter(due_s, until_s):
            raise NoTurn("no turn to decode it in time")
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Hand the place on."""
        with self._lock:
            self._places += 1
            while self._waiting and self._free_for(self._waiting[0][0]):
                self._places -= 1
                heapq.heappop(self._waiting)[-1].release()

    def _free_for(self, due_s: float) -> bool:
        return self._places > (self._spare if due_s == math.inf else 0)


class Turns:
    """No more threads at work than ``at_once``: the others wait instead of sharing every core's cache.

    Pictures that are scored and keyframes that are decoded share the cores, and what is decoded is scored
    first: a sample is done as soon as it can be. Packets of closer looks have what they leave idle. Packets
    of a sequence have turns of their own: it brings dozens of short calls a second, and if each waited behind
    keyframes its stream would fall ever further behind. Every decode call is marked with its stream, so that
    a crash can be put down to it.

    ``spare`` of the ``at_once`` are more than there are cores: closer looks leave so many free."""

    def __init__(self, at_once: int, marks: Marks, spare: int = 0) -> None:
        self._cores = Line(at_once, spare)
        self._alone = Line(at_once)  # for a core: they wait for room here, and hold up nobody there
        self._in_sequence = threading.Semaphore(at_once)
        self._marks = marks

    @property
    def waiting(self) -> int:
        """How many wait for a core."""
        return self._cores.waiting + self._alone.waiting

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Stream ``number``'s turn."""
        with self._in_sequence, self._marks.decoding(number):
            yield

    @contextmanager
    def beside(self, number: int, wanted: Callable[[], bool]) -> Iterator[None]:
        """Stream ``number``'s turn for a packet of a closer look: a core that nobody else wants.

        :raises NoTurn: it is not ``wanted`` any more."""
        while wanted():
            if self._cores.enter(math.inf, time.monotonic() + WANTED_S):
                with self._on_core(number):
                    yield
                return
        raise NoTurn("nobody waits for it any more")

    def marked(self, number: int) -> AbstractContextManager[None]:
        """A crash in it is put down to stream ``number``, though it needs no turn: a thread that looks closer
        is no reader, of which it is known whose it is."""
        return self._marks.decoding(number)

    def scoring(self) -> AbstractContextManager[None]:
        """The turn of one or two pictures that are scored on one core."""
        return self._cores.place(-math.inf)

    @contextmanager
    def alone(
        self,
        number: int,
        *,
        due_s: float = 0.0,
        until_s: float = math.inf,
        room: Callable[[], bool] = lambda: True,
    ) -> Iterator[None]:
        """Stream ``number``'s turn for one keyframe by itself, whose sample is due at ``due_s``, as soon as
        there is ``room`` for its picture.

        :raises NoTurn: that was not so until ``until_s``."""
        with self._alone.place(due_s, until_s):
            while not room():
                if time.monotonic() >= until_s:
                    raise NoTurn("no room for its picture in time")
                time.sleep(ROOM_S)
            if not self._cores.enter(due_s, until_s):
                raise NoTurn("no core to decode it in time")
        with self._on_core(number):  # the next one waits for a core meanwhile: no closer look has one before
            yield

    @contextmanager
    def _on_core(self, number: int) -> Iterator[None]:
        """Decode for stream ``number`` on a core that it has, and hand that on."""
        try:
            with self._marks.decoding(number):
                yield
        finally:
            self._cores.leave()


@dataclass(frozen=True, slots=True)
class Live:
    """What a live stream, which cannot wait, asks of its turns: ``gap_s`` is the gap in force, ``patience_s``
    how long after it arrived a keyframe is still worth decoding, ``room`` whether its picture would find a
    slot and be scored in time."""

    gap_s: Callable[[], float]
    patience_s: float
    room: Callable[[], bool]


Open = Callable[[StreamInfo, Device], Decoder]
T = TypeVar("T")


def _open(info: StreamInfo, device: Device) -> Decoder:
    return registry.open_decoder(info, device=device)


class Admission:
    """The decoders of one stream, ``live`` or a file, which waits as long as it takes.

    With ``instead``, what the GPU does not decode is decoded in software, and ``instead`` hears why; without,
    it is refused."""

    def __init__(
        self,
        device: Device,
        turns: Turns,
        number: int,
        *,
        live: Live | None = None,
        instead: Callable[[str], None] | None = None,
        open_decoder: Open = _open,
    ) -> None:
        self._device = device
        self._turns = turns
        self._number = number
        self._live = live
        self._instead = instead if device == "gpu" else None
        self._open = open_decoder

    @contextmanager
    def decoder(
        self, info: StreamInfo, *, wanted: Callable[[], bool] | None = None
    ) -> Iterator["AdmittedDecoder"]:
        """A decoder, closed at its end. That of a closer look has the cores that are idle, as long as it is
        ``wanted``.

        :raises SourceUnsupported: there is none for its codec.
        :raises NoTurn: it is not wanted any more."""

        def fall_back(why: SourceUnsupported) -> Decoder:
            if self._instead is None:
                raise why
            self._instead(f"decoded in software: {why}")
            return self._open(info, "cpu")

        turn = partial(self._turns.of, self._number)
        if wanted is not None:
            turn = partial(self._turns.beside, self._number, wanted)
        with turn():
            try:
                first = self._open(info, self._device)
            except SourceUnsupported as why:
                first = fall_back(why)
        decoder = AdmittedDecoder(first, self._turns, self._number, turn, fall_back, self._live)
        try:
            yield decoder
        finally:
            with self.marked() if wanted is not None else nullcontext():
                decoder.close()

    def marked(self) -> AbstractContextManager[None]:
        """See ``Turns.marked``."""
        return self._turns.marked(self._number)


class AdmittedDecoder:
    """A ``Decoder`` that takes its turn for each packet, and in whose place another goes on when it meets a
    sequence that it cannot decode: ``fall_back`` gives that one, or raises. ``turn`` is that of a packet
    which is no keyframe by itself.

    When there is more to decode than the cores can, the keyframes whose samples are due first are decoded,
    and those that would be too old by then are not. Were all decoded in the order in which they came, all
    would be too old."""

    def __init__(
        self,
        decoder: Decoder,
        turns: Turns,
        number: int,
        turn: Callable[[], AbstractContextManager[None]],
        fall_back: Callable[[SourceUnsupported], Decoder],
        live: Live | None,
    ) -> None:
        self._decoder = decoder
        self._turns = turns
        self._number = number
        self._turn = turn
        self._fall_back = fall_back
        self._live = live
        self._sampled_s = 0.0  # when the last keyframe that was decoded alone arrived
        self._damaged_before = 0

    @property
    def damaged(self) -> int:
        """Pictures that were not given because they were damaged."""
        return self._damaged_before + self._decoder.damaged

    def still(self, packet: Packet) -> Picture | None:
        """See ``Decoder.still``. :raises NoTurn: a live keyframe would be too old when it was scored."""
        live = self._live
        if live is None:
            turn = self._turns.alone(self._number, due_s=time.monotonic())
        else:
            due_s, until_s = self._sampled_s + live.gap_s(), packet.arrived + live.patience_s
            turn = self._turns.alone(self._number, due_s=due_s, until_s=until_s, room=live.room)
        with turn:
            self._sampled_s = packet.arrived
            return self._tried(lambda decoder: decoder.still(packet))

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """See ``Decoder.decode``."""
        return self._in_turn(lambda decoder: decoder.decode(packet, wanted=wanted))

    def flush(self) -> Iterable[Picture]:
        """See ``Decoder.flush``."""
        return self._in_turn(lambda decoder: decoder.flush())

    def reset(self) -> None:
        """See ``Decoder.reset``."""
        self._decoder.reset()

    def close(self) -> None:
        """See ``Decoder.close``."""
        self._decoder.close()

    def _in_turn(self, work: Callable[[Decoder], T]) -> T:
        with self._turn():
            return self._tried(work)

    def _tried(self, work: Callable[[Decoder], T]) -> T:
        try:
            return work(self._decoder)
        except SourceUnsupported as why:
            other, self._damaged_before = self._fall_back(why), self.damaged
            self._decoder.close()
            self._decoder = other
            return work(other)
