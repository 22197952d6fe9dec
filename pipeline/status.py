"""The snapshot of a run: what it says of itself every two seconds, for live table, ``status`` and probes.

It is one JSON file in ``state_dir``, replaced atomically: readers see an old one or a new one, never a half.
``time`` and ``started`` are Unix seconds; every other time is in seconds, sizes are in MB."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.errors import FramewardenError

Snapshot = dict[str, Any]

FILE = "status.json"
VERSION = 1
STALE_S = 10.0
"""A snapshot this old says that its process hangs or is gone: it should be replaced every two seconds."""
TROUBLE = ("failed", "lost", "stalled", "quarantined", "reconnecting", "connecting")
COVERAGE = ("screened_s", "late_s", "dropped_s", "lost_s")


class StatusError(FramewardenError):
    """There is no snapshot, or it cannot be read."""


def write(state_dir: Path, snapshot: Snapshot) -> None:
    """Replace the snapshot in ``state_dir``."""
    handle, name = tempfile.mkstemp(dir=state_dir, prefix=".status-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(snapshot, file)
        os.replace(name, state_dir / FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(state_dir: Path) -> Snapshot:
    """:raises StatusError: no run has written there, or another version's run has."""
    path = state_dir / FILE
    try:
        snapshot = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StatusError(
            f"{path}: no run has written a status here; start one: framewarden run CONFIG.yaml"
        ) from error
    except OSError as error:
        raise StatusError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StatusError(f"{path}: is not a status; delete it") from error
    if not isinstance(snapshot, dict) or snapshot.get("version") != VERSION:
        found = snapshot.get("version") if isinstance(snapshot, dict) else None
        raise StatusError(
            f"{path}: version {found!r}, this framewarden reads {VERSION}; use the one that wrote it"
        )
    return snapshot


def problems(snapshot: Snapshot, now: float) -> list[str]:
    """Why a run is not healthy, at Unix time ``now``; empty when it is.

    A source or a Redis that is down is no reason to restart the run: it waits for both and loses nothing."""
    found = []
    age = now - snapshot["time"]
    if age > STALE_S:
        found.append(f"the status is {age:.0f} s old; it should be replaced every 2 s")
    if snapshot["state"] == "ended":
        found.append("the run has ended")
    idle = [worker for worker in snapshot["workers"] if worker["state"] in ("dead", "wedged")]
    if idle and len(idle) == len(snapshot["workers"]):
        found.append("no worker is running")
    return found


def render(snapshot: Snapshot, *, rows: int | None = None) -> RenderableType:
    """The live table; with ``rows`` at most so many streams, those in trouble first."""
    table = Table(expand=True, pad_edge=False, box=None, header_style="bold")
    table.add_column("stream", no_wrap=True, overflow="ellipsis", max_width=40)
    for title in ("state", "plan"):
        table.add_column(title, no_wrap=True)
    for title in ("gap now", "worst", "screened", "segments"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)  # has what room is left
    streams = snapshot["streams"]
    shown = streams if rows is None or len(streams) <= rows else sorted(streams, key=_calm)[: max(1, rows)]
    for stream in shown:
        table.add_row(*_row(stream))
    hidden = len(streams) - len(shown)
    more = [Text(f"… and {hidden} more: framewarden status", style="dim")] if hidden else []
    headline = Text.from_markup(_headline(snapshot), overflow="ellipsis")
    headline.no_wrap = True
    return Group(headline, table, *more)


def lines(snapshot: Snapshot) -> list[str]:
    """The same as plain text, one stream a line."""
    return [Text.from_markup(_headline(snapshot)).plain] + [
        "  ".join(filter(None, (Text.from_markup(f"{name}{cell}").plain for name, cell in _named(stream))))
        for stream in snapshot["streams"]
    ]


def summary(snapshot: Snapshot) -> Table:
    """What a run came to: seconds by stream, segments, and what Redis has."""
    table = Table(title="summary", title_justify="left", pad_edge=False, box=None, header_style="bold")
    table.add_column("stream", overflow="fold")
    for title in ("screened s", "late s", "dropped s", "lost s", "segments"):
        table.add_column(title, justify="right")
    for stream in snapshot["streams"]:
        cells = [f"{stream['coverage'][key]:.1f}" for key in COVERAGE]
        table.add_row(escape(stream["id"]), *cells, str(stream["segments"]))
    redis = snapshot["redis"]
    if redis["state"] != "none":
        table.caption = (
            f"redis ({redis['state']}): {redis['delivered']} delivered, {redis['pending']} pending"
        )
        table.caption_justify = "left"
    return table


def _headline(snapshot: Snapshot) -> str:
    redis, workers = snapshot["redis"], snapshot["workers"]
    parts = [f"[bold]framewarden[/] {escape(snapshot['node'])} {snapshot['state']}"]
    if redis["state"] != "none":
        style = "red" if redis["state"] == "down" else "default"
        error = f" ({escape(redis['error'])})" if redis.get("error") else ""
        counts = f"{redis['delivered']} delivered, {redis['pending']} pending"
        parts.append(f"[{style}]redis {redis['state']}{error}[/]: {counts}")
    if (outbox := snapshot.get("outbox") or {}).get("state") == "blocked":
        parts.append(f"[red]outbox blocked ({escape(outbox['error'])})[/]")
    if (snapshot.get("config") or {}).get("state") == "refused":
        parts.append("[red]new config refused, the old one holds[/]")
    parts.append(f"{len(workers)} worker{'s' if len(workers) != 1 else ''}")
    restarts = sum(worker["restarts"] for worker in workers)
    if restarts:
        parts.append(f"[yellow]{restarts} restarted[/]")
    parts.append(f"{snapshot['device']} ({escape(snapshot['device_reason'])})")
    return " · ".join(parts)


def _row(stream: Snapshot) -> list[str]:
    kept = stream.get("kept_gap_s") or stream["max_gap_s"]
    flagged = stream["segments"] + stream["open_segments"] > 0
    dropped = sum(stream["drops"].values())
    notes = [stream["reason"] or stream["why"] or "", f"{dropped} dropped" if dropped else ""]
    return [
        escape(stream["id"]),
        f"[{_style(stream['state'])}]{stream['state']}[/]",
        stream["plan"] or "",
        _gap(stream["gap_now_s"], kept),
        _gap(stream["gap_worst_s"], kept),
        f"{stream['frames']}",
        f"[bold red]{stream['segments']}[/]" if flagged else "0",
        escape("; ".join(filter(None, notes))),
    ]


def _named(stream: Snapshot) -> list[tuple[str, str]]:
    names = ("", "", "plan=", "gap_now=", "gap_worst=", "screened=", "segments=", "")
    return [(name, cell) for name, cell in zip(names, _row(stream), strict=True) if cell]


def _gap(seconds: float | None, kept: float) -> str:
    if seconds is None:
        return "-"
    return f"[red]{seconds:.1f} s[/]" if seconds > kept else f"{seconds:.1f} s"


def _style(state: str) -> str:
    return "red" if state in TROUBLE else "dim" if state in ("ended", "waiting") else "green"


def _calm(stream: Snapshot) -> tuple[bool, bool, float]:
    """Sorts streams in trouble before others, then flagged ones, then by their worst gap."""
    return stream["state"] not in TROUBLE, not stream["open_segments"], -(stream["gap_worst_s"] or 0.0)
