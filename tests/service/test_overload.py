"""A worker that cannot keep up: whose gaps are stretched, what is said of it, and that they come back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backends.encode_ffmpeg import Rgb, write_clip
from pipeline.flow.govern import Share
from pipeline.service.overload import Overload
from tests.fixtures.lifecycle import arm, gaps, of, plant, row, snapshot, write_config
from tests.fixtures.own_model import write_manifest
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command
from tests.fixtures.tiny_onnx import mean_colour_model

GAP_S, MOST_S = 1.0, 2.0
PRIORITIES = {"low": 0, "middle": 5, "high": 9}

SLOW = """
import os, threading
from pipeline.flow import govern
from pipeline.service import overload
govern.WAIT = overload.WAIT = 1 / 30
govern.PER_WAIT, govern.LEAST, govern.GIVE = 1e3, 0.75, 0.2
from pipeline.backends import registry
whole = registry.open_classifier
def open_classifier(*args, **kwargs):
    classifier = whole(*args, **kwargs)
    infer = classifier.infer
    def slow(pixels):
        if os.path.exists(ARMED):
            threading.Event().wait(1.2)
        return infer(pixels)
    classifier.infer = slow
    return classifier
registry.open_classifier = open_classifier
"""
"""A batch takes 1.2 s while ARMED exists, and that samples wait for more than 1 s is a sign of overload;
nothing is given up for its age. What is cut is a quarter, at once."""


def calm(seconds: float, rate: int) -> Iterator[Rgb]:
    for number in range(round(seconds * rate)):
        yield np.full((96, 160, 3), (40, 60, 100 + number % 50), np.uint8)


@dataclass
class Screen:
    """What the overload knows of a stream."""

    number: int
    share: Share
    gap_s: float

    def stretch(self, gap_s: float) -> None:
        self.gap_s = gap_s


def screens(*gaps_s: tuple[float, float]) -> list[Any]:
    """One for each promised gap and its floor."""
    return [
        Screen(number, Share(5, gap_s, most_s), gap_s) for number, (gap_s, most_s) in enumerate(gaps_s, 1)
    ]


def load(overload: Overload, streams: list[Any], *, carried: float, seconds: int) -> list[int]:
    """Let a machine that scores ``carried`` samples a second screen the streams; how many it dropped in each
    second."""
    waited_s = scored = lost = 0.0
    dropped: list[int] = []
    for second in range(1, seconds + 1):
        asked = sum(1.0 / stream.gap_s for stream in streams)
        waited_s += asked / carried - 1.0
        lost += max(0.0, waited_s - 2.0) * carried
        waited_s = max(0.0, min(2.0, waited_s))
        scored += min(asked, carried)
        for _ in range(int(scored)):
            overload.scored(waited_s)
        overload.dropped(int(lost))
        dropped.append(int(lost))
        scored, lost = scored % 1.0, lost % 1.0
        overload.step(float(second), streams)
    return dropped


def test_one_stream_with_a_long_gap_does_not_slow_down_what_is_given_up_by_all() -> None:
    overload = Overload(stale_s=2.0, now=0.0)
    streams = screens(*[(2.0, 10.0)] * 10, (600.0, 3000.0))
    dropped = load(overload, streams, carried=2.0, seconds=120)
    assert sum(dropped[60:]) == 0
    assert overload.shed == pytest.approx(0.6, abs=0.1)


def test_an_overload_of_streams_that_may_not_be_stretched_leaves_no_time_for_extras() -> None:
    overload = Overload(stale_s=2.0, now=0.0)
    streams = screens(*[(2.0, 2.0)] * 10)
    load(overload, streams, carried=2.0, seconds=30)
    assert overload.strained
    assert overload.shed > 0.0
    assert all(stream.gap_s == 2.0 for stream in streams)


def test_what_is_not_scored_at_all_is_no_sign_that_samples_wait_less() -> None:
    overload, shed = Overload(stale_s=2.0, now=0.0), 0.0
    streams = screens(*[(2.0, 10.0)] * 10)
    load(overload, streams, carried=2.0, seconds=10)
    for second in range(11, 40):
        overload.dropped(5)
        overload.step(float(second), streams)
        assert overload.shed >= shed
        shed = overload.shed
    assert 0.7 < shed <= 0.8 + 1e-9  # their floor


def test_when_nothing_is_left_to_score_all_is_given_back() -> None:
    overload = Overload(stale_s=2.0, now=0.0)
    load(overload, screens(*[(2.0, 10.0)] * 10), carried=2.0, seconds=60)
    assert overload.shed > 0.3
    for second in range(61, 121):
        overload.step(float(second), [])
    assert overload.shed == 0.0


def test_one_sample_that_waited_is_no_overload() -> None:
    overload = Overload(stale_s=2.0, now=0.0)
    streams = screens((10.0, 50.0))
    overload.scored(1.9)
    for second in range(1, 10):
        overload.step(float(second), streams)
        assert overload.shed == 0.0


def test_samples_that_wait_leave_no_time_for_audits_before_any_gap_is_stretched() -> None:
    overload = Overload(stale_s=2.0, now=0.0)
    for second in range(1, 10):
        overload.scored(0.5)
        overload.step(float(second), [])
        assert overload.strained
        assert overload.shed == 0.0
    overload.scored(0.1)
    overload.step(10.0, [])
    assert not overload.strained


@pytest.mark.timeout(400)
def test_the_least_important_stream_gives_first_and_gets_it_back(
    framewarden: Callable[..., Command], redis_server: RedisServer, tmp_path: Path
) -> None:
    """A quarter of three streams' samples: ``low`` gives half of its own, ``middle`` the rest."""
    write_clip(tmp_path / "film.mp4", calm(60, 10), rate=10, gop=5)
    mean_colour_model(tmp_path / "mine.onnx")
    streams = [
        {"id": name, "url": "film.mp4", "pace": "realtime", "loop": True, "priority": priority}
        for name, priority in PRIORITIES.items()
    ]
    settings = write_config(
        tmp_path / "run.yaml",
        streams,
        workers=1,
        model=str(write_manifest(tmp_path, categories={"warm": ["red"]})),
        sampling={"max_gap_s": GAP_S, "overload_gap_s": MOST_S, "audit": 1.0},
        batch={"stale_s": 30},
        redis={"url": redis_server.url},
    )
    env = plant(tmp_path / "plant", SLOW)
    command = framewarden("run", settings, "--json", env=env)
    command.wait_for(lambda c: all(of(c, name, "connected") for name in PRIORITIES))
    armed = arm(tmp_path / "plant", "always")

    def within_a_pass(gap: dict[str, Any]) -> bool:
        return bool(gap["cause"] == "overload" and gap["media"]["to_s"] is not None)

    def in_force(found: dict[str, Any]) -> dict[str, float]:
        return {name: row(found, name)["gap_s"] for name in PRIORITIES}

    found = snapshot(tmp_path, lambda s: row(s, "low").get("gap_s", GAP_S) > GAP_S)
    assert in_force(found) == {"low": MOST_S, "middle": 1.333, "high": GAP_S}
    assert row(found, "low")["why"] == "overloaded: a picture every 2.0 s"
    assert row(found, "middle")["why"] == "overloaded: a picture every 1.3 s"
    assert "overloaded" not in row(found, "high")["why"]
    snapshot(tmp_path, lambda s: all(row(s, name)["audits_refused"] > 0 for name in PRIORITIES))
    command.wait_for(lambda c: any(map(within_a_pass, gaps(c, "low"))), 120)
    armed.unlink()
    found = snapshot(tmp_path, lambda s: set(in_force(s).values()) == {GAP_S})
    for name in PRIORITIES:
        assert row(found, name)["plan"] == "keyframes"
        assert row(found, name)["why"] == "keyframes, until they prove too rare"
    assert row(found, "low")["coverage"]["dropped_s"] > 0
    assert command.terminate() == 0, command.stderr
