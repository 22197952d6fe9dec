"""From packets to segments on each device: the service as a user starts it, on films with known spans."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import status
from tests.fixtures.service import Command, film, segments
from tests.gpu.engines import on_gpu

Start = Callable[..., Command]
GAP_S = 0.5


@pytest.fixture(
    params=["cpu auto", *(pytest.param(f"gpu {one}", marks=pytest.mark.needs_gpu) for one in on_gpu())]
)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Device and engine."""
    device, engine = request.param.split()
    return device, engine


@pytest.mark.parametrize("plan", ["keyframes", "full"])
@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("libx264", "yuv420p"), ("libx265", "yuv420p10le")], ids=["h264", "hevc-10"]
)
def test_what_is_shown_is_flagged_when_it_is_shown(
    framewarden: Start, tmp_path: Path, place: tuple[str, str], plan: str, codec: str, pixel_format: str
) -> None:
    span, (device, engine) = (3.0, 7.0), place
    clip = film(tmp_path / "film.mp4", 10, span, gop_s=GAP_S, codec=codec, pixel_format=pixel_format, rate=20)
    about = {
        "state_dir": "state",
        "device": device,
        "engine": engine,
        "workers": 1,
        "model": "open-nsfw",
        "sampling": {"max_gap_s": GAP_S, "plan": plan},
        "streams": [{"id": "film", "url": str(clip)}],
    }
    settings = tmp_path / "run.yaml"
    settings.write_text(json.dumps(about))
    command = framewarden("run", settings, "--exit-at-end", "--json")
    assert command.end() == 0, command.stderr
    (found,) = segments(command.events)
    media = found["media"]
    assert media["start_s"] == pytest.approx(span[0], abs=GAP_S)
    assert media["end_s"] == pytest.approx(span[1], abs=GAP_S)
    now = status.read(tmp_path / "state")
    assert now["device"] == device
    engines = [worker["engine"] for worker in now["workers"]]
    assert all(("tensorrt" in one or "cuda" in one) == (device == "gpu") for one in engines)
