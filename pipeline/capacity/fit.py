"""Shares of a server, how many more streams fit, and which bound is hit first. Pure arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf

from pipeline.capacity.supply import Resource, Server

Need = Mapping[Resource, float]
"""What a stream takes of each resource, in the unit of the server's figure."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Bound:
    """One resource under a set of streams. ``share`` is of all there is, fixed part included; ``each`` is the
    mean stream's share. ``carries`` is how many mean streams fit in all, ``more`` how many on top of these;
    None: no end, the streams need none of it."""

    resource: Resource
    share: float
    fixed: float
    each: float
    carries: int | None
    more: int | None


@dataclass(frozen=True, slots=True)
class Fit:
    """All bounds of a server, and the one that is hit first (None: nothing is needed of any)."""

    bounds: tuple[Bound, ...]
    first: Resource | None
    usable: float

    @property
    def carries(self) -> int | None:
        """Mean streams that one such server carries."""
        return self._least([bound.carries for bound in self.bounds])

    @property
    def more(self) -> int | None:
        """Mean streams that fit on top of these; 0 when full."""
        return self._least([bound.more for bound in self.bounds])

    @property
    def fits(self) -> bool:
        """Whether these streams themselves keep to the usable share of everything."""
        return all(bound.share <= self.usable + _ROUNDING for bound in self.bounds)

    @staticmethod
    def _least(counts: Sequence[int | None]) -> int | None:
        return min((count for count in counts if count is not None), default=None)


def fit(server: Server, needs: Sequence[Need], usable: float) -> Fit:
    """The streams that take ``needs``, on one server of which the share ``usable`` is planned with."""
    bounds = tuple(_bound(server, resource, needs, usable) for resource in server.has)
    tight = [bound for bound in bounds if bound.carries is not None]
    first = min(tight, key=lambda bound: (bound.carries or 0, -bound.share), default=None)
    return Fit(bounds, first.resource if first else None, usable)


def _bound(server: Server, resource: Resource, needs: Sequence[Need], usable: float) -> Bound:
    amount = server.has[resource]
    has = amount.figure.value
    taken = sum(need.get(resource, 0.0) for need in needs)
    mean = taken / len(needs) if needs else 0.0
    fixed = _ratio(amount.fixed, has)
    each = _ratio(mean, has)
    room = usable + _ROUNDING - fixed
    carries = None if room >= 0 else 0
    if each > 0:
        carries = max(0, floor(room / each))
    more = None if carries is None else max(0, carries - len(needs))
    return Bound(resource, fixed + _ratio(taken, has), fixed, each, carries, more)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else inf if part > 0 else 0.0
