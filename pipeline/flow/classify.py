"""A batch to scores."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.frames import InputSpec

Scores = NDArray[np.float32]
"""Shape (frames, categories), each 0..1, float32."""
Turn = Callable[[], AbstractContextManager[object]]
"""What a thread enters while it fills a core."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an event says of the model that scored it. ``preprocess`` names the conversion's version."""

    name: str
    version: str
    sha256: str
    preprocess: str
    engine: str


class Classifier(Protocol):
    """One engine. A row depends neither on its batch mates nor on padding.

    ``thresholds`` are the scores at which something is decided. An engine that is exact has no use for them;
    one that is not takes more care near them. They may be set anew while it scores: the next batch has
    them.

    Where pictures are scored ``side_by_side``, one or two by a thread of its own, a picture gains nothing
    from more company than that, and each thread enters ``turn`` for what it scores at once. Others share a
    batch among their threads or have it on a GPU, and never enter it."""

    info: ModelInfo
    spec: InputSpec
    categories: tuple[str, ...]
    max_batch: int
    thresholds: tuple[float, ...]
    side_by_side: bool
    turn: Turn

    def infer(self, pixels: Any) -> Scores:
        """Score a batch tensor of 1..``max_batch`` frames, as the pool's ``gather`` gives it.

        :raises BackendError: the engine failed."""

    def close(self) -> None:
        """Free the engine. Nothing may be scored after; to close again does nothing."""
