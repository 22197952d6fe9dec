"""Results in the order of the stream, whatever order they were computed in."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.classify import ModelInfo
from pipeline.service.messages import Begin, End, Gone, Message, Sample, Trouble


@dataclass(frozen=True, slots=True)
class Model:
    """What policy needs to know of an engine: ``categories`` are the columns of its scores."""

    info: ModelInfo
    categories: tuple[str, ...]


@dataclass(slots=True)
class Verdict:
    """A sample with what the models said of it: for each category the highest score and the model that gave
    it.

    ``dropped``: at least one of its models never saw it. ``scored_at`` is monotonic seconds."""

    sample: Sample
    waiting: set[str]
    scores: dict[str, tuple[float, ModelInfo]] = field(default_factory=dict)
    dropped: bool = False
    scored_at: float = 0.0


class Sequencer:
    """Takes a stream's messages and the scores of its samples; gives back what is settled, in the reader's
    order."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models
        self._queue: deque[Verdict | Begin | Trouble | End | Gone] = deque()
        self._open: dict[int, Verdict] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be settled."""
        return not self._queue

    def push(self, message: Message) -> None:
        """Take the reader's next message."""
        if not isinstance(message, Sample):
            self._queue.append(message)
            return
        waiting = {model for model, frame in message.frames.items() if frame is not None}
        verdict = Verdict(message, waiting, dropped=len(waiting) < len(message.frames))
        self._queue.append(verdict)
        self._open[message.number] = verdict

    def scored(self, number: int, model: str, row: NDArray[np.float32], now: float) -> None:
        """``row`` is the model's scores of sample ``number``: one a category, 0..1."""
        verdict = self._open[number]
        verdict.waiting.discard(model)
        verdict.scored_at = now
        known = self._models[model]
        scores: list[Any] = row.tolist()
        for category, score in zip(known.categories, scores, strict=True):
            if category not in verdict.scores or score > verdict.scores[category][0]:
                verdict.scores[category] = (score, known.info)

    def dropped(self, number: int, model: str) -> None:
        """The sample's frame for this model was not worth scoring any more."""
        verdict = self._open[number]
        verdict.waiting.discard(model)
        verdict.dropped = True

    def settled(self) -> Iterator[Verdict | Begin | Trouble | End | Gone]:
        """What can be decided now, up to the first sample that still waits for a score."""
        while self._queue:
            entry = self._queue[0]
            if isinstance(entry, Verdict):
                if entry.waiting:
                    return
                self._open.pop(entry.sample.number, None)
            self._queue.popleft()
            yield entry
