"""``framewarden engine build``: what is refused with the cure, and a real plan for a T4."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pipeline.backends import registry
from tests.cli.command import framewarden
from tests.fixtures.own_model import ACCEPTS, colours, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

BUILD = ("engine", "build", "open-nsfw")


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_tensorrt_rtx_refuses_for_a_t4_what_its_support_matrix_does_not_hold(
    tmp_path: Path, precision: str
) -> None:
    asked = ("--engine", "tensorrt-rtx", "--precision", precision, "--target", "sm_75", "--out", "x.plan")
    found = framewarden(*BUILD, *asked, cwd=tmp_path)
    assert found.code == 2
    assert f"--precision {precision}: TensorRT-RTX" in found.err
    assert "use --precision fp16" in found.err
    assert not (tmp_path / "x.plan").exists()


def test_tensorrt_is_refused_where_the_target_gpu_is_not(tmp_path: Path) -> None:
    asked = ("--engine", "tensorrt", "--precision", "int8", "--target", "sm_01", "--out", "x.plan")
    found = framewarden(*BUILD, *asked, cwd=tmp_path)
    assert found.code == 2
    assert "--engine tensorrt: builds on the target GPU only (sm_01; this machine has" in found.err
    assert "or build here with --engine tensorrt-rtx" in found.err


@pytest.mark.parametrize(
    ("target", "why"),
    [("t4", "is no GPU's architecture, such as sm_75"), ("sm_90", "builds for sm_75, sm_80")],
)
def test_a_target_that_nothing_can_be_built_for_is_refused_before_anything_is_begun(
    tmp_path: Path, target: str, why: str
) -> None:
    asked = ("--engine", "tensorrt-rtx", "--target", target, "--out", "x.plan", "--pictures", "/")
    found = framewarden(*BUILD, *asked, cwd=tmp_path)
    assert found.code == 2
    assert f"--target {target}: " in found.err
    assert why in found.err


def test_a_plan_is_verified_only_where_its_engine_runs(tmp_path: Path) -> None:
    if registry.gpu_target() is not None:
        pytest.skip("this machine has a GPU: gpu-check verifies plans on it")
    (tmp_path / "x.plan").write_bytes(b"plan")
    found = framewarden("engine", "verify", "open-nsfw", "--plan", "x.plan", cwd=tmp_path)
    assert (found.code, "--plan: belongs to one MODEL and one --engine" in found.err) == (2, True)
    asked = ("open-nsfw", "--plan", "x.plan", "--engine", "tensorrt-rtx")
    found = framewarden("engine", "verify", *asked, cwd=tmp_path)
    assert (found.code, "engine: tensorrt-rtx: cannot be used here: NVIDIA driver" in found.err) == (2, True)


def test_a_cache_that_cannot_be_written_is_one_line_and_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would only be remembered is left out; the engine itself has nowhere to go."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    mean_colour_model(tmp_path / "mine.onnx")
    write_manifest(tmp_path, tolerance=ACCEPTS)
    (tmp_path / "pictures").mkdir()
    for number, colour in enumerate(colours()):
        Image.fromarray(colour).save(tmp_path / "pictures" / f"{number}.png")
    asked = ("engine", "build", "mine.yaml", "--pictures", "pictures", "--frames", "50")
    found = framewarden(*asked, cwd=tmp_path)
    assert found.code == 1, found.err
    (line,) = [line for line in found.err.splitlines() if line.startswith("framewarden: error: ")]
    assert "engine cache /dev/null/" in line
    assert "cannot be written: Not a directory; free some space there" in line


def test_a_plan_needs_a_file_to_be_written_to(tmp_path: Path) -> None:
    found = framewarden(*BUILD, "--engine", "tensorrt-rtx", "--target", "sm_75", cwd=tmp_path)
    assert found.code == 2
    assert "--out: is missing" in found.err


def test_openvino_builds_int8_only(tmp_path: Path) -> None:
    found = framewarden(*BUILD, "--precision", "fp16", cwd=tmp_path)
    assert found.code == 2
    assert "OpenVINO reads the weights for bf16 and f32" in found.err


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    found = framewarden(*BUILD, "--pictures", str(tmp_path), cwd=tmp_path)
    assert found.code == 2
    assert f"--pictures {tmp_path}: no picture there: looked for .jpeg, .jpg, .png" in found.err


def test_a_plan_for_a_t4_is_built_without_a_gpu_from_a_graph_verified_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = ("--engine", "tensorrt-rtx", "--target", "sm_75", "--out", "t4.plan", "--frames", "60", "--json")
    found = framewarden(*BUILD, *asked, cwd=tmp_path)
    report = json.loads(found.out)
    assert (found.code, report["ok"], report["engine"], report["frames"]) == (0, True, "onnxruntime-f16", 60)
    assert report["near"] >= 0.2
    assert (tmp_path / "t4.plan").stat().st_size == report["bytes"] > 5_000_000
