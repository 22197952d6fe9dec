"""The tutorial of ``docs/engines.md``: from a PyTorch checkpoint to an engine. Skipped only where PyTorch is
not installed, which framewarden does not need."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from pipeline import engines
from pipeline.backends import build_tensorrt, onnx_graph, registry
from tests.fixtures.own_model import BLUE, GREEN, RED, pixels, write_manifest

pytest.importorskip(
    "torch", reason="PyTorch is not installed (framewarden does not need it); pip install torch"
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_pytorch_checkpoint_becomes_a_model_that_scores_and_a_plan_for_a_t4(tmp_path: Path) -> None:
    torch = importlib.import_module("torch")

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    torch.save(net.state_dict(), tmp_path / "checkpoint.pt")
    net.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    net.eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, 8, 8),),
        str(tmp_path / "mine.onnx"),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    manifest = engines.load_manifest(str(write_manifest(tmp_path, output={"activation": "softmax"})))
    batch = pixels(RED, GREEN, BLUE)
    with torch.no_grad():
        wanted = torch.softmax(net(torch.from_numpy(batch)), 1).numpy()
    for engine in ("onnxruntime", "openvino-f32"):
        scores = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=4).infer(batch)
        np.testing.assert_allclose(scores, np.stack([wanted[:, 0], wanted[:, 1:].max(axis=1)], 1), atol=1e-5)
    graph = onnx_graph.halved(onnx_graph.clean(tmp_path / "mine.onnx")).SerializeToString()
    plan = build_tensorrt.build_plan(graph, manifest.spec, engine="tensorrt-rtx", target="sm_75", max_batch=4)
    assert plan.data
