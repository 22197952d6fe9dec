"""Packets in, pictures out, with their own times: what ``decode_nvdec`` does with one hardware decoder."""

from collections.abc import Callable

from pipeline.backends.device_surface import DeviceSurface
from pipeline.backends.nvdec_session import Session
from pipeline.flow.decode import Picture
from pipeline.flow.source import Packet

MAX_IN_FLIGHT = 512
"""Packets whose picture may still come; far more than any codec reorders."""


class Feed:
    """A hardware decoder and the packets whose pictures it still owes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.broken = False
        self._in_flight: dict[int, tuple[float, float]] = {}
        self._from_s = 0.0
        self._started = False
        self._leftover = False  # the parser holds what is not wanted any more

    @property
    def started(self) -> bool:
        """Whether a GOP is being fed."""
        return self._started

    def feed(self, packet: Packet, data: bytes, *, wanted: bool = True) -> list[Picture]:
        """:raises DecodeError: the packet is damaged; ``drain``, then start anew with a keyframe."""
        after_gap = not self._started
        if after_gap:
            self.forget()
            self._from_s = packet.time_s
        self._started = self._leftover = True
        if wanted:
            self._in_flight[packet.pts] = (packet.time_s, packet.arrived)
        if len(self._in_flight) > MAX_IN_FLIGHT:
            del self._in_flight[next(iter(self._in_flight))]
        return self._pictures(lambda: self.session.feed(data, packet.pts, after_gap=after_gap))

    def drain(self) -> list[Picture]:
        """All that is owed; a keyframe has to start anew."""
        if not self._leftover:
            return []
        self._started = self._leftover = False
        found = self._pictures(self.session.drain)
        self._in_flight.clear()
        return found

    def stop(self) -> None:
        """Owe nothing; what is buffered is thrown away before the next keyframe."""
        self._started = False
        self._in_flight.clear()

    def forget(self) -> None:
        """Throw away what is buffered."""
        self.stop()
        self.drain()

    def close(self) -> None:
        """After this, no surface of it may be used by work that is not queued yet."""
        self.stop()
        self.session.close(sound=not self.broken)

    def _pictures(self, ask: Callable[[], list[tuple[int, DeviceSurface]]]) -> list[Picture]:
        found = []
        about = self.session.sequence
        for tag, surface in ask():
            known = self._in_flight.pop(tag, None)
            if known is not None and known[0] >= self._from_s:
                found.append(Picture(known[0], about.width, about.height, known[1], about.rotation, surface))
        return found
