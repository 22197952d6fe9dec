"""A fast engine for every picture, an exact one for those that it might decide wrongly.

A fast engine is off by at most the manifest's tolerance of its precision. So it can decide otherwise than the
exact one only where a score lies within that tolerance of a threshold. Such pictures, hardly any of ordinary
film, are scored again; all others keep their first score."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.classify import Classifier, Scores, Turn
from pipeline.flow.segment_rules import SegmentRules

_RULES = SegmentRules()
THRESHOLDS = (_RULES.watch, _RULES.close, _RULES.open)
"""Of a policy that sets none."""


class CascadeClassifier:
    """Implements ``Classifier`` with two of them, for the same model.

    A row within ``margin`` of one of ``thresholds``, in any category, is ``exact``'s. At the very edge of
    that band it may depend on batch mates whether it is, as far as the fast engine's scores do."""

    def __init__(self, fast: Classifier, exact: Classifier, margin: float) -> None:
        precision = exact.info.engine.rpartition("-")[2]
        self.info = replace(fast.info, engine=f"{fast.info.engine}+{precision}")
        self.spec = fast.spec
        self.categories = fast.categories
        self.max_batch = fast.max_batch
        self.thresholds: tuple[float, ...] = THRESHOLDS
        self.side_by_side = fast.side_by_side
        self.margin = margin
        self.again = 0
        """Pictures that were scored again so far."""
        self._fast = fast
        self._exact = exact

    @property
    def turn(self) -> Turn:
        """Of both engines. See ``Classifier``."""
        return self._fast.turn

    @turn.setter
    def turn(self, turn: Turn) -> None:
        self._fast.turn = self._exact.turn = turn

    def infer(self, pixels: NDArray[np.float32]) -> Scores:
        """See ``Classifier.infer``. Only the rows that are scored again are copied."""
        scores = self._fast.infer(pixels)
        rows = np.flatnonzero(self._near(scores))
        if rows.size:
            scores[rows] = self._exact.infer(pixels[rows])
            self.again += rows.size
        return scores

    def close(self) -> None:
        """Free both engines. Nothing may be scored after; to close again does nothing."""
        self._fast.close()
        self._exact.close()

    def _near(self, scores: Scores) -> NDArray[np.bool_]:
        """Which rows have a score that is not safely on one side of every threshold."""
        apart = np.abs(scores[:, :, None] - np.array(self.thresholds, np.float32))
        return np.asarray((apart <= self.margin).any(axis=(1, 2)))
