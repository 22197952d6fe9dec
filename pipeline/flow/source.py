"""What arrives from a stream: packets in decode order, on one timeline that starts at 0."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

Kind = Literal["live", "file"]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known of the video stream when it opens.

    ``codec`` is FFmpeg's name. ``width`` and ``height`` are pixels as coded, before ``rotation`` (degrees
    clockwise to apply for display: 0, 90, 180 or 270). ``frame_rate`` is pictures a second or None.
    ``duration_s`` is None when unknown. ``codec_parameters`` is opaque: only the decoder backend of the same
    family opens it. ``has_index`` says that the source can be sought by keyframe (files). ``max_pixels`` is
    the largest picture that the decoder may make room for; 0 leaves that to it."""

    codec: str
    width: int
    height: int
    rotation: int = 0
    frame_rate: Fraction | None = None
    duration_s: float | None = None
    has_index: bool = False
    pictures: int | None = None
    max_pixels: int = 0
    codec_parameters: Any = field(default=None, repr=False, compare=False)


class Packet(NamedTuple):
    """One encoded picture.

    ``time_s`` is its presentation time in seconds since the session's first keyframe; it is never missing
    (``StreamClock`` fills in) and, over a session, rises in presentation order. ``arrived`` is the monotonic
    time in seconds at which it was read (live) or due (paced). ``pts`` is the tag that the decoder gives back
    with the picture. ``data`` is opaque outside ``backends/``; ``size`` is its length in bytes.

    A tuple because it is made a thousand times a second: a frozen dataclass takes four times as long."""

    time_s: float
    keyframe: bool
    size: int
    arrived: float
    pts: int
    disposable: bool = False
    damaged: bool = False
    data: Any = None
    parameters_changed: bool = False


class Source(Protocol):
    """An open session of a stream: a connection, a file or a pass over it.

    Iterating yields packets of the one video stream in decode order and ends when a file ends. Every blocking
    step has a deadline; a live source that falls silent raises ``SourceTimeout``, one that hangs up raises
    ``SourceEnded``. No error text, repr or attribute shows a credential."""

    info: StreamInfo
    kind: Kind

    def __iter__(self) -> Iterator[Packet]: ...

    def seek(self, time_s: float) -> None:
        """Go on from the last keyframe at or before ``time_s`` (files with an index).

        :raises SourceUnsupported: the source cannot be sought."""

    def keyframes(self) -> tuple[float, ...]:
        """When each keyframe is shown that a local file's index names, rising from 0; empty where there is no
        index that can be relied on, or fewer than two. Sets the source to its start."""

    def again(self) -> "Source":
        """A second pass over the same file at the same time; both share what is found out of its index."""

    def sender_time(self) -> float | None:
        """Unix time in seconds of stream time 0 by the sender's clock (RTCP), or None."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
