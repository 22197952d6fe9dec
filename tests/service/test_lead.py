"""How far a reader is ahead of what was decided, and what closer looks at live streams may cost."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import status
from pipeline.backends.encode_ffmpeg import Rgb, write_clip
from pipeline.service.lead import Budget, Lead
from tests.fixtures.lifecycle import plant, row, write_config
from tests.fixtures.own_model import write_manifest
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command, segments
from tests.fixtures.tiny_onnx import mean_colour_model


def test_no_second_dropped_sample_is_told_of_while_the_first_is_undecided() -> None:
    lead = Lead(None)
    lead.sent()
    assert not lead.unheard
    lead.sent(dropped=True)
    assert lead.unheard
    lead.decided()  # the one before it
    assert lead.unheard
    lead.decided()
    assert not lead.unheard


def test_the_first_sample_that_is_dropped_after_another_one_is_always_told_of() -> None:
    lead = Lead(None)
    lead.sent(dropped=True)
    lead.sent()
    assert not lead.unheard


# ---- the budget --------------------------------------------------------------------------------------------


class Clock(SimpleNamespace):
    """The budget's ``time``."""

    now_s = 50.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("pipeline.service.lead.time", found)
    return found


def test_a_second_a_core_is_saved_up_and_the_half_of_it_is_for_looks_alone(clock: Clock) -> None:
    budget = Budget(4, 0.2, 0.01)
    clock.now_s += 3600.0
    assert budget.allows(burst=True)
    budget.spend(2.1)
    assert (budget.allows(), budget.allows(burst=True)) == (True, False)
    budget.spend(2.0)
    assert not budget.allows()


def test_what_was_overdrawn_is_paid_back_first_at_its_share_of_the_cores(clock: Clock) -> None:
    budget = Budget(4, 0.2, 0.01)
    budget.spend(5.0)
    clock.now_s += 1.2  # 0.96 s at 0.8 a second
    assert not budget.allows()
    clock.now_s += 0.1
    assert (budget.allows(), budget.allows(burst=True)) == (True, False)
    clock.now_s += 2.6
    assert budget.allows(burst=True)


def test_nothing_is_allowed_while_the_worker_is_overloaded(clock: Clock) -> None:
    budget = Budget(4, 0.2, 0.01)
    budget.closed = True
    clock.now_s += 3600.0
    assert (budget.allows(), budget.allows(burst=True)) == (False, False)
    budget.closed = False
    assert (budget.allows(), budget.allows(burst=True)) == (True, True)


SPENT = """
from pipeline.service.lead import Budget
whole = Budget.__init__
def spent(self, *args, **kwargs):
    whole(self, *args, **kwargs)
    self.spend(1e6)
Budget.__init__ = spent
"""
"""Looks have cost so much already that there will be none."""


def colours(seconds: float, rate: int, span: tuple[float, float]) -> Iterator[Rgb]:
    """Red in the span, blue around it."""
    for number in range(round(seconds * rate)):
        flagged = span[0] <= number / rate < span[1]
        yield np.full((96, 160, 3), (240, 20, 20) if flagged else (20, 20, 240), np.uint8)


def screened(run: Command, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last status row of the stream, and every revision of its one segment."""
    assert run.end(180) == 0, run.stderr
    found = [data for state in ("open", "update", "closed") for data in segments(run.events, state)]
    assert len({segment["segment_id"] for segment in found}) == 1
    return row(status.read(folder / "state"), "cam"), found


@pytest.fixture
def settings(redis_server: RedisServer, tmp_path: Path) -> Path:
    """A camera that shows something from 0.7 to 4.5 s; keyframes at 0, 2, 4 and 6 s keep its gap."""
    write_clip(tmp_path / "film.mp4", colours(8, 25, (0.7, 4.5)), rate=25, gop=50)
    mean_colour_model(tmp_path / "mine.onnx")
    return write_config(
        tmp_path / "run.yaml",
        [{"id": "cam", "url": "film.mp4", "pace": "realtime", "sampling": {"audit": 0}}],
        model=str(write_manifest(tmp_path, categories={"warm": ["red"]})),
        batch={"stale_s": 60},
        redis={"url": redis_server.url},
    )


@pytest.mark.timeout(240)
def test_a_live_stream_is_watched_closely_after_something_was_found(
    framewarden: Callable[..., Command], settings: Path, tmp_path: Path
) -> None:
    """From the opening on, by its samples alone: pictures of looks are not counted among the frames."""
    now, revisions = screened(framewarden("run", settings, "--json", "--exit-at-end"), tmp_path)
    assert now["frames"] >= 15, "four keyframes, and some six pictures a second from then on"
    assert (now["plan"], now["why"]) == ("skip", "something suspicious is looked at closely")
    assert now["looks_refused"] == 0
    assert revisions[-1]["score"]["samples"] >= 8


@pytest.mark.timeout(240)
def test_without_a_budget_for_looks_a_boundary_stays_as_uncertain_as_it_was(
    framewarden: Callable[..., Command], settings: Path, tmp_path: Path
) -> None:
    env = plant(tmp_path / "plant", SPENT)
    now, revisions = screened(framewarden("run", settings, "--json", "--exit-at-end", env=env), tmp_path)
    assert now["looks_refused"] == 2, "of its start and of its end"
    assert now["frames"] == 4
    assert (now["plan"], now["why"]) == ("keyframes", "keyframes, until they prove too rare")
    for segment in revisions:
        assert (segment["media"]["start_s"], segment["media"]["start_uncertainty_s"]) == (1.0, 1.0)
    end = revisions[-1]["media"]
    assert (end["end_s"], end["end_uncertainty_s"]) == (5.0, 1.0)
