"""Scores and their absence: which seconds of a stream were screened, and what became of the rest.

A gap is the time between two neighbouring samples that were scored in time. It is kept when it is at most
``max_gap_s`` × ``TOLERANCE``; then all of it is screened. Of a longer one, ``max_gap_s`` / 2 next to each
sample is screened; the middle is late, dropped or lost by the causes marked in it:

    sample        mark "overload"      mark "corrupt"           sample
      ├─screened─┼─ ─ dropped ─ ─ ─ ─ ─┼─ ─ ─ lost ─ ─┼─screened─┤

Seconds are counted on one clock (a file's is its media time), each exactly once, so the four always add up.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from pipeline.flow.sample import TOLERANCE
from pipeline.flow.source import Kind

Cause = Literal[
    "overload",
    "late",
    "corrupt",
    "disconnected",
    "stalled",
    "not_started",
    "worker_lost",
    "no_keyframe",
    "unsupported",
    "quarantined",
]
Bucket = Literal["late", "dropped", "lost"]

REPORT_EVERY_S = 60.0
"""A gap that lasts is reported this often."""
MAX_MARKS = 64
"""Changes of cause remembered within one gap; a later one is added to the last."""

_ROUND = 1e-6  # clocks are sums of frame durations: 2.1000000000000005 s is not more than 2.1 s


def kept(gap_s: float, max_gap_s: float) -> bool:
    """Whether a gap of ``gap_s`` seconds keeps the promise ``max_gap_s``."""
    return gap_s <= max_gap_s * TOLERANCE + _ROUND


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds that were not screened as promised, of one cause: a gap's middle, or a part of it.

    ``from_clock_s`` and ``to_clock_s`` are on the ledger's clock. The media times are exact within a session;
    of a live stream's gap that runs on, or beyond its session, only where it began is known: ``from_media_s``
    is then the last sample's time (None without one) and ``to_media_s`` None."""

    from_media_s: float | None
    to_media_s: float | None
    from_clock_s: float
    to_clock_s: float
    cause: Cause

    @property
    def seconds(self) -> float:
        return self.to_clock_s - self.from_clock_s

    @property
    def bucket(self) -> Bucket:
        """Which of the totals these seconds belong to."""
        return "late" if self.cause == "late" else "dropped" if self.cause == "overload" else "lost"


class Accounted(NamedTuple):
    """Seconds by what became of them."""

    screened_s: float
    late_s: float
    dropped_s: float
    lost_s: float


class _Line(NamedTuple):
    """Media time by the clock between two samples of a session: ``rate`` media seconds a clock second."""

    clock_s: float
    media_s: float
    rate: float

    def media_at(self, clock_s: float) -> float:
        return self.media_s + (clock_s - self.clock_s) * self.rate


@dataclass(slots=True)
class _Books:
    """All that a ledger remembers, fit for JSON. ``counted_s``: every second before it is in ``seconds``."""

    counted_s: float
    last_clock_s: float
    last_media_s: float | None = None  # None: no sample yet, and last_clock_s is where the stream was added
    one_session: bool = True  # no new session has begun since the last sample
    reported_s: float | None = None  # when the gap that lasts was reported last
    marks: list[tuple[float, Cause]] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"screened": 0.0, "late": 0.0, "dropped": 0.0, "lost": 0.0}
    )
    worst_s: float = 0.0
    ended: bool = False


