"""``framewarden screen`` on real files of many kinds: exactly the true segments, and their boundaries."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.service import Command, film, segments, start

pytestmark = pytest.mark.timeout(300)  # whoever comes first makes and screens all the films

BOUNDARY_S = 0.25
"""A closer look at 8 pictures a second leaves half of 0.125 s, and a picture or two."""


@dataclass(frozen=True)
class Case:
    """A film and its flagged spans."""

    file: str
    seconds: float
    spans: tuple[tuple[float, float], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("h264.mp4", 14, ((4.3, 9.1),)),
    Case("hevc.mp4", 10, ((3.0, 7.0),), {"codec": "libx265", "rate": 24}),
    Case("hevc10.mkv", 10, ((2.4, 7.0),), {"codec": "libx265", "pixel_format": "yuv420p10le"}),
    Case("vp9.webm", 10, ((3.7, 7.2),), {"codec": "libvpx-vp9", "rate": 30}),
    Case("transport.ts", 10, ((3.1, 6.9),), {}),
    Case("gop20.mp4", 24, ((12.7, 17.3),), {"gop_s": 20.0, "rate": 15, "size": (320, 240)}),
    Case("portrait.mp4", 10, ((3.2, 6.9),), {"size": (360, 640), "rate": 30}),
    Case("fullhd.mp4", 7, ((2.9, 5.0),), {"size": (1920, 1080), "rate": 8}),
    Case("fast.mp4", 8, ((3.3, 6.1),), {"rate": 60, "size": (320, 180)}),
    Case("start.mp4", 8, ((0.0, 4.2),)),
    Case("end.mp4", 8, ((3.4, 8.0),)),
    Case("two.mp4", 20, ((3.0, 7.0), (13.5, 18.0)), {"size": (320, 240)}),
    Case("none.mp4", 8),
    Case("odd.mp4", 10, ((4.0, 8.0),), {"size": (426, 240), "pixel_format": "yuv444p"}),
)


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Command]:
    """One run over a folder with every film in it."""
    folder = tmp_path_factory.mktemp("films")
    for case in CASES:
        film(folder / case.file, case.seconds, *case.spans, **case.options)
    command = start("screen", folder, "--json")
    assert command.end(180) == 0, command.stderr
    return folder, command


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_exactly_the_true_segments_are_found(case: Case, screened: tuple[Path, Command]) -> None:
    folder, command = screened
    found = [s for s in segments(command.events) if s["stream"]["id"] == str(folder / case.file)]
    found.sort(key=lambda segment: segment["media"]["start_s"])
    assert len(found) == len(case.spans), found
    for segment, (start_s, end_s) in zip(found, case.spans, strict=True):
        media = segment["media"]
        assert segment["category"] == "sexual"
        assert abs(media["start_s"] - start_s) <= BOUNDARY_S
        assert abs(media["end_s"] - end_s) <= BOUNDARY_S
        assert abs(media["start_s"] - start_s) <= media["start_uncertainty_s"] + 0.05
        assert abs(media["end_s"] - end_s) <= media["end_uncertainty_s"] + 0.05


def test_every_second_of_every_film_is_accounted_for(screened: tuple[Path, Command]) -> None:
    folder, command = screened
    ended = {
        e["data"]["stream"]["id"]: e["data"] for e in command.events if e["data"].get("state") == "ended"
    }
    for case in CASES:
        data = ended[str(folder / case.file)]
        parts = [data[name] for name in ("screened_s", "late_s", "dropped_s", "lost_s")]
        assert sum(parts) == pytest.approx(case.seconds, abs=0.1)
        assert data["screened_s"] == pytest.approx(case.seconds, abs=0.1)
        assert data["segments"] == len(case.spans)
    assert not [event for event in command.events if event["type"] == "framewarden.coverage.v1"]


def test_revisions_begin_at_one_and_a_file_has_no_wall_time(screened: tuple[Path, Command]) -> None:
    for segment in segments(screened[1].events):
        assert segment["rev"] >= 2  # it was open before it was closed
        assert segment["wall"] == {"start": None, "end": None, "clock": "none"}
        assert segment["latency_ms"] == {"capture_to_score": None, "score_to_outbox": None}


def test_plain_output_is_a_line_a_segment(framewarden: Callable[..., Command], tmp_path: Path) -> None:
    path = film(tmp_path / "one film.mp4", 8, (2.0, 5.0))
    command = framewarden("screen", path, "--fail-on-flag")
    assert command.end() == 3, command.stderr
    assert len(command.lines) == 1
    name, category, begin, end, peak = command.lines[0].rsplit(" ", 4)
    assert (name, category) == (str(path), "sexual")
    assert abs(float(begin) - 2.0) <= BOUNDARY_S
    assert abs(float(end) - 5.0) <= BOUNDARY_S
    assert float(peak) >= 0.8
