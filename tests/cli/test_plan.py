"""``framewarden plan`` on real files and a real RTSP server."""

import json
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import config as configs
from pipeline.capacity.probe import Probe, Prober
from tests.cli.command import Result, framewarden
from tests.fixtures.media import Clips
from tests.fixtures.own_model import write_manifest
from tests.fixtures.redis import free_port
from tests.fixtures.rtsp import RtspServer
from tests.fixtures.tiny_onnx import mean_colour_model


def config(folder: Path, *streams: dict[str, Any]) -> Path:
    """A config of these streams, with a model that loads at once."""
    mean_colour_model(folder / "mine.onnx")
    path = folder / "streams.yaml"
    text = {"model": write_manifest(folder).name, "streams": list(streams)}
    path.write_text(yaml.safe_dump(text))
    return path


def answer(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


@pytest.fixture
def often(clips: Clips) -> Path:
    """A keyframe every half second."""
    return clips(pictures=144, gop=12, width=320, height=240)


@pytest.fixture
def seldom(clips: Clips) -> Path:
    """A keyframe every four seconds."""
    return clips(pictures=144, gop=96, width=320, height=240)


@pytest.fixture
def three(tmp_path: Path, often: Path, seldom: Path) -> Path:
    """A stream with many keyframes, one with few, and one whose server is not there."""
    gone = f"rtsp://user:secret@127.0.0.1:{free_port()}/cam"
    return config(
        tmp_path,
        {"id": "often", "url": str(often), "pace": "realtime"},
        {"id": "seldom", "url": str(seldom), "sampling": {"max_gap_s": 3.0}},
        {"id": "gone", "url": gone},
    )


def test_a_cpu_plan_gives_each_stream_its_plan_and_its_measured_share(three: Path) -> None:
    found = answer(framewarden("plan", str(three), "--cpu", "--json", cwd=three.parent))
    often, seldom = found["streams"]
    assert (often["plan"], seldom["plan"]) == ("keyframes", "skip")
    assert often["seen"]["codec"] == "h264"
    assert often["seen"]["gop_s"] == pytest.approx(0.5, abs=0.01)
    assert often["seen"]["fps"] == pytest.approx(24, abs=0.5)
    assert seldom["why"] == "keyframes come less often than every 3 s"
    for stream in (often, seldom):
        assert stream["basis"] == "measured"
        assert stream["need"]["cpu"] > 0
        assert stream["alone"] >= 1
    assert seldom["seen"]["fed_ms"] > 0
    bounds = {bound["resource"]: bound for bound in found["bounds"]}
    assert set(bounds) == {"cpu", "interpreter", "memory", "network"}
    cores, taken = bounds["cpu"]["has"], often["need"]["cpu"] + seldom["need"]["cpu"]
    assert bounds["cpu"]["share"] == pytest.approx((cores["fixed"] + taken) / cores["value"])
    assert found["carries"] == min(bound["carries"] for bound in bounds.values() if bound["carries"])
    assert found["first_bound"] in bounds
    assert found["more"] == found["carries"] - 3, "one place is kept for the unknown stream"
    assert found["figures"]["keyframe"]["basis"] == "measured"


def test_a_source_that_cannot_be_opened_is_unknown_with_its_reason_and_no_password(three: Path) -> None:
    result = framewarden("plan", str(three), "--gpu", "t4", "--json", cwd=three.parent)
    [gone] = answer(result)["unknown"]
    assert (gone["id"], gone["reason"]) == ("gone", "refused")
    assert "***@127.0.0.1" in gone["url"]
    assert "secret" not in result.out + result.err


def test_a_gpu_plan_says_that_its_figures_are_derived_and_what_they_come_from(three: Path) -> None:
    found = answer(framewarden("plan", str(three), "--gpu", "t4", "--json", cwd=three.parent))
    nvdec = found["figures"]["NVDEC h264"]
    assert nvdec["basis"] == "derived"
    assert "Video Codec SDK 13.0" in nvdec["source"]
    often, seldom = found["streams"]
    decoded = often["rates"]["stills"] + often["rates"]["fed"]
    assert often["need"]["nvdec"] == pytest.approx(decoded * 0.25 / 1219, rel=0.01), "a small picture"
    assert seldom["need"]["nvdec"] > often["need"]["nvdec"]
    assert {bound["resource"] for bound in found["bounds"]} >= {"nvdec", "engine", "gpu_memory", "cpu"}
    engine = next(bound for bound in found["bounds"] if bound["resource"] == "engine")
    assert engine["has"]["basis"] == "assumed"


def test_what_the_command_line_gives_counts_as_given(three: Path) -> None:
    options = ["--engine-rate", "500", "--cores", "8", "--memory-gb", "32", "--network-mbit", "100"]
    prices = ["--core-price", "0.1", "--card-price", "1", "--streams", "200"]
    found = answer(
        framewarden("plan", str(three), "--gpu", "l4", "--json", *options, *prices, cwd=three.parent)
    )
    has = {bound["resource"]: bound["has"] for bound in found["bounds"]}
    assert [has[name]["basis"] for name in ("engine", "cpu", "memory", "network")] == ["given"] * 4
    assert (has["engine"]["value"], has["cpu"]["value"]) == (500, 8)
    ours, theirs = found["bill"]["framewarden"], found["bill"]["core_a_stream"]
    assert ours["servers"] == -(-200 // found["carries"])
    assert ours["month"] == pytest.approx(ours["servers"] * (8 * 0.1 + 1) * 730)
    assert theirs["month"] == pytest.approx(200 * 0.1 * 730)


def test_a_codec_that_the_card_has_no_decoder_for_is_unknown_on_that_card_only(
    tmp_path: Path, clips: Clips
) -> None:
    clip = clips(codec="libsvtav1", pictures=24, gop=12, options={"preset": "12", "svtav1-params": "lp=1"})
    path = config(tmp_path, {"id": "new", "url": str(clip)})
    on_t4 = framewarden("plan", str(path), "--gpu", "t4", "--json", cwd=tmp_path)
    assert on_t4.code == 1
    assert json.loads(on_t4.out)["unknown"][0]["reason"] == "unsupported"
    assert answer(framewarden("plan", str(path), "--gpu", "l4", "--json", cwd=tmp_path))["unknown"] == []


def test_a_live_stream_is_watched_for_a_few_seconds_and_needs_network(
    tmp_path: Path, often: Path, rtsp_server: RtspServer
) -> None:
    shutil.copy(often, rtsp_server.folder / "cam.mp4")
    path = config(tmp_path, {"id": "cam", "url": rtsp_server.url("cam.mp4", loop=True)})
    found = answer(
        framewarden("plan", str(path), "--gpu", "t4", "--json", "--probe-seconds", "2.5", cwd=tmp_path)
    )
    [cam] = found["streams"]
    assert (cam["kind"], cam["plan"], cam["sure"]) == ("live", "keyframes", True)
    assert cam["need"]["network"] == pytest.approx(cam["seen"]["bits"] / 1e6)
    assert 8 * often.stat().st_size / 6 == pytest.approx(cam["seen"]["bits"], rel=0.3)


def test_a_folder_is_planned_by_its_first_file(tmp_path: Path, often: Path, seldom: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(often, folder / "a.mp4")
    shutil.copy(seldom, folder / "b.mp4")
    path = config(tmp_path, {"id": "all", "url": str(folder), "watch": True})
    [row] = answer(framewarden("plan", str(path), "--gpu", "a10", "--json", cwd=tmp_path))["streams"]
    assert (row["files"], row["plan"]) == (2, "keyframes")


def test_the_text_names_the_first_bound_and_the_bill(three: Path) -> None:
    result = framewarden("plan", str(three), "--gpu", "t4", cwd=three.parent)
    assert result.code == 0
    assert "First bound: " in result.out
    assert "one core a stream" in result.out
    assert "1 more: unknown" in result.out
    assert "derived" in result.out


def test_a_plan_without_a_single_source_in_sight_fails(tmp_path: Path) -> None:
    path = config(tmp_path, {"id": "gone", "url": str(tmp_path / "none.mp4")})
    result = framewarden("plan", str(path), "--gpu", "t4", cwd=tmp_path)
    assert result.code == 1
    assert "not_found" in result.out


@pytest.mark.parametrize(
    "options", [[], ["--cpu", "--gpu", "t4"], ["--cpu", "--card-price", "1"], ["--gpu", "voodoo"]]
)
def test_a_plan_needs_exactly_one_known_target(three: Path, options: list[str]) -> None:
    assert framewarden("plan", str(three), *options, cwd=three.parent).code == 2


def test_probing_ends_when_it_is_told_to(tmp_path: Path, often: Path) -> None:
    """Told at the first of two hundred, all others of which are on a server that never answers."""
    stop, seen = threading.Event(), list[Probe]()

    def on_done(probe: Probe) -> None:
        seen.append(probe)
        stop.set()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/film"
        streams = [{"id": f"s{number}", "url": url if number else str(often)} for number in range(200)]
        settings = configs.load(config(tmp_path, *streams))
        assert len(Prober(settings, 1.0).probe_all(stop, on_done)) < 200
    assert seen[0].seen is not None
