"""One open source: its packets through sampler and decoder into slots, and closer looks when they are asked
for."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, repeat

from pipeline.errors import DecodeError, NoTurn, SourceNoRoom
from pipeline.flow.coverage import Cause
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.frames import Frame, FramePool
from pipeline.flow.look import LIVE_LOOK_S, Look
from pipeline.flow.pick import pictures
from pipeline.flow.ring import LAG_S, PacketRing
from pipeline.flow.sample import Sampler
from pipeline.flow.sample_ahead import with_last
from pipeline.flow.segment_rules import EndReason
from pipeline.flow.source import Packet, Source
from pipeline.service.admission import Admission
from pipeline.service.ahead import Ahead, end
from pipeline.service.lead import Budget, Lead
from pipeline.service.messages import End, Item, Looked, LookSample, Message, Sample, Trouble
from pipeline.service.skim import Skim

CLOCK_PACKETS = 64
"""The sender's clock is asked for once in so many packets: it comes with a report every few seconds."""
CLOCK_DRIFT = 1e-3
"""Seconds a second that a sender's clock may go slower than ours; real ones are ten times better."""
WATCH_BEHIND_S = 0.75
"""A live stream that is watched and so far behind is not watched on: there are no cores for it."""


@dataclass(slots=True)
class Position:
    """How far a stream has been read: written by its reader, read by everybody.

    ``gap_s`` is the gap in force: the promise, or more while the worker is overloaded. ``skipped`` counts
    files that were screened before; ``sender_s`` is the Unix time of media second 0 by the sender's clock,
    where it tells; ``refused`` counts closer looks for which there was no budget, ``unaudited`` audits that
    were left out because samples waited; ``trouble`` says what is wrong between sessions, ``dropped`` counts
    pictures for which there was no slot and of which no ``Sample`` tells. ``decoder`` says why the pictures
    are not decoded where the others are."""

    gap_s: float
    time_s: float = 0.0
    packets: int = 0
    plan: str = ""
    why: str = ""
    gop_s: float | None = None
    damaged: int = 0
    skipped: int = 0
    refused: int = 0
    unaudited: int = 0
    dropped: int = 0
    held_bytes: int = 0
    sender_s: float | None = None
    trouble: str = ""
    decoder: str = ""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a stream's reader works with, from session to session. ``reads`` is told what it is about to open,
    ``left_out`` are files that it is not to."""

    number: int
    live: bool
    send: Callable[[Message], None]
    reads: Callable[[Item], None]
    left_out: frozenset[Item]
    pools: dict[str, FramePool]
    admission: Admission
    ahead: Ahead
    lead: Lead
    budget: Budget
    stop: threading.Event
    position: Position
    samples: Iterator[int] = field(default_factory=lambda: count(1))


class Session:
    """Reads ``source`` once, by ``skim`` if it has an index. ``resumed_s``: up to there it was screened
    before a crash."""

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        sampler: Sampler,
        desk: Desk,
        resumed_s: float | None,
        skim: Skim | None = None,
    ) -> None:
        self.sampled = 0
        self._source = source
        self._skim = skim
        self._decoder: Decoder = skim.decoder if skim is not None else decoder
        self._sampler = sampler
        self._desk = desk
        self._resumed_s = resumed_s
        keep_s = sampler.rules.max_gap_s + LAG_S if desk.live else desk.lead.reach * sampler.rules.max_gap_s
        self._ring = PacketRing(keep_s)
        self._told_s = float("-inf")
        self._packets = 0
        self._looks = deque[tuple[Future[bool], Look, float]]()
        self._broken = False
        self._soonest_s, self._seen_s = float("inf"), time.monotonic()

    def read(self) -> End:
        """Every packet, to the end of the source or until ``stop``.

        :raises SourceError: the source broke off; what it gave before is screened."""
        desk = self._desk
        try:
            for packet, last in self._arriving():
                if desk.stop.is_set():
                    break
                self._note(packet)
                if self._skim is None:
                    self._ring.add(packet)
                self._screen(packet, last)
                self._answer()
            while not desk.lead.wait(desk.stop, idle=True) and not desk.stop.is_set():
                self._answer()
        except BaseException:
            self._broken = True
            raise
        finally:
            if self._packets:
                self._note_decoding()
            for started, *_ in self._looks:
                end(started)
        reason: EndReason = "shutdown" if desk.stop.is_set() else "end_of_stream"
        cause: Cause | None = "corrupt" if reason == "end_of_stream" and self._too_few() else None
        return End(reason, desk.position.time_s, time.monotonic(), cause)

    def _arriving(self) -> Iterator[tuple[Packet, bool]]:
        """The packets to screen, each with whether it is the last one."""
        if self._desk.live:
            return zip(self._source, repeat(False))
        return self._skim.packets(self._resumed_s) if self._skim is not None else with_last(self._source)

    def _too_few(self) -> bool:
        """Whether a file read from its start gave fewer pictures than its index holds; by its index only one
        is read that is known to be whole."""
        promised = self._source.info.pictures if self._skim is None else None
        return promised is not None and self._resumed_s is None and self._packets < promised

    def _note(self, packet: Packet) -> None:
        position, sampler = self._desk.position, self._sampler
        if packet.time_s > position.time_s:
            position.time_s = packet.time_s
        position.packets += 1
        self._packets += 1
        if position.gap_s != sampler.gap_s:
            sampler.stretch(position.gap_s)
        if packet.keyframe or not sampler.plan == position.plan == "keyframes":
            self._note_decoding()
        if packet.keyframe:
            self._behind_s(packet)  # known before it is watched
            position.gop_s, position.held_bytes = sampler.gop_s, self._ring.held_bytes
            if self._desk.live:
                sampler.audits = self._desk.budget.audits
                position.unaudited += sampler.audits_refused
                sampler.audits_refused = 0
        if self._desk.live and position.packets % CLOCK_PACKETS == 0:
            position.sender_s = self._source.sender_time()

    def _note_decoding(self) -> None:
        position, sampler = self._desk.position, self._sampler
        position.plan, position.why, position.damaged = sampler.plan, sampler.why, self._decoder.damaged

    def _screen(self, packet: Packet, last: bool) -> None:
        """Decode what the sampler wants of this packet. No picture outlives the call: a surface is 3 MB."""
        watching = self._desk.live and self._sampler.watching
        began = time.thread_time() if watching else 0.0  # a system call: not for every packet
        try:
            for picture in pictures(packet, self._sampler, self._decoder, last=last):
                if self._resumed_s is None or picture.time_s > self._resumed_s:
                    self._sample(picture, packet.arrived)
        except NoTurn:
            self._miss(packet.time_s, packet.arrived)
        except DecodeError as error:
            clock_s = packet.arrived if self._desk.live else packet.time_s
            self._desk.send(Trouble("corrupt", clock_s, "corrupt", str(error)))
        if watching:
            self._desk.budget.spend(time.thread_time() - began)
            behind = self._behind_s(packet) > WATCH_BEHIND_S
            if behind or not self._desk.budget.allows(burst=True):
                self._sampler.watch(float("-inf"))

    def _behind_s(self, packet: Packet) -> float:
        """How far a live stream's reader is behind, in seconds. What waits in a socket has not arrived yet as
        far as the packet knows; so the one that came soonest after its time tells."""
        now = time.monotonic()
        self._soonest_s = min(self._soonest_s + CLOCK_DRIFT * (now - self._seen_s), now - packet.time_s)
        self._seen_s = now
        return now - packet.time_s - self._soonest_s

    def _sample(self, picture: Picture, ready: float) -> None:
        """Hand a picture on to be scored; a file's reader first waits until it is not too far ahead."""
        desk = self._desk
        while not desk.lead.wait(desk.stop):
            if desk.stop.is_set():
                return
            self._answer()
        if self._sampler.watching:
            self._pay_for_scoring()
        number = next(desk.samples)
        frames = self._store(picture, number)
        if desk.live and not any(frames.values()):
            self._miss(picture.time_s, picture.arrived)
            return
        self.sampled += 1
        desk.lead.sent()
        desk.send(Sample(number, picture.time_s, picture.arrived, ready, frames))

    def _miss(self, time_s: float, arrived: float) -> None:
        """A live picture is not scored: the machine is behind."""
        desk = self._desk
        self.sampled += 1
        if desk.lead.unheard or not self._worth_saying(time_s):
            desk.position.dropped += 1
            return
        desk.lead.sent(dropped=True)
        desk.send(Sample(next(desk.samples), time_s, arrived, arrived, dict.fromkeys(desk.pools)))

    def _worth_saying(self, time_s: float) -> bool:
        """Whether a picture that was missed is to be told of: one in a gap's time is enough."""
        worth = not self._told_s <= time_s < self._told_s + self._sampler.gap_s
        if worth:
            self._told_s = time_s
        return worth

    def _pay_for_scoring(self) -> None:
        if self._desk.live:
            self._desk.budget.spend(self._desk.budget.picture_s * len(self._desk.pools))

    def _store(self, picture: Picture, number: int) -> dict[str, Frame | None]:
        """A slot of each model. :raises DecodeError: it cannot be converted; no slot is held then."""
        live, frames = self._desk.live, dict[str, Frame | None]()
        try:
            for model, pool in self._desk.pools.items():
                frames[model] = pool.store(
                    picture, stream=self._desk.number, sample=number, live=live, timeout=0 if live else None
                )
        except DecodeError:
            for frame in frames.values():
                if frame is not None:
                    frame.release()
            raise
        return frames

    # ---- closer looks -------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answer every look that is asked for: at a file now, at a live stream beside what it brings
        meanwhile."""
        while self._looks and self._looks[0][0].done():
            self._collect(*self._looks.popleft())
        while (look := self._desk.lead.next_look()) is not None:
            if look.from_s == look.to_s:
                self._desk.send(Looked(look.number))
                self._watch(look)
            elif not self._desk.live:
                held = self._ring if self._skim is None else self._skim
                self._look(look, held.since(look.from_s))
                self._watch(look)
            else:
                self._begin(look)

    def _begin(self, look: Look) -> None:
        """Have another thread look, if there is anything left for that and its packets are held."""
        packets = self._ring.since(look.from_s) if self._desk.budget.allows() else []
        if not packets:
            self._desk.position.refused += 1
            self._desk.send(Looked(look.number))
            return
        until_s = time.monotonic() + LIVE_LOOK_S
        work = partial(self._look, look, packets, wanted=partial(self._awaited, until_s))
        started = self._desk.ahead.start(work)
        self._looks.append((started, look, until_s))

    def _collect(self, started: Future[bool], look: Look, until_s: float) -> None:
        """A look at a live stream was answered. One that took long shows that there are no cores to watch it
        on; what was not seen in time is refused."""
        if started.cancelled():
            return
        if not started.result():  # a surprise is this session's
            self._desk.position.refused += 1
        if time.monotonic() < until_s - LIVE_LOOK_S / 2:
            self._watch(look)

    def _watch(self, look: Look) -> None:
        """Watch on after a look, if there is anything left for that."""
        if not self._desk.live or self._desk.budget.allows(burst=True):
            self._sampler.watch(look.watch_until_s)

    def _awaited(self, until_s: float) -> bool:
        """Whether anyone still waits for what a look at a live stream sees."""
        return time.monotonic() < until_s and not self._broken and not self._desk.stop.is_set()

    def _look(
        self, look: Look, packets: Iterable[Packet], *, wanted: Callable[[], bool] | None = None
    ) -> bool:
        """Decode the interval and send the pictures that are due in it, as long as they are ``wanted``;
        whether they were seen. Damage ends it early; without room for a decoder of its own there is none."""
        desk, began, due = self._desk, time.thread_time(), list(look.due())
        try:
            with desk.admission.decoder(self._source.info, wanted=wanted) as decoder:
                for picture in _between(packets, decoder, look):
                    if due and picture.time_s >= due[0] - 1e-3:
                        due = [time_s for time_s in due if time_s > picture.time_s + 1e-3]
                        self._send_look(look, picture)
        except NoTurn:
            return False
        except (DecodeError, SourceNoRoom):
            return True
        finally:
            desk.budget.spend(time.thread_time() - began if desk.live else 0.0)
            desk.send(Looked(look.number))
        return True

    def _send_look(self, look: Look, picture: Picture) -> None:
        self._pay_for_scoring()
        now = replace(picture, arrived=time.monotonic())  # its packet came long ago
        number = next(self._desk.samples)
        with self._desk.admission.marked():
            frames = self._store(now, number)
        self._desk.send(LookSample(look.number, number, now.time_s, now.arrived, frames))


def _between(packets: Iterable[Packet], decoder: Decoder, look: Look) -> Iterator[Picture]:
    """The pictures strictly between the look's two ends, in order."""
    for packet in packets:
        for picture in decoder.decode(packet):
            if picture.time_s >= look.to_s - 1e-6:
                return
            if picture.time_s > look.from_s + 1e-6:
                yield picture
    for picture in decoder.flush():
        if look.from_s + 1e-6 < picture.time_s < look.to_s - 1e-6:
            yield picture
