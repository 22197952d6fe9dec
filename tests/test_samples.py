"""The samples are what they say: cards, clips, the consumer, and the benchmark films."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import config
from pipeline.backends.join_ffmpeg import join_clips
from pipeline.bench import material
from samples import make_clips
from tests.fixtures.redis import RedisServer

ROOT = Path(__file__).parents[1]


def brief(clip: make_clips.Clip) -> make_clips.Clip:
    """The clip at a fifth of its length and half its size."""
    flags = tuple(make_clips.Flag(flag.start_s / 5, flag.end_s / 5, flag.card) for flag in clip.flags)
    return dataclasses.replace(
        clip, seconds=clip.seconds / 5, flags=flags, width=clip.width // 2, height=clip.height // 2
    )


def shows(picture: NDArray[Any], card: str) -> bool:
    """Whether a decoded picture is this card."""
    height, width = picture.shape[:2]
    return bool(np.abs(make_clips.card(card, width, height).astype(int) - picture).mean() < 12)


def test_every_card_is_small_and_its_entry_names_a_model_and_its_scores() -> None:
    entries = make_clips.cards_index()
    files = {path.name: path for path in (ROOT / "samples" / "cards").glob("*.png")}
    assert set(entries) == set(files)
    for name, entry in entries.items():
        assert files[name].stat().st_size < 30_000
        with Image.open(files[name]) as picture:
            assert picture.size == (256, 256)
        score = entry["scores"][entry["category"]]
        assert score >= 0.9 if entry["kind"] == "flagged" else 0.1 <= score <= 0.9


def test_there_are_middle_cards_enough_to_compare_scores_where_they_are_steep() -> None:
    models = [entry["model"] for entry in make_clips.cards_index().values() if entry["kind"] == "middle"]
    assert models.count("open-nsfw") >= 10
    assert models.count("image-safety-s") >= 10


def test_a_clip_shows_its_cards_in_their_times_and_nowhere_else(tmp_path: Path) -> None:
    clip = brief(next(clip for clip in make_clips.CLIPS if clip.name == "uploads/twice.mp4"))
    make_clips.make(clip, tmp_path)
    with av.open(str(tmp_path / clip.name)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert len(frames) == round(clip.seconds * clip.rate)
    for time_s, picture in frames:
        for flag in clip.flags:
            assert shows(picture, flag.card) == (flag.start_s <= time_s < flag.end_s), time_s


def test_clips_that_are_there_are_left_alone_and_a_missing_one_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tuple(brief(clip) for clip in make_clips.CLIPS if clip.name in {"mixed.mp4", "uploads/clean.mp4"})
    monkeypatch.setattr(make_clips, "CLIPS", clips)
    told = make_clips.make_all(tmp_path)
    assert json.loads((tmp_path / "truth.json").read_text()) == told
    assert told["uploads/clean.mp4"]["flags"] == []
    kept, gone = (tmp_path / clip.name for clip in clips)
    before = kept.stat().st_mtime_ns
    gone.unlink()
    make_clips.make_all(tmp_path)
    assert kept.stat().st_mtime_ns == before
    assert gone.exists()


def test_the_sample_config_is_right_and_every_file_in_it_is_made() -> None:
    loaded = config.load(ROOT / "samples" / "streams.yaml", {})
    made = [ROOT / "samples" / "clips" / clip.name for clip in make_clips.CLIPS]
    for stream in loaded.streams:
        assert any(path.match(stream.url.removeprefix("file://")) for path in made), stream.url


def test_the_sample_consumer_prints_each_segment_once_and_acknowledges_every_entry(
    redis_server: RedisServer,
) -> None:
    event = json.loads((ROOT / "tests" / "golden" / "segment-closed.json").read_text())
    fields = {"event": json.dumps(event), "id": event["id"], "stream": "cam-7"}
    with redis_server.client() as client:
        client.xgroup_create("framewarden:segments", "review", id="0", mkstream=True)
        for _ in range(2):
            client.xadd("framewarden:segments", fields)
        client.xreadgroup("review", "sample-consumer", {"framewarden:segments": ">"}, count=1)
        last = {**fields, "id": "the-last", "stream": "cam-8"}
        client.xadd("framewarden:segments", last)
        command = [sys.executable, "samples/consume.py", redis_server.url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdout is not None
            lines = [consumer.stdout.readline() for _ in range(2)]
            client.xadd("framewarden:segments", {**last, "id": "one-more"})
            lines.append(consumer.stdout.readline())  # so all before it is acknowledged
            consumer.kill()
        assert [line.split()[0] for line in lines] == ["cam-7", "cam-8", "cam-8"]
        assert client.xpending("framewarden:segments", "review")["pending"] <= 1


def test_a_benchmark_film_has_the_promised_keyframes_and_is_repeated_without_loss(tmp_path: Path) -> None:
    film = dataclasses.replace(material.ORDINARY, name="brief")
    once = material.describe(film, material.make(film, tmp_path, seconds=2))
    twice = material.describe(film, join_clips([Path(once.path)] * 2, tmp_path / "twice.mp4"))
    assert (once.seconds, twice.seconds, twice.gop_s) == (2.0, 4.0, 2.0)
    assert twice.keyframe_bytes_min == twice.keyframe_bytes_max == once.keyframe_bytes
    assert once.keyframe_ms > 0
