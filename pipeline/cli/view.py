"""What a person sees of a run: a live table or progress bar on a terminal, log lines elsewhere."""

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, Self

import click
import structlog
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import status
from pipeline.events import Event

SEGMENT, COVERAGE, STREAM = (f"framewarden.{kind}.v1" for kind in ("segment", "coverage", "stream"))
REPORT_S = 60.0


class View(Protocol):
    """Shows a run while it lasts; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def on_event(self, event: Event) -> None: ...

    def on_status(self, snapshot: dict[str, Any]) -> None: ...


def data_of(event: Event) -> dict[str, Any]:
    """What an event says, without its envelope."""
    data: dict[str, Any] = json.loads(event.body)["data"]
    return data


def on_a_terminal(as_json: bool) -> bool:
    """Whether a live display can be drawn on stderr without running into the JSON on stdout."""
    return sys.stderr.isatty() and not (as_json and sys.stdout.isatty())


class LiveTable:
    """``run`` on a terminal: a table of all streams, flagged segments printed above it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._said = False
        self._live = Live(
            "starting",
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_event(self, event: Event) -> None:
        if event.type != SEGMENT or event.state == "update":
            return
        data = data_of(event)
        media, peak = data["media"], data["score"]["peak"]
        end = f" to {media['end_s']:.1f} s" if event.state == "closed" else " s"
        self.console.print(
            f"{time.strftime('%H:%M:%S')} [bold red]{event.state}[/] {escape(event.stream)} "
            f"[bold]{escape(data['category'])}[/] {media['start_s']:.1f}{end}, peak {peak:.2f}",
            highlight=False,
        )

    def on_status(self, snapshot: dict[str, Any]) -> None:
        if not self._said:
            self._said = True
            self.console.print(*snapshot["bounds"], sep="\n", style="dim", highlight=False, markup=False)
        rows = max(1, self.console.height - 4)
        self._live.update(status.render(snapshot, rows=rows), refresh=True)


class Lines:
    """``run`` without a terminal: one log line an event, and one a minute on the whole."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reported = clock()
        self._log = structlog.get_logger()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_event(self, event: Event) -> None:
        data = data_of(event)
        about = {"stream": event.stream, "tenant": event.tenant}
        if event.type == SEGMENT:
            found = data["media"] | {"peak": data["score"]["peak"], "reason": data["reason"]}
            about |= {"category": data["category"], "segment_id": data["segment_id"], "rev": data["rev"]}
            self._log.info(f"segment.{event.state}", **about, **found)
        elif event.type == COVERAGE:
            self._log.warning(
                "coverage.gap", **about, seconds=data["seconds"], cause=data["cause"], **data["media"]
            )
        else:
            self._log.info(f"stream.{event.state}", **about, reason=data.get("reason"))

    def on_status(self, snapshot: dict[str, Any]) -> None:
        if self._clock() - self._reported < REPORT_S:
            return
        self._reported = self._clock()
        streams = snapshot["streams"]
        self._log.info(
            "status",
            streams=len(streams),
            in_trouble=sum(stream["state"] in status.TROUBLE for stream in streams),
            screened=sum(stream["frames"] for stream in streams),
            segments=sum(stream["segments"] for stream in streams),
            redis=snapshot["redis"]["state"],
            pending=snapshot["redis"]["pending"],
        )


class Bar:
    """``screen`` on a terminal: one bar over all inputs; lines on the same terminal go above it, and at the
    end a line on the whole takes its place."""

    def __init__(self, console: Console | None = None) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self.progress.add_task("starting", total=None, rate="")
        self._summary = ""

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self._summary:
            self.progress.console.print(self._summary, highlight=False, markup=False)

    def on_event(self, event: Event) -> None:
        """Nothing: ``screen`` prints its segments itself."""

    def on_status(self, snapshot: dict[str, Any]) -> None:
        streams = snapshot["streams"]
        done = sum(stream["state"] in ("ended", "failed") for stream in streams)
        flagged = sum(stream["segments"] for stream in streams)
        counted = f"{done} of {len(streams)} inputs, {flagged} flagged"
        film_s = sum(stream["position_s"] or 0.0 for stream in streams)
        took_s = snapshot["time"] - snapshot["started"]
        rate = f"{film_s / took_s:.1f} stream-hours per hour" if film_s and took_s > 0 else ""
        length = timedelta(seconds=round(film_s))
        self._summary = f"{counted}: {length} in {took_s:.0f} s, {rate}" if rate else counted
        self.progress.update(
            self._task,
            description=counted,
            total=len(streams),
            completed=sum(map(_share, streams)),
            rate=rate,
        )


class Silence:
    """``screen`` without a terminal: stdout says it all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_event(self, event: Event) -> None:
        pass

    def on_status(self, snapshot: dict[str, Any]) -> None:
        pass


def _share(stream: dict[str, Any]) -> float:
    """How much of an input is done, 0 to 1."""
    if stream["state"] in ("ended", "failed"):
        return 1.0
    return min(1.0, (stream["position_s"] or 0.0) / stream["duration_s"]) if stream["duration_s"] else 0.0


def put(line: str) -> None:
    """A line on stdout, at once."""
    click.echo(line)
