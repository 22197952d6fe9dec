"""``framewarden doctor`` on a FAKE driver: each thing that a GPU server may lack is named, with its cure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.backends import frames_cupy, registry
from pipeline.backends.cuda_device import open_device
from pipeline.errors import BackendError
from pipeline.flow.frames import InputSpec
from tests.gpu.conftest import ROOT

VIDEO = ("libnvcuvid.so.1", "libnvidia-encode.so.1")


def doctor(libraries: Path, **environment: str) -> tuple[str, dict[str, tuple[bool, str]]]:
    """The device that it chooses and why; and of each piece of the GPU path whether it is there, and why."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor", "--json"],
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    pieces = {piece["name"]: (piece["available"], piece["reason"]) for piece in found["gpu"]}
    return f"{found['device']}: {found['device_reason']}", pieces


def test_a_server_with_all_of_it_is_one_with_a_gpu_once_an_engine_was_built(
    fake_driver: Path, tmp_path: Path
) -> None:
    """CuPy is an empty package here: it is looked for, not used."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").touch()
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    device, pieces = doctor(fake_driver, **environment)
    assert pieces["NVIDIA driver"] == (True, "1 GPU")
    assert pieces["NVDEC"] == (True, "in the driver")
    assert device.startswith("cpu: a GPU and all it needs were found, but no engine of any model: ")
    plan = tmp_path / "framewarden" / "engines" / "open-nsfw-tensorrt-f16-0"
    plan.mkdir(parents=True)
    (plan / "report.json").write_text("{}")
    device, _ = doctor(fake_driver, **environment)
    assert device == "gpu: an NVIDIA GPU and all it needs were found"


@pytest.mark.parametrize("absent", VIDEO)
def test_a_container_that_was_given_no_video_is_told_how_to_get_it(
    fake_driver: Path, tmp_path: Path, absent: str
) -> None:
    """What ``--gpus all`` alone gives: everything computes, nothing decodes."""
    for library in fake_driver.iterdir():
        (tmp_path / library.name).symlink_to(library)
    (tmp_path / absent).unlink()
    (tmp_path / absent).touch()  # hides a real one
    device, pieces = doctor(tmp_path)
    there, why = pieces["NVDEC"]
    assert (there, pieces["NVIDIA driver"][0]) == (False, True)
    assert why.startswith(f"{absent} was not found; ")
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in why
    assert device.startswith("cpu: no usable GPU (NVDEC: ")


def test_a_driver_that_is_too_old_is_told_from_none(fake_driver: Path) -> None:
    _, pieces = doctor(fake_driver, FAKE_CUDA_VERSION="11040")
    assert pieces["NVIDIA driver"] == (
        False,
        "it is for CUDA up to 11.4; install driver 535 (CUDA 12.2) or newer",
    )


def test_each_package_that_is_not_installed_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("cupy", "PyNvVideoCodec", "tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    said = {piece.name: piece for piece in registry.gpu_pieces()}
    for name in ("cupy", "PyNvVideoCodec", "TensorRT"):
        assert not said[name].available
        assert 'is not installed: pip install "framewarden[gpu]"' in said[name].reason


def test_without_cupy_it_says_what_is_missing_and_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    for opened in (open_device, lambda: frames_cupy.open_pool(InputSpec(4, 3), 1)):
        with pytest.raises(BackendError, match=r'needs CuPy.*pip install "framewarden\[gpu\]"'):
            opened()
