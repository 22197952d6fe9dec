"""A line fitted to what was read over time: does it grow?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WARM_SHARE, WARM_MOST_S = 0.2, 300.0
"""Not fitted: caches fill, pools reach their size."""


@dataclass(frozen=True)
class Line:
    """A line fitted to what was read: per hour, its standard error, and how far readings lie from it."""

    name: str
    first: float
    last: float
    highest: float
    an_hour: float
    error: float
    noise: float
    limit: float

    @property
    def grows(self) -> bool:
        """Above the limit, and not by chance: a short run's readings scatter more than they could rise."""
        return self.an_hour > self.limit and self.an_hour > 3 * self.error


def fit(name: str, readings: Sequence[tuple[float, int, int, float]], place: int, limit: float) -> Line:
    """Least squares over the readings behind the warm-up; hours against the value at ``place``."""
    warm_s = min(WARM_MOST_S, WARM_SHARE * readings[-1][0])
    kept = [reading for reading in readings if reading[0] >= warm_s]
    hours = np.array([reading[0] for reading in kept]) / 3600
    values = np.array([reading[place] for reading in kept], float)
    slope, start = np.polyfit(hours, values, 1)
    noise = float(np.std(values - (slope * hours + start)))
    spread = float(np.sqrt(np.sum((hours - hours.mean()) ** 2)))
    return Line(
        name,
        values[0],
        values[-1],
        float(values.max()),
        float(slope),
        noise / spread,
        noise,
        limit,
    )
