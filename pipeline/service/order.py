"""Results in the order of the stream, whatever order they were computed in."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.classify import ModelInfo
from pipeline.service.messages import Begin, End, Gone, Looked, LookSample, Message, Sample, Trouble


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

    sample: Sample | LookSample
    waiting: set[str]
    scores: dict[str, tuple[float, ModelInfo]] = field(default_factory=dict)
    dropped: bool = False
    scored_at: float = 0.0


class Sequencer:
    """Takes a stream's messages and the scores of its samples; gives back what is settled, in the reader's
    order. While a closer look is out, nothing that comes after the sample which asked for it is given."""

    def __init__(self) -> None:
        self._queue: deque[Verdict | Begin | Trouble | End | Gone] = deque()
        self._open: dict[int, Verdict] = {}
        self._look: int | None = None
        self._looked: list[Verdict] = []
        self._answered = False
        self._over = False  # the reader has left the session: a look would not be answered

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be settled."""
        return not self._queue

    @property
    def looking(self) -> bool:
        """Whether a closer look is out."""
        return self._look is not None

    @property
    def over(self) -> bool:
        """Whether the reader has left the session that is being decided: it would not answer a look."""
        return self._over or any(isinstance(entry, End | Gone) for entry in self._queue)

    def look(self, number: int) -> None:
        """A closer look was asked for: hold everything back until it is answered."""
        self._look, self._looked, self._answered = number, [], False

    def answer(self, *, give_up: bool) -> list[Verdict] | None:
        """What the closer look saw, once all of it is scored; with ``give_up`` as far as it is. None: not
        yet."""
        whole = self._answered and not any(verdict.waiting for verdict in self._looked)
        if not (whole or give_up):
            return None
        seen = [verdict for verdict in self._looked if not verdict.waiting and not verdict.dropped]
        for verdict in self._looked:
            if not verdict.waiting:
                self._open.pop(verdict.sample.number, None)
        self._look, self._looked = None, []
        return sorted(seen, key=lambda verdict: verdict.sample.time_s)

    def push(self, message: Message) -> None:
        """Take the reader's next message."""
        if isinstance(message, Looked):
            self._answered = self._answered or message.look == self._look
            return
        if not isinstance(message, Sample | LookSample):
            self._queue.append(message)
            self._over = isinstance(message, End | Gone) or (self._over and isinstance(message, Trouble))
            self._answered = self._answered or self._over  # the reader has left: no more will come of a look
            return
        waiting = {model for model, frame in message.frames.items() if frame is not None}
        verdict = Verdict(message, waiting, dropped=len(waiting) < len(message.frames))
        self._open[message.number] = verdict
        if isinstance(message, Sample):
            self._queue.append(verdict)
        elif message.look == self._look:
            self._looked.append(verdict)
        else:
            self._stray(verdict)

    def scored(
        self, number: int, name: str, model: Model, row: NDArray[np.float32], now: float
    ) -> float | None:
        """``row`` is the scores of sample ``number``, one a category of ``model``, 0..1; the config calls it
        ``name``. Returns when it was ready to be decoded; None for a picture of a closer look, which arrived
        long before its own ``arrived``."""
        verdict = self._open[number]
        verdict.waiting.discard(name)
        verdict.scored_at = now
        self._stray(verdict)
        scores: list[Any] = row.tolist()
        for category, score in zip(model.categories, scores, strict=True):
            if category not in verdict.scores or score > verdict.scores[category][0]:
                verdict.scores[category] = (score, model.info)
        return verdict.sample.ready if isinstance(verdict.sample, Sample) else None

    def dropped(self, number: int, name: str) -> bool:
        """The sample's frame for this model was not worth scoring any more. False for a picture of a closer
        look."""
        verdict = self._open[number]
        verdict.waiting.discard(name)
        verdict.dropped = True
        self._stray(verdict)
        return isinstance(verdict.sample, Sample)

    def _stray(self, verdict: Verdict) -> None:
        """Forget a picture of a look that was given up, once it is scored."""
        sample = verdict.sample
        if isinstance(sample, LookSample) and sample.look != self._look and not verdict.waiting:
            self._open.pop(sample.number, None)

    def settled(self) -> Iterator[Verdict | Begin | Trouble | End | Gone]:
        """What can be decided now, up to the first sample that still waits for a score."""
        while self._queue and not self.looking:
            entry = self._queue[0]
            if isinstance(entry, Verdict):
                if entry.waiting:
                    return
                self._open.pop(entry.sample.number, None)
            self._queue.popleft()
            yield entry
