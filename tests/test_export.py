"""The tutorial of ``docs/engines.md``, from a checkpoint to an engine, run as it is written there.

Its export wants PyTorch, which framewarden does not need: without it that step alone is skipped, unless
``REQUIRE_TORCH=1``, as in ``make export``, which installs it."""

import contextlib
import importlib
import importlib.util
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import engines
from pipeline.backends import registry
from tests.cli.command import ROOT, framewarden

SECTION = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8").split("## From a PyTorch checkpoint")[1]
RED_AGAINST_GREEN = np.array([[1, -1, 0], [-1, 1, 0]], np.float32)[:, :, None, None]
"""The weights of a convolution: red is a weapon, green is none."""
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None and os.environ.get("REQUIRE_TORCH") != "1",
    reason="PyTorch is not installed (framewarden does not need it); make export runs this with it",
)


def written(language: str) -> str:
    """The tutorial's block in that language."""
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None
    return found[1]


def commands() -> list[list[str]]:
    """The tutorial's commands, without the ``framewarden`` before them."""
    section = SECTION.partition("\n## ")[0]
    return [
        shlex.split(line, comments=True)[1:] for line in re.findall(r"^ +(framewarden .*)$", section, re.M)
    ]


def by_hand(folder: Path) -> None:
    """``mine.onnx`` as the export would leave it."""
    onnx = importlib.import_module("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["seen"]),
        helper.make_node("GlobalAveragePool", ["seen"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("image", kind, ["batch", 3, 224, 224])
    wanted = helper.make_tensor_value_info("logits", kind, ["batch", 2])
    weight = onnx.numpy_helper.from_array(RED_AGAINST_GREEN, "weight")
    graph = helper.make_graph(nodes, "mine", [given], [wanted], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "mine.onnx"))


def by_the_tutorial(folder: Path) -> None:
    """A checkpoint, and the tutorial's own lines."""
    torch = importlib.import_module("torch")

    def classifier() -> Any:
        convolution = torch.nn.Conv2d(3, 2, 1)
        return torch.nn.Sequential(convolution, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    trained = {"0.weight": torch.from_numpy(RED_AGAINST_GREEN), "0.bias": torch.zeros(2)}
    torch.save(trained, folder / "checkpoint.pt")
    with contextlib.chdir(folder):
        exec(compile(written("python"), "docs/engines.md", "exec"), {"MyClassifier": classifier})


def pictures(folder: Path) -> None:
    """Red, green, grey and noise."""
    folder.mkdir()
    noise = np.random.default_rng(7).integers(0, 256, (96, 96, 3), np.uint8)
    plain = [np.full_like(noise, colour) for colour in ((250, 20, 20), (20, 250, 20), (120, 120, 120))]
    for number, picture in enumerate([*plain, noise]):
        Image.fromarray(picture).save(folder / f"{number}.png")


def expected(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The softmax's first column: of logits d and -d it is 1 / (1 + exp(-2 d))."""
    apart = pixels[:, 0].mean(axis=(1, 2)) - pixels[:, 1].mean(axis=(1, 2))
    return np.asarray(1 / (1 + np.exp(-2 * apart)), np.float32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("export", [by_hand, pytest.param(by_the_tutorial, marks=needs_torch)])
def test_the_tutorial_leads_from_a_checkpoint_to_scores_and_to_a_plan_for_a_t4(
    export: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    export(tmp_path)
    (tmp_path / "mine.yaml").write_text(written("yaml"), encoding="utf-8")
    pictures(tmp_path / "my-pictures")
    manifest = engines.load_manifest(str(tmp_path / "mine.yaml"))
    noise = np.random.default_rng(1).normal(0, 1, (5, 3, 224, 224)).astype(np.float32)
    noise[:, 0] += np.linspace(-1, 1, 5, dtype=np.float32)[:, None, None]
    for engine in ("onnxruntime", "openvino-f32"):
        scores = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=8).infer(noise)
        np.testing.assert_allclose(scores[:, 0], expected(noise), atol=1e-4)
    verify, int8, plan = commands()
    assert framewarden(*verify, "--frames", "60", cwd=tmp_path).code == 0
    quantized = framewarden(*int8, "--frames", "60", cwd=tmp_path)
    assert "openvino-int8 against onnxruntime-f32, 60 pictures" in quantized.out, quantized.err
    built = framewarden(*plan, "--frames", "60", cwd=tmp_path)
    assert (built.code, built.err) == (0, "")
    assert (tmp_path / "mine.plan").stat().st_size > 1000


def test_the_tutorials_mean_and_scale_are_those_of_torchvision(tmp_path: Path) -> None:
    """(v / 255 - mean) / deviation is (v - 255 mean) / (255 deviation)."""
    (tmp_path / "mine.yaml").write_text(written("yaml"), encoding="utf-8")
    spec = engines.load_manifest(str(tmp_path / "mine.yaml")).spec
    np.testing.assert_allclose(spec.mean, 255 * np.array([0.485, 0.456, 0.406]), rtol=1e-3)
    np.testing.assert_allclose(spec.scale, 1 / (255 * np.array([0.229, 0.224, 0.225])), rtol=1e-3)
