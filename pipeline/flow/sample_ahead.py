"""What is to be expected of a stream: the next keyframe, the next picture, and whether there is one."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from copy import copy

from pipeline.errors import SourceError
from pipeline.flow.source import Packet

DENSE_S = 0.25
"""Pictures of a live stream that follow each other this closely are fed one late, so that the time of the
next is known; sparser ones at once, because a second of delay costs more than a picture too many."""

AHEAD = 1024
"""Packet times remembered at most while their pictures are in the decoder."""

GOPS_TO_TRUST = 3
"""So many good GOPs in a row lead back to the keyframes; none is passed over before so many are known."""

GOPS_TO_EXPECT = 8
"""The longest of so many is the one to expect: scene cuts put short ones between."""


class Gops:
    """Distances in seconds between keyframes: ``longest_s`` of the last few, and how many are ``known``."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=GOPS_TO_EXPECT)
        self._keyframe_s: float | None = None

    def add(self, time_s: float) -> None:
        """A keyframe came."""
        if self._keyframe_s is not None and time_s > self._keyframe_s:
            self._latest.append(time_s - self._keyframe_s)
        self._keyframe_s = time_s

    @property
    def begun(self) -> bool:
        return self._keyframe_s is not None

    @property
    def known(self) -> int:
        return len(self._latest)

    @property
    def longest_s(self) -> float | None:
        return max(self._latest, default=None)

    def good(self, limit_s: float) -> bool:
        """Whether the latest three are all short enough."""
        return self.known >= GOPS_TO_TRUST and max(list(self._latest)[-GOPS_TO_TRUST:]) <= limit_s

    def trust(self) -> None:
        """Forget all but the latest three."""
        self._latest = deque(list(self._latest)[-GOPS_TO_TRUST:], maxlen=GOPS_TO_EXPECT)


class Ahead:
    """Delays packets by one and remembers their times, for one run of feeding.

    The decoder gives a picture when the packets after it in presentation order are likely to have been seen;
    if one was not, ``following`` answers too late rather than too early: that costs a sample, not a gap."""

    def __init__(self, fed: Iterable[Packet] = (), *, live: bool) -> None:
        self._live = live
        self._waiting: Packet | None = None
        self._times = sorted(packet.time_s for packet in fed)
        self._before_s: float | None = None
        self._interval = 0.0

    @property
    def interval_s(self) -> float:
        """The longest distance between pictures of late, in seconds; 0 when none is known."""
        return self._interval

    def feed(self, packet: Packet) -> list[Packet]:
        """The packets to be fed now, in order."""
        insort(self._times, packet.time_s)
        if len(self._times) > AHEAD:  # their pictures were lost
            del self._times[: AHEAD // 2]
        ready = [packet] if self._waiting is None else [self._waiting, packet]
        wait = not self._live or self._interval <= DENSE_S
        self._waiting = ready.pop() if wait else None
        return ready

    def end(self) -> list[Packet]:
        """The packet that still waits, if one does."""
        waiting, self._waiting = self._waiting, None
        return [] if waiting is None else [waiting]

    def came(self, time_s: float) -> None:
        """A picture came out of the decoder."""
        self._interval, self._before_s = self._interval_at(time_s), time_s
        del self._times[: bisect_right(self._times, time_s)]

    def following(self, time_s: float) -> float:
        """When the picture after the one at ``time_s``, which is about to come, is due: seen among the
        packets, else estimated."""
        after = bisect_right(self._times, time_s)
        return self._times[after] if after < len(self._times) else time_s + self._interval_at(time_s)

    @property
    def pending(self) -> list[float]:
        """Times of packets whose pictures have not come."""
        return list(self._times)

    def twin(self) -> "Ahead":
        """A copy that goes its own way."""
        other = copy(self)
        other._times = list(self._times)
        return other

    def _interval_at(self, time_s: float) -> float:
        if self._before_s is None:
            return self._interval
        return max(time_s - self._before_s, 0.9 * self._interval)


def with_last(packets: Iterable[Packet]) -> Iterator[tuple[Packet, bool]]:
    """A file's packets, each with whether it is the last one: the arguments of ``pictures``.

    A file that breaks off gives its last packet, too, before the error is raised."""
    before: Packet | None = None
    failure: SourceError | None = None
    try:
        for packet in packets:
            if before is not None:
                yield before, False
            before = packet
    except SourceError as error:
        failure = error
    if before is not None:
        yield before, True
    if failure is not None:
        raise failure
