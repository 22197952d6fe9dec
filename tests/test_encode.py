"""Clips are made in the processes that also measure and serve: making one may change nothing there."""

import os
from pathlib import Path

import pytest

from pipeline.backends.encode_ffmpeg import write_clip
from tests.fixtures.media import moving_pictures


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libsvtav1", ".mkv")])
def test_whoever_has_a_clip_made_keeps_its_priority(tmp_path: Path, codec: str, suffix: str) -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    write_clip(tmp_path / f"clip{suffix}", moving_pictures(3), codec=codec)
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
