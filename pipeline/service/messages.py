"""What a reader tells the inference thread about its stream, in order."""

from dataclasses import dataclass, field

from pipeline.flow.coverage import Cause
from pipeline.flow.frames import Frame
from pipeline.flow.segment import EndReason
from pipeline.flow.source import StreamInfo


@dataclass(frozen=True, slots=True)
class Item:
    """The file of a session; ``path`` is empty for a live source. ``size`` in bytes, ``mtime`` in Unix
    seconds."""

    path: str = ""
    size: int = 0
    mtime: float = 0.0


@dataclass(frozen=True, slots=True)
class Begin:
    """A session has opened. ``resumed_s`` is the last sample scored before a crash, for a file that goes
    on."""

    session: str
    item: Item
    info: StreamInfo
    clock_s: float
    resumed_s: float | None = None
    ledger: dict[str, object] | None = None
    segments: int = 0
    previous: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to be scored. ``frames`` maps a model's name to its slot; None: there was none, it is
    dropped. ``ready`` is when all had arrived that its decoding needs: later than its own packet where
    pictures are reordered, or were held before it was known that one of them is needed."""

    number: int
    time_s: float
    arrived: float
    ready: float
    frames: dict[str, Frame | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LookSample:
    """A picture of a closer look; like ``Sample``, but it stands between two that were sent before."""

    look: int
    number: int
    time_s: float
    arrived: float
    frames: dict[str, Frame | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Looked:
    """All pictures of a closer look have been sent; maybe none."""

    look: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Seconds are being lost since ``clock_s`` for ``cause``; ``reason`` and ``text`` say why in a status."""

    cause: Cause
    clock_s: float
    reason: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The session is over: ``time_s`` is where its media ends, ``cause`` what is lost from here on (None:
    nothing).

    ``reason`` is a segment's close reason: ``end_of_stream``, ``stream_lost`` or ``shutdown``. ``word`` and
    ``text`` say what went wrong, short and long. ``item`` is set for a file that could not be opened at
    all."""

    reason: EndReason
    time_s: float
    clock_s: float
    cause: Cause | None = None
    word: str = ""
    text: str = ""
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The reader has ended: nothing more will come of this stream."""

    clock_s: float
    reason: EndReason = "end_of_stream"
    failed: str | None = None


Message = Begin | Sample | LookSample | Looked | Trouble | End | Gone
