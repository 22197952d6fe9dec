"""What a server has of each resource."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.capacity.figures import Figure

Resource = Literal["nvdec", "engine", "gpu_memory", "cpu", "interpreter", "memory", "network"]
TITLES: dict[Resource, str] = {
    "nvdec": "NVDEC",
    "engine": "engine",
    "gpu_memory": "GPU memory",
    "cpu": "CPU",
    "interpreter": "Python",
    "memory": "memory",
    "network": "network",
}
"""In the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much there is (``figure``), and how much of it is gone before the first stream (``fixed``)."""

    figure: Figure
    fixed: float = 0.0
    why_fixed: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**self.figure.as_json(), "fixed": self.fixed, "why_fixed": self.why_fixed}


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its resources, and what it is called."""

    title: str
    has: Mapping[Resource, Amount]
