"""What a sampler will keep of a sequence that it has not come to yet."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.flow.sample import Sampler
from pipeline.flow.source import Packet


@dataclass(frozen=True, slots=True)
class Sequence:
    """A keyframe and all packets up to the next one, ``following``, in decode order. None of its pictures
    needs or precedes another sequence's."""

    packets: list[Packet]
    following: Packet


class Showing:
    """When the pictures of a sequence come out of a decoder: each when all up to its successor were fed.

    ``pending`` were fed and have not come out, ``times`` are still to be fed."""

    def __init__(self, times: Iterable[float], pending: Iterable[float] = ()) -> None:
        self._unfed = sorted(times)
        self._pending = sorted(pending)

    def feed(self, time_s: float) -> list[float]:
        """A packet is fed: the times of the pictures that come out now."""
        place = bisect_left(self._unfed, time_s)
        if place < len(self._unfed) and self._unfed[place] == time_s:
            del self._unfed[place]
            insort(self._pending, time_s)
        come = len(self._pending)
        if self._unfed:
            come = max(0, bisect_left(self._pending, self._unfed[0]) - 1)
        shown, self._pending = self._pending[:come], self._pending[come:]
        return shown

    def rest(self) -> list[float]:
        """What has not come out, though it was fed."""
        shown, self._pending = self._pending, []
        return shown


class Rehearsal:
    """A twin of a sampler in whose plan every packet is fed, one sequence after the other ahead of it."""

    def __init__(self, sampler: Sampler) -> None:
        self._twin = sampler.twin()
        self._showing = Showing((), sampler.pending)
        self._taken: Packet | None = None

    def picks(self, sequence: Sequence) -> tuple[float, ...] | None:
        """The times of the pictures that will be kept of the next sequence, rising. None: in it the plan will
        change, or something is watched; that is the end of the rehearsal."""
        first, kept = sequence.packets[0].time_s, list[float]()
        for packet in [*sequence.packets, sequence.following]:
            if packet is self._taken:  # as what followed the sequence before
                continue
            for order in self._twin.take(packet):
                if order.kind != "feed" or order.packet is None or self._twin.watching:
                    return None
                shown = self._fed(order.packet, sequence)
                kept += [time_s for time_s in shown if self._twin.wants(time_s) and time_s >= first]
        self._taken = sequence.following
        return tuple(kept)

    def _fed(self, packet: Packet, sequence: Sequence) -> list[float]:
        if not packet.keyframe:
            return self._showing.feed(packet.time_s)
        before = self._showing.rest()
        self._showing = Showing(one.time_s for one in sequence.packets)
        return before + self._showing.feed(packet.time_s)
