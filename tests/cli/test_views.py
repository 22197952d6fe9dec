"""What people and programs see of events: printed lines, log lines, the live displays."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from pipeline import log
from pipeline.cli.events import line
from pipeline.cli.screen import Printer
from pipeline.cli.view import Bar, Lines, LiveTable
from pipeline.events import Event
from tests.test_status import snapshot, stream

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str, **changes: Any) -> Event:
    """One of the committed example events, with parts of its data changed."""
    envelope = json.loads((GOLDEN / f"{name}.json").read_text())
    envelope["data"] |= changes
    return Event.from_json(json.dumps(envelope))


def data(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.body)["data"]
    return found


def test_screen_prints_one_line_a_closed_segment_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(("a.mp4",), as_json=False)
    event = golden("segment-closed-in-file")
    for name in ("segment-open", "segment-update", "stream-connected", "stream-ended"):
        printer.on_event(golden(name))
    printer.on_event(event)
    said = data(event)
    media, peak = said["media"], said["score"]["peak"]
    wanted = f"{event.stream} {said['category']} {media['start_s']:.2f} {media['end_s']:.2f} {peak:.2f}\n"
    assert capsys.readouterr() == (wanted, "")


def test_screen_tells_a_person_what_was_not_screened(capsys: pytest.CaptureFixture[str]) -> None:
    event = golden("coverage-file")
    Printer(("a.mp4",), as_json=False).on_event(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"framewarden: not screened: {event.stream}: ")
    assert err.endswith(f"{data(event)['cause']}\n")


def test_screen_with_json_prints_closed_segments_gaps_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(("a.mp4",), as_json=True)
    wanted = ("segment-closed", "coverage-file", "stream-ended", "stream-failed")
    for name in (*wanted, "segment-open", "segment-update", "stream-connected", "stream-lost"):
        printer.on_event(golden(name))
    out, err = capsys.readouterr()
    assert out.splitlines() == [golden(name).body for name in wanted]
    assert err == ""


def test_a_name_that_would_break_a_line_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    event = golden(
        "segment-closed-in-file", stream=data(golden("segment-closed-in-file"))["stream"] | {"id": "a\nb"}
    )
    Printer(("a\nb",), as_json=False).on_event(event)
    assert capsys.readouterr().out.startswith("a\\x0ab ")


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_every_kind_of_event_has_a_line_for_people(name: str) -> None:
    event = golden(name)
    words = line(event).split()
    assert words[1] == event.type.split(".")[1]
    assert event.stream in words


def test_without_a_terminal_events_become_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    view = Lines()
    for name in ("segment-open", "coverage-live", "stream-lost"):
        view.on_event(golden(name))
    said = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [row["event"] for row in said] == ["segment.open", "coverage.gap", "stream.lost"]
    assert said[0]["stream"] == golden("segment-open").stream
    assert said[0]["peak"] == data(golden("segment-open"))["score"]["peak"]
    assert said[1]["level"] == "warning"


def test_the_whole_is_reported_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    now = [0.0]
    view = Lines(clock=lambda: now[0])
    for now[0] in (1.0, 59.0, 61.0, 90.0, 122.0):
        view.on_status(snapshot(stream(state="lost")))
    said = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [row["event"] for row in said] == ["status", "status"]
    assert said[0]["in_trouble"] == 1


def test_the_live_table_prints_flagged_segments_and_bounds_above_itself() -> None:
    view = LiveTable(Console(file=io.StringIO(), width=150, force_terminal=True))
    with view:
        view.on_status(snapshot(stream("cam-1")))
        view.on_event(golden("segment-open"))
        view.on_event(golden("segment-update"))
        view.on_event(golden("segment-closed"))
        view.on_event(golden("stream-lost"))
        view.on_status(snapshot(stream("cam-1")))
    text = view.console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("frame pool: 16 slots") == 1
    assert text.count("peak") == 2
    assert "cam-1" in text


def test_the_bar_counts_inputs_and_flags() -> None:
    bar = Bar(Console(file=io.StringIO(), width=100, force_terminal=True))
    ended, half = (
        stream("a", state="ended", segments=2),
        stream("b", state="connected", position_s=5, duration_s=10),
    )
    with bar:
        bar.on_status(snapshot(ended, half))
    (task,) = bar.progress.tasks
    assert (task.completed, task.total, task.description) == (1.5, 2, "1 of 2 inputs, 2 flagged")


def test_the_bar_and_its_last_line_show_how_fast_films_are_screened() -> None:
    """Ten minutes and five in 100 s are 9 s of film a second."""
    bar = Bar(Console(file=io.StringIO(), width=120, force_terminal=True))
    films = (
        stream("a", kind="file", state="ended", position_s=600.0),
        stream("b", kind="file", state="screening", position_s=300.0, duration_s=600.0),
    )
    with bar:
        bar.on_status(snapshot(*films))
        assert bar.progress.tasks[0].fields["rate"] == "9.0 stream-hours per hour"
    text = bar.progress.console.file.getvalue()  # type: ignore[attr-defined]
    assert text.endswith("1 of 2 inputs, 0 flagged: 0:15:00 in 100 s, 9.0 stream-hours per hour\n")


def test_before_anything_is_screened_no_rate_is_shown() -> None:
    bar = Bar(Console(file=io.StringIO(), width=120, force_terminal=True))
    bar.on_status(snapshot(stream("a", kind="file", state="waiting", position_s=0.0)))
    assert bar.progress.tasks[0].fields["rate"] == ""


def test_no_log_line_shows_a_credential(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "console"):
        log.configure(form, "info")
        logger = structlog.get_logger()
        logger.info(
            "opened rtsp://u:hunter2@h/x", url="http://h/a?token=hunter2", more=["rtmp://h/app/hunter2"]
        )
        fault = ValueError("rtsp://u:hunter2@h/x")
        logger.error("failed", error=fault, exc_info=fault)
    err = capsys.readouterr().err
    assert "opened" in err
    assert "hunter2" not in err


def test_log_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    err = capsys.readouterr().err
    assert "quiet" not in err
    assert "loud" in err
