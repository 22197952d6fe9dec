"""Numbers that say where they come from."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Basis = Literal["measured", "config", "given", "derived", "assumed"]
"""From the firmest to the weakest."""
BASES: tuple[Basis, ...] = get_args(Basis)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, its unit, where it comes from, and in words how."""

    value: float
    unit: str
    basis: Basis
    source: str

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def weakest(*bases: Basis) -> Basis:
    """What a number is that was made of others: no firmer than the weakest of them."""
    return max(bases, key=BASES.index)
