"""The encoded packets of the last seconds of a stream, kept so that they can be looked at again."""

from collections import deque

from pipeline.flow.source import Packet

RING_BYTES = 32 * 2**20
"""Encoded bytes that a ring holds at most. A stream whose GOP is larger cannot be looked at again."""
LAG_S = 2.0
"""A live sample may be decided so long after its packet came; its interval must still be held. What is
decided later, behind a closer look that took long, is not looked at: a second more would take 0.4 MB a
stream."""


class PacketRing:
    """Whole GOPs, the newest ``keep_s`` seconds of stream time at least, in decode order.

    ``held_bytes`` is their size: at most ``RING_BYTES``, for which the oldest GOPs are given up."""

    def __init__(self, keep_s: float) -> None:
        self.held_bytes = 0
        self._keep_s = keep_s
        self._gops: deque[list[Packet]] = deque()

    def add(self, packet: Packet) -> None:
        """The stream's next packet; what comes before the first keyframe is not kept."""
        if packet.keyframe:
            self._gops.append([])
        if not self._gops:
            return
        self._gops[-1].append(packet)
        self.held_bytes += packet.size
        oldest = packet.time_s - self._keep_s
        while len(self._gops) > 1 and (self._gops[1][0].time_s <= oldest or self.held_bytes > RING_BYTES):
            self._drop()
        if self.held_bytes > RING_BYTES:
            self._drop()

    def since(self, time_s: float) -> list[Packet]:
        """What must be fed to a decoder for every picture from ``time_s`` on, from a keyframe; [] when that
        is not held any more."""
        start = None
        for index, gop in enumerate(self._gops):
            if gop[0].time_s > time_s:
                break
            start = index
        if start is None:
            return []
        return [packet for index, gop in enumerate(self._gops) if index >= start for packet in gop]

    def clear(self) -> None:
        """Forget everything."""
        self._gops.clear()
        self.held_bytes = 0

    def _drop(self) -> None:
        self.held_bytes -= sum(packet.size for packet in self._gops.popleft())