class CoverageLedger:
    """Accounts for every second of one stream: a live one's whole life, or one session of a file.

    ``clock_s`` is monotonic seconds (for a sample: when its picture arrived) or, for a file, media time.
    Calls come in the stream's order; a clock that steps back a little counts nothing twice. ``start_clock_s``
    is when the stream was added, 0 for a file. ``restore`` is a ``snapshot`` to go on from, on the same
    clock; the rest is then taken from it.

    :raises ValueError: ``restore`` is not a snapshot."""

    def __init__(
        self,
        *,
        max_gap_s: float,
        kind: Kind,
        start_clock_s: float,
        restore: Mapping[str, Any] | None = None,
    ) -> None:
        self._max_gap_s = max_gap_s
        self._edge_s = max_gap_s / 2
        self._kind = kind
        self._books = _Books(start_clock_s, start_clock_s) if restore is None else _opened(restore)

    @property
    def totals(self) -> Accounted:
        """Seconds by what became of them, up to the last sample or report: at the end they add up to all."""
        seconds = self._books.seconds
        return Accounted(seconds["screened"], seconds["late"], seconds["dropped"], seconds["lost"])

    @property
    def gap_worst(self) -> float:
        """Seconds of the longest gap so far between two samples: of media, across sessions of the clock."""
        return self._books.worst_s

    def gap_now(self, clock_s: float) -> float:
        """Seconds since the last sample, or since the stream was added."""
        return max(0.0, clock_s - self._books.last_clock_s)

    def snapshot(self) -> dict[str, Any]:
        """All that is known, as JSON: a ledger restored from it goes on as this one would."""
        return asdict(self._books)

    def scored(self, media_s: float, clock_s: float, *, late: bool = False) -> list[Gap]:
        """A sample was scored; give the gap that it ends, if that one was not kept.

        A late one, scored after the staleness budget, ends no gap: it is the mark ``late``.

        :raises ValueError: the ledger has ended."""
        if late:
            self.mark("late", clock_s)
            return []
        books = self._open_books()
        line = self._line(media_s, clock_s)
        gaps = self._settle(*self._middle(media_s, clock_s, line), clock_s, line)
        if books.last_media_s is not None:
            gap_s = clock_s - books.last_clock_s if line is None else media_s - books.last_media_s
            books.worst_s = max(books.worst_s, gap_s)
        books.marks = [mark for mark in books.marks if mark[0] > clock_s]
        books.last_clock_s = max(books.last_clock_s, clock_s)
        books.last_media_s, books.one_session, books.reported_s = media_s, True, None
        return gaps

    def mark(self, cause: Cause, clock_s: float) -> None:
        """What is lost from ``clock_s`` on is lost for ``cause``, until the next mark or sample.

        What is lost before the first mark of a gap is put down to it as well.

        :raises ValueError: the cause is unknown, or the ledger has ended."""
        if cause not in get_args(Cause):
            raise ValueError(f"cause is {cause!r}: one of {', '.join(get_args(Cause))} is allowed")
        books = self._open_books()
        marks = sorted([*books.marks, (clock_s, cause)], key=lambda mark: mark[0])
        changes = [
            new for old, new in zip([None, *marks], marks, strict=False) if old is None or old[1] != new[1]
        ]
        books.marks = changes[:MAX_MARKS]

    def session(self, clock_s: float) -> None:
        """A new session of a live stream begins: media time starts again, so the gap is measured on the
        clock.

        What was lost before it, and nobody marked, is lost to ``disconnected``."""
        books = self._open_books()
        if books.last_media_s is not None and not books.marks:
            self.mark("disconnected", clock_s)
        books.one_session = False

    def tick(self, clock_s: float) -> list[Gap]:
        """Time has passed: every 60 s, give the part of a lasting gap that was not given yet.

        What lies within ``max_gap_s`` / 2 of now is held back, for a sample that may come yet."""
        books = self._books
        gap_s = self.gap_now(clock_s)
        since_s = clock_s - (books.last_clock_s if books.reported_s is None else books.reported_s)
        if books.ended or kept(gap_s, self._max_gap_s) or since_s < REPORT_EVERY_S - _ROUND:
            return []
        until_s = clock_s - self._edge_s
        gaps = self._settle(self._screened_until(), until_s, until_s, None)
        books.reported_s = clock_s
        in_force = [mark for mark in books.marks if mark[0] <= until_s][-1:]
        books.marks = in_force + [mark for mark in books.marks if mark[0] > until_s]
        return gaps

    def end(self, clock_s: float, *, cut_s: float | None = None) -> list[Gap]:
        """The stream is over at ``clock_s`` (a file: its duration): give the gap before it, close the books.

        What follows the last sample is screened when the gap so far is kept. A file that breaks off at
        ``cut_s`` is over there; from there to its duration everything is lost as ``corrupt``."""
        books = self._books
        if books.ended:
            return []
        over_s = clock_s if cut_s is None else min(cut_s, clock_s)
        gap_s = over_s - books.last_clock_s
        whole = books.last_media_s is not None and kept(gap_s, self._max_gap_s)
        gaps = self._settle(over_s if whole else self._screened_until(), over_s, over_s, None)
        if over_s < clock_s:
            books.marks = [(over_s, "corrupt")]
            gaps += self._settle(over_s, clock_s, clock_s, None)
        books.ended = True
        return gaps

    def _open_books(self) -> _Books:
        if self._books.ended:
            raise ValueError("the coverage ledger has ended: nothing can be counted any more")
        return self._books

    def _screened_until(self) -> float:
        """How far the last sample screens a gap that is not kept; without a sample, nothing is."""
        books = self._books
        return books.last_clock_s + (0.0 if books.last_media_s is None else self._edge_s)

    def _line(self, media_s: float, clock_s: float) -> _Line | None:
        """How media time runs from the last sample to this one; None across sessions."""
        books = self._books
        if books.last_media_s is None or not books.one_session or media_s < books.last_media_s:
            return None
        span_s = clock_s - books.last_clock_s
        rate = (media_s - books.last_media_s) / span_s if span_s > 0.0 else 0.0
        return _Line(books.last_clock_s, books.last_media_s, rate)

    def _middle(self, media_s: float, clock_s: float, line: _Line | None) -> tuple[float, float]:
        """From where to where, on the clock, the gap that this sample ends is not screened."""
        books = self._books
        gap_s = clock_s - books.last_clock_s
        if books.last_media_s is None:
            late_start = gap_s > self._edge_s * TOLERANCE + _ROUND
            return (books.last_clock_s, clock_s - self._edge_s) if late_start else (clock_s, clock_s)
        if kept(gap_s if line is None else media_s - books.last_media_s, self._max_gap_s):
            return clock_s, clock_s
        # Packets that arrive faster than they play leave less clock than media: the edges shrink alike.
        edge_s = self._edge_s if line is None else self._edge_s / max(1.0, line.rate)
        return books.last_clock_s + edge_s, clock_s - edge_s

    def _settle(self, from_s: float, to_s: float, end_s: float, line: _Line | None) -> list[Gap]:
        """Count all up to ``end_s``: ``from_s`` to ``to_s`` by its causes, the rest as screened."""
        books = self._books
        end_s = max(end_s, books.counted_s)
        from_s = min(max(from_s, books.counted_s), end_s)
        to_s = min(max(to_s, from_s), end_s)
        gaps = self._split(from_s, to_s, line)
        books.seconds["screened"] += (from_s - books.counted_s) + (end_s - to_s)
        for gap in gaps:
            books.seconds[gap.bucket] += gap.seconds
        books.counted_s = end_s
        return gaps

    def _split(self, from_s: float, to_s: float, line: _Line | None) -> list[Gap]:
        """One gap a cause, in order, without a space between."""
        marks = self._books.marks
        unmarked: Cause = "not_started" if self._books.last_media_s is None else "no_keyframe"
        cause = marks[0][1] if marks else unmarked
        gaps: list[Gap] = []
        for clock_s, next_cause in marks:
            if from_s < clock_s < to_s and next_cause != cause:
                gaps.append(self._gap(from_s, clock_s, cause, line))
                from_s = clock_s
            if clock_s < to_s:
                cause = next_cause
        return [*gaps, self._gap(from_s, to_s, cause, line)] if to_s > from_s else gaps

    def _gap(self, from_s: float, to_s: float, cause: Cause, line: _Line | None) -> Gap:
        if self._kind == "file":
            return Gap(from_s, to_s, from_s, to_s, cause)
        if line is None:
            began_s = self._books.last_media_s if self._books.one_session else None
            return Gap(began_s, None, from_s, to_s, cause)
        return Gap(line.media_at(from_s), line.media_at(to_s), from_s, to_s, cause)


def _opened(snapshot: Mapping[str, Any]) -> _Books:
    try:
        books = _Books(**snapshot)
        books.marks = [(float(clock_s), cause) for clock_s, cause in books.marks]
        books.seconds = {name: float(books.seconds[name]) for name in ("screened", "late", "dropped", "lost")}
    except (TypeError, ValueError, KeyError) as exc:
        raise ValueError(f"not the snapshot of a coverage ledger: {dict(snapshot)!r:.200}") from exc
    return books
