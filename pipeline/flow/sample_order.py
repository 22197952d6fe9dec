"""What the sampler tells the decoder to do."""

from dataclasses import dataclass
from typing import Literal

from pipeline.flow.source import Packet


@dataclass(frozen=True, slots=True)
class Order:
    """What the decoder is to do next: ``still`` and ``feed`` a packet, ``flush`` or ``reset``. Of a packet
    that is not ``wanted`` no picture will be kept."""

    kind: Literal["still", "feed", "flush", "reset"]
    packet: Packet | None = None
    wanted: bool = True


FLUSH, RESET = Order("flush"), Order("reset")


def feed(packets: list[Packet]) -> list[Order]:
    """Feed them all; each of their pictures may be kept."""
    return [Order("feed", packet) for packet in packets]
