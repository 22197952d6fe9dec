"""What a plan is made for: the target and what the command line says of it."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.capacity.cards import CardName
from pipeline.capacity.money import Prices

Target = Literal["cpu"] | CardName

GPU_SERVER_CORES, GPU_SERVER_GB = 16, 64.0
NETWORK_MBIT = 1000.0


@dataclass(frozen=True, slots=True)
class Options:
    """``usable`` is the share of every resource that is planned with. ``cores`` and ``memory_gb`` are the
    server's (None: this machine's for ``cpu``, an assumed server's for a card). ``video_mhz`` is the card's
    video clock, ``engine_rate`` its engine's pictures a second, where they are known better. ``prices`` are
    for the target, ``baseline`` for one core a stream."""

    target: Target
    usable: float = 0.75
    cores: int | None = None
    memory_gb: float | None = None
    network_mbit: float | None = None
    video_mhz: float | None = None
    engine_rate: float | None = None
    streams: int = 1000
    prices: Prices = field(default_factory=Prices)
