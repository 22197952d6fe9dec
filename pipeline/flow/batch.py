"""Which frames are scored together, and when."""

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from pipeline.errors import ConfigError
from pipeline.flow.frames import Frame


@dataclass(frozen=True, slots=True)
class BatchRules:
    """A batch holds at most ``max_size`` frames; a live one waits at most ``max_wait_s`` until ``enough`` are
    there, a file's ``file_wait_s``: its reader waits for the decision, so hardly more would come.

    A live frame is not scored any more when it arrived over ``stale_s`` seconds ago."""

    max_size: int = 16
    max_wait_s: float = 0.05
    file_wait_s: float = 0.15
    stale_s: float = 2.0
    enough: int | None = None
    """None: as many as a batch holds."""

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ConfigError(f"batch: max_size: {self.max_size}: at least 1 is needed")
        if self.enough is not None and self.enough < 1:
            raise ConfigError(f"batch: enough: {self.enough}: at least 1 is needed")
        if not self.max_wait_s >= 0.0:
            raise ConfigError(f"batch: max_wait_s: {self.max_wait_s}: 0 or more seconds are needed")
        if not self.stale_s > 0.0:
            raise ConfigError(f"batch: stale_s: {self.stale_s}: more than 0 seconds are needed")


@dataclass(slots=True)
class Batch:
    """Frames of one pool that are scored together; leaving its ``with`` block gives every slot back.

    The frames of one stream are in the order of their times. It may be empty: all that waited was stale."""

    frames: list[Frame]

    @property
    def pixels(self) -> Any:
        """The batch tensor, rows in the order of ``frames``. Only for a batch that is not empty."""
        return self.frames[0].pool.gather(self.frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _release(self.frames)


class _Waiting(NamedTuple):
    number: int
    since: float
    frame: Frame


@dataclass(slots=True)
class _Queue:
    """Frames in a line for each stream; the streams take turns."""

    lines: dict[int, deque[_Waiting]] = field(default_factory=dict)
    turns: deque[int] = field(default_factory=deque)
    size: int = 0

    def put(self, waiting: _Waiting) -> None:
        stream = waiting.frame.stream
        if stream not in self.lines:
            self.lines[stream] = deque()
            self.turns.append(stream)
        self.lines[stream].append(waiting)
        self.size += 1

    def pop(self) -> _Waiting:
        """The first frame of the stream whose turn it is; the stream goes to the end of the turns."""
        stream = self.turns.popleft()
        line = self.lines[stream]
        waiting = line.popleft()
        self.size -= 1
        if line:
            self.turns.append(stream)
        else:
            del self.lines[stream]
        return waiting

    def drop(self, before: float) -> list[Frame]:
        """Take out all frames that arrived before that time."""
        old: list[Frame] = []
        for stream, line in list(self.lines.items()):
            fresh = deque(waiting for waiting in line if waiting.frame.arrived >= before)
            if len(fresh) == len(line):
                continue
            old += [waiting.frame for waiting in line if waiting.frame.arrived < before]
            if fresh:
                self.lines[stream] = fresh
            else:
                del self.lines[stream]
                self.turns.remove(stream)
        self.size -= len(old)
        return old


class Batcher:
    """Collects the frames of one model into batches: of enough or due, fair, nothing lost.

    No thread and no clock: ``now`` is monotonic seconds, handed in by the one caller.

    - Streams take turns, a stream's frames stay in order: of two streams of a kind that both wait, none ever
      gets more than one frame ahead of the other.
    - Live goes before file, but while frames of files wait they have a quarter of the places.
    - Every frame that was put comes out once, in a batch or among the stale; no file's frame is stale."""

    def __init__(self, rules: BatchRules) -> None:
        self.rules = rules
        self._live = _Queue()
        self._file = _Queue()
        self._number = 0
        self._owed = 0.0

    def __len__(self) -> int:
        """Frames that wait."""
        return self._live.size + self._file.size

    def put(self, frame: Frame, now: float | None = None) -> None:
        """Add a frame, ready at ``now`` (left out: when it arrived). Those of a stream come in order."""
        self._number += 1
        queue = self._live if frame.live else self._file
        queue.put(_Waiting(self._number, frame.arrived if now is None else now, frame))

    def due(self, now: float) -> float | None:
        """Seconds until a batch is to be taken: 0 when enough wait or one waited too long; None: none
        waits."""
        if not len(self):
            return None
        if len(self) >= min(self.rules.enough or self.rules.max_size, self.rules.max_size):
            return 0.0
        waits = ((self._live, self.rules.max_wait_s), (self._file, self.rules.file_wait_s))
        return max(0.0, min(line[0].since + s for queue, s in waits for line in queue.lines.values()) - now)

    def take(self, now: float) -> tuple[Batch, list[Frame]]:
        """The next batch, and the stale live frames: released already, for the caller to count."""
        stale = self._live.drop(now - self.rules.stale_s)
        _release(stale)
        files = self._places_for_files()
        live = min(self._live.size, self.rules.max_size - files)
        taken = [self._live.pop() for _ in range(live)] + [self._file.pop() for _ in range(files)]
        taken.sort()  # as they were put: their slots are then neighbours as a rule, and gathering is free
        return Batch([waiting.frame for waiting in taken]), stale

    def _places_for_files(self) -> int:
        """What live leaves free, but a quarter at least; parts of a place are saved up for a later batch."""
        size = self.rules.max_size
        self._owed = self._owed + size / 4 if self._file.size else 0.0
        files = min(self._file.size, size, max(int(self._owed), size - self._live.size))
        self._owed = min(max(0.0, self._owed - files), 1.0)  # only parts: places not wanted now are not owed
        return files

    def clear(self) -> list[Frame]:
        """Release all that waits and return it, for the caller to count: the end of the run."""
        left = [
            waiting.frame
            for queue in (self._live, self._file)
            for line in queue.lines.values()
            for waiting in line
        ]
        self._live, self._file = _Queue(), _Queue()
        _release(left)
        return left


def _release(frames: list[Frame]) -> None:
    """Release all of them, even if one of the releases raises."""
    with ExitStack() as stack:
        for frame in frames:
            stack.callback(frame.release)
