"""Sequences of a file decoded before their turn: where every packet is fed, one film uses all cores as well.

What the sampler will keep is rehearsed; other threads decode the sequences and hold those pictures. When the
sampler comes there, it is shown all pictures at their times, and a picture that it keeps unforeseen is
decoded after all: so what is foreseen wrongly costs time and changes nothing."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from pipeline.errors import FramewardenError, SourceError
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.rehearse import Rehearsal, Sequence, Showing
from pipeline.flow.sample import Sampler
from pipeline.flow.source import Packet, StreamInfo
from pipeline.service.admission import Admission
from pipeline.service.ahead import Ahead
from pipeline.service.crew import contained

MOST_BYTES = 64 * 2**20
"""Encoded bytes that are read ahead of one film at most, and of one sequence."""
MOST_PIXELS = 2**28
"""Pixels of pictures that are held ahead at most, of one film: 128 of full HD, 400 MB."""


class Upcoming:
    """A film's packets in their order, each with whether it is the last; whole sequences of those to come can
    be looked at. A failure to read is raised when all that was read before has been given."""

    def __init__(self, packets: Iterable[tuple[Packet, bool]]) -> None:
        self._packets = iter(packets)
        self._read = deque[tuple[Packet, bool]]()
        self._bytes = 0
        self._whole = deque[Sequence]()
        self._begun: list[Packet] = []
        self._begun_bytes = 0
        self._alone = True  # each sequence by itself and of a bearable size, as far as is known
        self._failure: SourceError | None = None

    def __iter__(self) -> Iterator[tuple[Packet, bool]]:
        while self._read or self._read_on():
            packet, last = self._read.popleft()
            self._bytes -= packet.size
            while packet.keyframe and self._whole and self._whole[0].packets[0] is not packet:
                self._whole.popleft()
            yield packet, last
        if self._failure is not None:
            raise self._failure

    def sequences(self) -> Iterator[Sequence]:
        """From the one on whose keyframe was given last; ends where they are not known to be whole."""
        number = 0
        while True:
            while number >= len(self._whole):
                if not self._alone or self._bytes > MOST_BYTES or not self._read_on():
                    return
            yield self._whole[number]
            number += 1

    def _read_on(self) -> bool:
        if self._failure is not None:
            return False
        try:
            found = next(self._packets, None)
        except SourceError as error:
            self._failure, found = error, None
        if found is None:
            return False
        packet, last = found
        self._read.append(found)
        self._bytes += packet.size
        if self._alone and (not self._collect(packet) or last):
            self._alone, self._begun = False, []
        return True

    def _collect(self, packet: Packet) -> bool:
        """Whether the sequence that is being read is, so far, as all should be."""
        if packet.keyframe:
            if self._begun:
                self._whole.append(Sequence(self._begun, packet))
            self._begun, self._begun_bytes = [], 0
        self._begun.append(packet)
        self._begun_bytes += packet.size
        early = packet.time_s < self._begun[0].time_s
        return not early and not packet.parameters_changed and self._begun_bytes <= MOST_BYTES


@dataclass(frozen=True, slots=True)
class Held:
    """A sequence and the pictures that are held of it, by their times."""

    sequence: Sequence
    pictures: dict[float, Picture]


@dataclass(frozen=True, slots=True)
class _Begun:
    picks: tuple[float, ...]
    work: Future[Held | None]


class Sequences:
    """Those of one film that were begun. Used by one thread."""

    def __init__(self, info: StreamInfo, admission: Admission, ahead: Ahead) -> None:
        self._info = info
        self._admission = admission
        self._ahead = ahead
        self._begun: dict[int, _Begun] = {}  # by the tags of their keyframes
        self._given_up = 0  # how often all were
        self._rehearsal: Rehearsal | None = None  # behind all that were begun

    def foresee(self, sampler: Sampler, coming: Iterator[Sequence]) -> None:
        """Begin as many as there is room for. ``sampler``, in whose plan every packet is fed, takes the first
        keyframe of ``coming`` next."""
        first, rehearsal = next(coming, None) if self._ahead.places else None, Rehearsal(sampler)
        picks = rehearsal.picks(first) if first is not None else None
        if first is None or picks is None:
            self.forget()
            return
        everything = sampler.plan == "full"
        begun = self._begun.get(first.packets[0].pts)
        if begun is None or begun.picks != picks:
            self.forget()
            room = self._ahead.reserve() and self._begin(first, picks, everything)
            self._rehearsal = rehearsal if room else None
        for sequence in coming:
            if sequence.packets[0].pts in self._begun:
                continue
            if self._rehearsal is None or not self._ahead.reserve():
                return
            if not self._begin(sequence, self._rehearsal.picks(sequence), everything):
                self._rehearsal = None  # begin anew at the next keyframe
                return

    def take(self, keyframe: Packet) -> Held | None:
        """What is held of the sequence that this keyframe begins. None: it is to be decoded in turn, because
        it was not foreseen, or to say what is wrong with it."""
        begun = self._begun.pop(keyframe.pts, None)
        held = contained(partial(self._ahead.finished, begun.work)) if begun is not None else None
        return None if isinstance(held, Exception) else held

    def forget(self) -> None:
        """None of them is wanted any more."""
        self._given_up += 1
        for begun in self._begun.values():
            self._ahead.give_up(begun.work)
        self._begun.clear()
        self._rehearsal = None

    def _begin(self, sequence: Sequence, picks: tuple[float, ...] | None, everything: bool) -> bool:
        """Do so in a place that was reserved. False, and the place is free again: nothing is known of what
        will be kept, or it would be too much to hold."""
        held = len(picks or ()) + sum(len(begun.picks) for begun in self._begun.values())
        if picks is None or held * self._info.width * self._info.height > MOST_PIXELS:
            self._ahead.release()
            return False
        decoded = partial(self._decoded, sequence, frozenset(picks), everything, self._given_up)
        self._begun[sequence.packets[0].pts] = _Begun(picks, self._ahead.start(decoded))
        return True

    def _decoded(
        self, sequence: Sequence, picks: frozenset[float], everything: bool, given_up: int
    ) -> Held | None:
        """Another thread decodes a sequence; None when a picture of it that will be kept does not come."""
        found: dict[float, Picture] = {}
        try:
            with self._admission.decoder(self._info) as decoder:
                for packet in sequence.packets:
                    if given_up != self._given_up:
                        return None
                    for picture in decoder.decode(packet, wanted=everything or packet.time_s in picks):
                        if picture.time_s in picks:
                            found[picture.time_s] = picture
                found |= {picture.time_s: picture for picture in decoder.flush() if picture.time_s in picks}
        except FramewardenError:
            return None
        return Held(sequence, found) if len(found) == len(picks) else None


class Replay:
    """Shows a sequence that is held as a decoder would: every picture at its time, with a surface if the
    sampler keeps it. ``decoder`` decodes what was not foreseen."""

    def __init__(self, held: Held, sampler: Sampler, decoder: Decoder) -> None:
        self._held = held
        self._sampler = sampler
        self._decoder = decoder
        self._packets = {packet.time_s: packet for packet in held.sequence.packets}
        self._showing = Showing(self._packets)
        self._unforeseen: Iterator[Picture] | None = None

    def decode(self, packet: Packet) -> Iterator[Picture]:
        """See ``Decoder.decode``. What comes out is settled at once; it must be gone through in any case."""
        return self._shown(self._showing.feed(packet.time_s))

    def flush(self) -> Iterator[Picture]:
        """See ``Decoder.flush``."""
        return self._shown(self._showing.rest())

    def _shown(self, times: list[float]) -> Iterator[Picture]:
        for time_s in times:
            if (held := self._held.pictures.pop(time_s, None)) is not None:
                yield held
            elif not self._sampler.would_keep(time_s):
                yield self._picture_less(time_s)
            elif (late := self._decode_up_to(time_s)) is not None:
                yield late

    def _picture_less(self, time_s: float) -> Picture:
        return Picture(time_s, 0, 0, self._packets[time_s].arrived)

    def _decode_up_to(self, time_s: float) -> Picture | None:
        if self._unforeseen is None:
            self._decoder.reset()
            self._unforeseen = self._all()
        for picture in self._unforeseen:
            if picture.time_s >= time_s:
                return picture if picture.time_s == time_s else None
        return None

    def _all(self) -> Iterator[Picture]:
        for packet in self._held.sequence.packets:
            yield from self._decoder.decode(packet)
        yield from self._decoder.flush()
