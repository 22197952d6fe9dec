"""A file by its index: keyframes that are not wanted are never read, those that will be are decoded ahead.

The sampler takes each keyframe from the index, unread, with its time: what it then orders is fetched. Where
the packets between two keyframes may change a decision, they are read (``Sampler.rests`` says when not); so
the samples are those of reading from front to back."""

from bisect import bisect_right
from collections import abc
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import chain

from pipeline.errors import DecodeError, FramewardenError, SourceError
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.rehearse import Sequence
from pipeline.flow.sample import Sampler
from pipeline.flow.sample_ahead import with_last
from pipeline.flow.source import Packet, Source, StreamInfo
from pipeline.service.admission import Admission
from pipeline.service.ahead import Ahead
from pipeline.service.sequences import Replay, Sequences, Upcoming

SAME_S = 1e-3
NEAR_S = 0.1
"""A keyframe may lie so far from where the index says: an index of decoding times (MP4) does not know of a
display order that changes."""
UNREAD = -(2**40)
"""Tags of keyframes from the index: below all that a source gives, and rising."""

Packets = Generator[tuple[Packet, bool], None, int | None]


def unread(number: int, time_s: float) -> Packet:
    """A keyframe as the index knows it: ``data`` is fetched when it is needed."""
    return Packet(time_s, keyframe=True, size=0, arrived=0.0, pts=UNREAD + number)


class Fetching:
    """A ``Decoder`` that also takes unread keyframes. Used by one thread; ``keys`` is its own."""

    def __init__(
        self,
        decoder: Decoder,
        sampler: Sampler,
        keys: Source,
        info: StreamInfo,
        admission: Admission,
        ahead: Ahead,
    ) -> None:
        self.changed = False  # the parameters did, on the way: from there on packets must come in their order
        self._decoder = decoder
        self._sampler = sampler
        self._keys = keys
        self._info = info
        self._admission = admission
        self._ahead = ahead
        self._started: dict[int, Future[Picture | None]] = {}
        self._sequences = Sequences(info, admission, ahead)
        self._replay: Replay | None = None
        self._foreseen = False  # since the last keyframe that was decoded

    @property
    def damaged(self) -> int:
        """Pictures that were not given because they were damaged."""
        return self._decoder.damaged

    def still(self, packet: Packet) -> Picture | None:
        """See ``Decoder.still``. What could not be decoded ahead is decoded again, to say what is wrong."""
        self._foreseen = False
        started = self._started.pop(packet.pts, None)
        picture = self._ahead.finished(started) if started is not None else None
        return self._decoder.still(self._fetched(packet)) if picture is None else picture

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """See ``Decoder.decode``. A sequence that was decoded ahead is shown as if it were decoded now."""
        if packet.keyframe:
            held = self._sequences.take(packet)
            before = self.flush() if held is not None or self._replay is not None else ()
            self._replay = Replay(held, self._sampler, self._decoder) if held is not None else None
            return chain(before, self._fed(packet, wanted))
        return self._fed(packet, wanted)

    def flush(self) -> Iterable[Picture]:
        """See ``Decoder.flush``."""
        if self._replay is None:
            return self._decoder.flush()
        rest = list(self._replay.flush())
        self.reset()
        return rest

    def reset(self) -> None:
        """See ``Decoder.reset``."""
        self._replay = None
        self._decoder.reset()

    def close(self) -> None:
        """Forget what was begun; the decoder itself is its owner's to close."""
        self._forget(0)
        self._sequences.forget()

    def foresee(self, coming: Iterator[Sequence]) -> None:
        """Every packet is fed from now on: decode these sequences ahead, and no single keyframes any more."""
        self._forget(0)
        self._sequences.foresee(self._sampler, coming)

    def begin(self, coming: Iterable[Packet], first: int) -> None:
        """Decode these keyframes ahead, as many as there is room for; of those before number ``first`` none
        is wanted any more. Once for each keyframe that is decoded: ``coming`` may be long to go through."""
        if self._foreseen:
            return
        self._foreseen = True
        self._forget(UNREAD + first)
        while not self.changed and self._ahead.reserve():
            packet = next((one for one in coming if one.pts not in self._started), None)
            try:
                real = self._fetched(packet) if packet is not None else None
            except FramewardenError:
                real = None  # it will be said when it is wanted
            if packet is None or real is None:
                self._ahead.release()
                return
            self._started[packet.pts] = self._ahead.start(partial(self._alone, real))

    def _fed(self, packet: Packet, wanted: bool) -> Iterable[Picture]:
        if self._replay is not None:
            return self._replay.decode(packet)
        return self._decoder.decode(self._fetched(packet), wanted=wanted)

    def _forget(self, before: int) -> None:
        for tag in [tag for tag in self._started if tag < before]:
            self._ahead.give_up(self._started.pop(tag))

    def _alone(self, packet: Packet) -> Picture | None:
        """Another thread decodes a keyframe; None when that fails."""
        try:
            with self._admission.decoder(self._info) as decoder:
                return decoder.still(packet)
        except FramewardenError:
            return None

    def _fetched(self, packet: Packet) -> Packet:
        """The packet with its data. :raises DecodeError: it is not where the index says."""
        if packet.data is not None:
            return packet
        self._keys.seek(packet.time_s)
        real = next(iter(self._keys), None)
        if real is None or not real.keyframe or abs(real.time_s - packet.time_s) > NEAR_S:
            raise DecodeError(
                f"the file's index names a keyframe at {packet.time_s:.3f} s, but there is none"
            )
        self.changed = self.changed or real.parameters_changed
        return real._replace(pts=packet.pts)


