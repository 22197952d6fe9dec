"""What a thousand streams take: servers, watts and money, beside one CPU core a stream. Pure arithmetic."""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Prices:
    """Money an hour of a core and of a card, and their watts. A server is its cores and its cards."""

    core_hour: float = 0.04
    core_watts: float = 5.0
    card_hour: float = 0.0
    card_watts: float = 0.0


DEFAULT = Prices()
"""Assumed, in no currency: about what a cloud asks for a core, and what a server draws by core."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What so many streams take."""

    streams: int
    servers: int
    cores: float
    watts: float
    month: float

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def bill(streams: int, carries: int | None, cores: float, cards: int, prices: Prices) -> Bill | None:
    """On servers of ``cores`` and ``cards`` that carry ``carries`` streams each; None: they carry none."""
    if not carries:
        return None
    servers = ceil(streams / carries)
    return _bill(streams, servers, servers * cores, servers * cards, prices)


def core_a_stream(streams: int, cores: float, prices: Prices) -> Bill:
    """The same with one core a stream, on servers of ``cores`` without cards."""
    return _bill(streams, ceil(streams / cores), streams, 0, prices)


def _bill(streams: int, servers: int, cores: float, cards: int, prices: Prices) -> Bill:
    watts = cores * prices.core_watts + cards * prices.card_watts
    hour = cores * prices.core_hour + cards * prices.card_hour
    return Bill(streams, servers, cores, watts, hour * HOURS_A_MONTH)
