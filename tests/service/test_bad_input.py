"""What cannot be screened: one clear line, the right exit code, no traceback, no hang, and the rest goes
on."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.fixtures.own_model import write_manifest
from tests.fixtures.service import Command, film, segments, start
from tests.fixtures.tiny_onnx import mean_colour_model

Start = Callable[..., Command]


def streams(command: Command) -> list[dict[str, Any]]:
    """The data of the stream events."""
    return [event["data"] for event in command.events if event["type"] == "framewarden.stream.v1"]


def empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("this is not a film\n" * 100)
    return path


def no_moov(folder: Path) -> Path:
    whole = film(folder / "whole.part.mp4", 4).read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    (folder / "whole.part.mp4").unlink()
    return path


def audio_only(folder: Path) -> Path:
    path = folder / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def folder_without_video(folder: Path) -> Path:
    path = folder / "papers"
    path.mkdir()
    (path / "notes.txt").write_text("nothing to see")
    return path


def missing(folder: Path) -> Path:
    return folder / "not-there.mp4"


BAD = (empty, text, no_moov, audio_only, folder_without_video, missing)


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path, Command]:
    """One run over every bad input, by name, and a good film behind them."""
    folder = tmp_path_factory.mktemp("inputs")
    bad = {make.__name__: make(folder) for make in BAD}
    good = film(folder / "good.mp4", 6, (2.0, 4.0))
    command = start("screen", *bad.values(), good, "--json")
    assert command.end() == 1, command.stderr
    return bad, good, command


@pytest.mark.parametrize("name", [make.__name__ for make in BAD])
def test_an_input_that_is_no_video_fails_with_one_line(
    name: str, screened: tuple[dict[str, Path], Path, Command]
) -> None:
    inputs, _, command = screened
    bad = str(inputs[name])
    states = [data["state"] for data in streams(command) if data["stream"]["id"] == bad]
    assert states == ["failed"]
    assert len([line for line in command.errors if bad in line]) == 1, command.stderr


def test_a_film_behind_inputs_that_fail_is_screened(
    screened: tuple[dict[str, Path], Path, Command],
) -> None:
    inputs, good, command = screened
    assert {data["stream"]["id"] for data in streams(command)} == {*map(str, inputs.values()), str(good)}
    assert [data["state"] for data in streams(command) if data["stream"]["id"] == str(good)] == ["ended"]
    assert [segment["stream"]["id"] for segment in segments(command.events)] == [str(good)]
    assert "Traceback" not in command.stderr


def test_a_port_that_says_nothing_ends_within_its_deadline(framewarden: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"
        command = framewarden("screen", url, "--json")
        assert command.end(40) == 1
    (event,) = command.events
    assert event["data"]["state"] == "failed"
    assert "5 s" in event["data"]["reason"]
    assert "Traceback" not in command.stderr


def test_a_damaged_film_is_screened_as_far_as_it_goes(framewarden: Start, tmp_path: Path) -> None:
    """The header promises 20 s, the last third of the pictures is not there: a gap, not a failure."""
    path = film(tmp_path / "cut.mp4", 20, (2.0, 5.0), container_options={"movflags": "faststart"})
    whole = path.read_bytes()
    moov = whole.find(b"moov")
    mdat = whole.find(b"mdat")
    assert 0 < moov < mdat
    path.write_bytes(whole[: mdat + (len(whole) - mdat) * 2 // 3])
    command = framewarden("screen", path, "--json")
    assert command.end() == 0, command.stderr
    assert len(segments(command.events)) == 1
    gaps = [e["data"] for e in command.events if e["type"] == "framewarden.coverage.v1"]
    (end,) = [e["data"] for e in command.events if e["data"].get("state") == "ended"]
    assert {gap["cause"] for gap in gaps} == {"corrupt"}
    assert end["lost_s"] > 3.0
    assert end["screened_s"] + end["lost_s"] == pytest.approx(20.0, abs=0.1)


CRASH = """
import os, signal
from pipeline.backends import decode_software as module
whole = module.open_decoder
def crashing(info, *args, **kwargs):
    if info.height == 242:
        os.kill(os.getpid(), signal.SIGSEGV)
    return whole(info, *args, **kwargs)
module.open_decoder = crashing
"""


def test_a_file_that_crashes_its_decoder_fails_and_the_others_go_on(
    framewarden: Start, tmp_path: Path
) -> None:
    """The crash is planted: a real SIGSEGV in the worker, whenever a picture of 242 rows is to be decoded."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(CRASH)
    mean_colour_model(tmp_path / "mine.onnx", bias=(9.0, 0.0, 0.0))  # flags every picture
    films = [film(tmp_path / f"good{n}.mp4", 8, (2.0, 5.0)) for n in range(3)]
    bad = film(tmp_path / "bad.mp4", 4, size=(320, 242))
    root = str(Path(__file__).resolve().parents[2])
    env = {"PYTHONPATH": os.pathsep.join([str(planted), root])}
    words = ("--model", write_manifest(tmp_path), "--json")
    command = framewarden("screen", films[0], bad, *films[1:], *words, env=env)
    assert command.end(90) == 1
    states = {data["stream"]["id"]: data["state"] for data in streams(command)}
    assert states == {str(bad): "failed"} | {str(good): "ended" for good in films}
    found = [s["stream"]["id"] for s in segments(command.events) if s["reason"] != "shutdown"]
    assert sorted(found) == sorted(map(str, films))


def test_an_unreadable_model_is_refused_before_anything_is_opened(framewarden: Start, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    manifest = tmp_path / "mine.yaml"
    manifest.write_text(
        json.dumps(
            {
                "name": "mine",
                "version": "1",
                "licence": "mine",
                "weights": {"path": "model.onnx"},
                "input": {"size": [224, 224]},
                "labels": ["bad", "good"],
                "categories": {"bad": ["bad"]},
            }
        )
    )
    command = framewarden("screen", film(tmp_path / "good.mp4", 4), "--model", manifest)
    assert command.end() == 2
    assert "model.onnx" in command.stderr
    assert "Traceback" not in command.stderr


def test_the_module_can_be_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--version"], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 0
    assert "framewarden" in done.stdout