class Skim:
    """One pass over a file: ``source`` reads on where that is needed, ``keys`` fetches the rest."""

    def __init__(
        self, source: Source, keys: Source, times: abc.Sequence[float], sampler: Sampler, decoder: Fetching
    ) -> None:
        self.decoder = decoder
        self._source = source
        self._keys = keys
        self._times = times
        self._sampler = sampler

    def packets(self, from_s: float | None) -> Iterator[tuple[Packet, bool]]:
        """What the sampler is to take, and whether it is the file's last packet; from the keyframe at or
        before ``from_s`` on. Each must have been taken before the next is asked for.

        :raises SourceError: the file cannot be read on."""
        number = 0 if from_s is None else max(0, bisect_right(self._times, from_s) - 1)
        while number + 1 < len(self._times) and not self.decoder.changed:
            coming = (unread(n, self._times[n]) for n in range(number, len(self._times) - 1))
            self.decoder.begin(self._sampler.forecast(coming), number)
            yield unread(number, self._times[number]), False
            if self._sampler.rests(self._times[number + 1]):
                number += 1
                continue
            following = yield from self._read_on(number)
            if following is None:
                return
            number = following
        yield from with_last(self._from(self._times[number]))

    def since(self, time_s: float) -> Iterator[Packet]:
        """All packets from the keyframe at or before ``time_s`` on, as far as they can be read."""
        try:
            self._keys.seek(time_s)
            yield from self._keys
        except SourceError:
            return

    def _read_on(self, number: int) -> Packets:
        """What follows this keyframe, up to where the sampler rests; gives the number of the keyframe that
        comes next, None at the end of the file."""
        packets = Upcoming(with_last(self._from(self._times[number])))
        for packet, last in packets:
            if abs(packet.time_s - self._times[number]) < SAME_S and packet.keyframe and not last:
                continue  # it was taken
            if packet.keyframe and self._sampler.plan != "keyframes":
                self.decoder.foresee(packets.sequences())
            yield packet, last
            following = bisect_right(self._times, packet.time_s + SAME_S) if packet.keyframe else None
            if following is None or following == len(self._times):
                continue
            if self._sampler.rests(self._times[following]):
                return following
        return None

    def _from(self, time_s: float) -> Iterator[Packet]:
        """The packets from this keyframe on."""
        self._source.seek(time_s)
        begun = False
        for packet in self._source:
            begun = begun or (packet.keyframe and packet.time_s > time_s - SAME_S)
            if begun:
                yield packet


@contextmanager
def by_index(
    source: Source,
    sampler: Sampler,
    decoder: Decoder,
    admission: Admission,
    ahead: Ahead,
) -> Iterator[Skim | None]:
    """Go over a file by its index; None: it has none that can be relied on, read it from front to back."""
    try:
        keys = source.again()
    except SourceError:
        yield None
        return
    with keys:
        try:
            times = keys.keyframes()
        except SourceError:
            times = ()
        if not times:
            yield None
            return
        fetching = Fetching(decoder, sampler, keys, source.info, admission, ahead)
        try:
            yield Skim(source, keys, times, sampler, fetching)
        finally:
            fetching.close()
