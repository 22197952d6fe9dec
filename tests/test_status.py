"""The status snapshot: written whole, read back, judged and shown."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import status


def stream(name: str = "cam", **changes: Any) -> dict[str, Any]:
    return {
        "id": name, "tenant": "default", "url": "rtsp://***@h/x", "kind": "live", "state": "connected",
        "reason": "", "plan": "keyframes", "why": "GOP 2.0 s", "max_gap_s": 2.0, "gap_now_s": 1.0,
        "gap_worst_s": 2.09, "kept_gap_s": 2.1, "frames": 12, "segments": 0,
        "open_segments": 0, "item": "", "position_s": 24.0, "duration_s": None, "drops": {}, "reconnects": 0,
        "coverage": {"screened_s": 24.0, "late_s": 0.0, "dropped_s": 0.0, "lost_s": 1.5},
    } | changes  # fmt: skip


def snapshot(*streams: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": 1, "time": 1000.0, "pid": 1, "node": "vm-3", "device": "cpu", "device_reason": "no GPU",
        "started": 900.0, "state": "running",
        "redis": {"state": "embedded", "url": "", "error": "", "pending": 3, "delivered": 40},
        "workers": [{"id": 0, "pid": 2, "state": "running", "restarts": 0}],
        "streams": list(streams) or [stream()], "bounds": ["frame pool: 16 slots"],
    } | changes  # fmt: skip


def shown(what: Any, width: int = 160) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 lives as long as the test
    with console.file:
        console.print(what)
    return console.export_text()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    status.write(tmp_path, snapshot())
    status.write(tmp_path, snapshot(state="stopping"))
    assert status.read(tmp_path) == snapshot(state="stopping")
    assert [path.name for path in tmp_path.iterdir()] == [status.FILE]


def test_a_reader_never_sees_half_a_snapshot(tmp_path: Path) -> None:
    """The writer alternates between two snapshots of very different sizes; each read gives one of the two."""
    both = [snapshot(stream(f"{number}")) for number in range(2)]
    both[1]["bounds"] = ["x" * 200_000]
    status.write(tmp_path, both[0])
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            status.write(tmp_path, both[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or reads < 10:
        assert status.read(tmp_path) in both
        reads += 1
    writer.join()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no run has written a status here"),
        ("{", "is not a status"),
        ("[]", "version None"),
        ('{"version": 2}', "version 2"),
    ],
)
def test_what_is_no_status_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / status.FILE).write_text(content)
    with pytest.raises(status.StatusError, match=said):
        status.read(tmp_path)


def test_a_fresh_snapshot_is_healthy_and_an_old_one_is_not() -> None:
    assert status.problems(snapshot(), now=1009.0) == []
    assert status.problems(snapshot(), now=1011.0) == [
        "the status is 11 s old; it should be replaced every 2 s"
    ]


def test_a_run_that_has_ended_or_has_no_worker_is_not_healthy() -> None:
    assert status.problems(snapshot(state="ended"), now=1000.0) == ["the run has ended"]
    dead, alive = {"id": 0, "state": "dead", "restarts": 1}, {"id": 1, "state": "running", "restarts": 0}
    assert status.problems(snapshot(workers=[dead]), now=1000.0) == ["no worker is running"]
    assert status.problems(snapshot(workers=[dead, alive]), now=1000.0) == []


def test_a_redis_or_a_source_that_is_down_is_no_reason_to_restart() -> None:
    redis = {"state": "down", "url": "", "error": "refused", "pending": 9, "delivered": 0}
    assert status.problems(snapshot(stream(state="lost"), redis=redis), now=1000.0) == []


def test_the_table_shows_state_plan_gaps_counts_and_why() -> None:
    text = shown(status.render(snapshot(stream(segments=2, drops={"overload": 4}))))
    for part in ("cam", "connected", "keyframes", "1.0 s", "2.1 s", "12", "2", "GOP 2.0 s; 4 dropped"):
        assert part in text
    assert "vm-3 running · redis embedded: 40 delivered, 3 pending · 1 worker · cpu (no GPU)" in text


def test_a_long_reason_takes_no_room_from_the_numbers() -> None:
    text = shown(
        status.render(snapshot(stream("camera-in-the-yard", why="because " * 40, frames=123456))), width=100
    )
    for part in (
        "camera-in-the-yard",
        "connected",
        "keyframes",
        "gap now",
        "worst",
        "screened",
        "segments",
        "123456",
    ):
        assert part in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_stream_that_waits_has_no_gap_yet() -> None:
    text = shown(
        status.render(snapshot(stream(state="waiting", gap_now_s=None, gap_worst_s=None, plan="", why="")))
    )
    assert "waiting" in text


def test_names_with_brackets_are_shown_as_they_are() -> None:
    assert "[red]cam[/]" in shown(status.render(snapshot(stream("[red]cam[/]"))))
    assert "[red]cam[/]" in "\n".join(status.lines(snapshot(stream("[red]cam[/]"))))
    assert "[red]cam[/]" in shown(status.summary(snapshot(stream("[red]cam[/]"))))


def test_a_small_terminal_shows_streams_in_trouble_first_and_how_many_more_there_are() -> None:
    many = [stream(f"cam-{number}") for number in range(50)] + [
        stream("broken", state="lost", reason="timeout")
    ]
    text = shown(status.render(snapshot(*many), rows=5))
    assert "broken" in text
    assert "and 46 more" in text
    assert "cam-49" not in text


def test_plain_lines_name_every_number() -> None:
    head, line = status.lines(snapshot())
    assert head.startswith("framewarden vm-3 running")
    assert line == (
        "cam  connected  plan=keyframes  gap_now=1.0 s  gap_worst=2.1 s  screened=12  segments=0  GOP 2.0 s"
    )


def test_the_summary_has_the_four_coverage_seconds_and_what_redis_has() -> None:
    text = shown(status.summary(snapshot(stream(segments=7))))
    row = next(line for line in text.splitlines() if line.startswith("cam"))
    assert row.split() == ["cam", "24.0", "0.0", "0.0", "1.5", "7"]
    assert "redis (embedded): 40 delivered, 3 pending" in text
    none = {"state": "none", "url": "", "error": "", "pending": 0, "delivered": 0}
    assert "redis" not in shown(status.summary(snapshot(redis=none)))


def test_a_snapshot_is_plain_json(tmp_path: Path) -> None:
    status.write(tmp_path, snapshot())
    assert json.loads((tmp_path / status.FILE).read_text())["version"] == status.VERSION
