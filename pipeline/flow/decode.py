"""Packets to pictures."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.flow.source import Packet, StreamInfo


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded picture, opaque outside ``backends/``.

    ``time_s`` is its packet's. ``width`` and ``height`` are pixels as coded; ``rotation`` is in degrees
    clockwise to apply for display. ``surface`` is what the frame pool of the same device reads; it stays
    valid until the next call of the decoder that made it."""

    time_s: float
    width: int
    height: int
    arrived: float
    rotation: int = 0
    surface: Any = field(default=None, repr=False, compare=False)


class Decoder(Protocol):
    """Codec state of one stream. Never resizes, never keeps a picture that it has given.

    Pictures come out in presentation order, each once, with their packet's time. A packet that cannot be
    decoded raises ``DecodeError``; the decoder then drops what depends on it and goes on at the next
    keyframe. Pictures that libavcodec marks corrupt, or rebuilt by concealment, are not given, they are
    counted in ``damaged``."""

    @property
    def damaged(self) -> int:
        """Pictures so far that were not given because they were damaged."""

    def still(self, packet: Packet) -> Picture | None:
        """Decode one keyframe by itself and forget it: no state is kept before or after.

        :raises DecodeError: the packet is damaged."""

    def decode(self, packet: Packet, *, wanted: bool = True) -> Iterable[Picture]:
        """Feed the next packet; give the pictures that are ready. A picture that is not ``wanted`` may be
        left out, undecoded, when no other depends on it.

        :raises DecodeError: the packet is damaged."""

    def flush(self) -> Iterable[Picture]:
        """Give all that is still buffered. The next packet must be a keyframe."""

    def reset(self) -> None:
        """Forget everything buffered. The next packet must be a keyframe."""

    def close(self) -> None: ...


class DecoderFactory(Protocol):
    """Opens the decoder of a session."""

    def __call__(self, info: StreamInfo) -> Decoder:
        """:raises SourceUnsupported: no decoder for this codec."""
