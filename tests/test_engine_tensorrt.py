"""TensorRT without a GPU: what is used of it, what is refused, and real plans for a T4 by TensorRT-RTX."""

import ast
import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline import engine_cache, engines
from pipeline.backends import (
    build_tensorrt,
    classify_onnxruntime,
    classify_tensorrt,
    onnx_graph,
    registry,
)
from pipeline.engines import Verification
from pipeline.errors import BackendError, ConfigError, ModelError
from pipeline.flow.resize import Colour, convert
from pipeline.manifest import Manifest
from tests.fixtures.own_model import write_manifest
from tests.fixtures.pictures import cards
from tests.fixtures.tiny_onnx import mean_colour_model


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The mean-colour model, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mean_colour_model(tmp_path / "mine.onnx")
    return engines.load_manifest(str(write_manifest(tmp_path)))


def test_what_is_used_of_tensorrt_is_there_in_the_real_bindings_of_tensorrt_rtx() -> None:
    trt = importlib.import_module("tensorrt_rtx")
    used = [build_tensorrt.SURFACE, build_tensorrt.RTX_SURFACE, classify_tensorrt.SURFACE]
    for table in used:
        for kind, names in table.items():
            missing = [name for name in names if not hasattr(getattr(trt, kind), name)]
            assert not missing, f"{kind} has no {missing}"


@pytest.mark.parametrize("module", [build_tensorrt, classify_tensorrt])
def test_nothing_else_of_tensorrt_is_used(module: object) -> None:
    """Every attribute of the objects that come from TensorRT stands in the table that is checked above."""
    owners = {"builder", "network", "parser", "config", "profile", "engine", "_engine", "context", "_context"}
    owners |= {"_runtime"}
    allowed = {
        name
        for one in (build_tensorrt, classify_tensorrt)
        for names in one.SURFACE.values()
        for name in names
    }
    allowed |= {name for names in build_tensorrt.RTX_SURFACE.values() for name in names}
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and _last(node.value) in owners
    }
    assert used
    assert used <= allowed | {"rpartition"}


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_without_a_gpu_its_classifiers_say_so_before_they_touch_their_engines(mine: Manifest) -> None:
    if registry.gpu_target() is not None:
        pytest.skip("this machine has a GPU: the contract tests run the classifier on it")
    for engine in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"):
        with pytest.raises(BackendError, match=r"the GPU failed to open a stream|needs CuPy"):
            registry.open_classifier(mine, engine=engine, threads=1, max_batch=4)


T4 = {"name": b"Tesla T4", "major": 7, "minor": 5}
RIGHT = Verification("mine", "tensorrt-rtx-f16", "onnxruntime-f32", 1000, 0.3, 1.0, 0.0, 0.0, 0.05)


@pytest.fixture
def on_a_t4(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What CuPy says of a GPU and its driver; the driver may be set anew."""
    runtime = SimpleNamespace(getDeviceProperties=lambda gpu: T4, driverGetVersion=lambda: 12020)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setattr(classify_tensorrt, "load_cupy", lambda: cupy)
    return runtime


def kept(manifest: Manifest, precision: str) -> None:
    """A plan that was built with what is here now."""
    key = classify_tensorrt.key(manifest, "tensorrt-rtx", precision, 16)
    engine_cache.keep(key, {classify_tensorrt.PLAN: b"plan"}, RIGHT, {})


def chosen(manifest: Manifest) -> str:
    """The precision of the plan that ``run`` would load."""
    return classify_tensorrt._kept(manifest, "tensorrt-rtx", None, 0, 16)[1]


def test_a_plan_that_fits_no_longer_is_an_error_that_says_why_and_what_to_do(
    mine: Manifest, on_a_t4: SimpleNamespace
) -> None:
    version = f"tensorrt-rtx {build_tensorrt.load('tensorrt-rtx').__version__}"
    build = "framewarden engine build mine --engine tensorrt-rtx --precision fp16 --max-batch 16 --out"
    with pytest.raises(ModelError, match=f"none for batches of 16 was built .* tensorrt-rtx: {build}"):
        chosen(mine)
    kept(mine, "f16")
    assert chosen(mine) == "f16"
    on_a_t4.driverGetVersion = lambda: 13000
    said = f"built for {version}, driver 12020 (here: {version}, driver 13000)"
    with pytest.raises(ModelError, match=re.escape(f"no plan fits: tensorrt-rtx-f16 was {said}: {build}")):
        chosen(mine)


def test_a_slower_plan_that_fits_is_used_and_the_faster_one_that_does_not_is_logged(
    mine: Manifest, on_a_t4: SimpleNamespace
) -> None:
    kept(mine, "f16")
    on_a_t4.driverGetVersion = lambda: 13000
    kept(mine, "f32")
    with capture_logs() as logs:
        assert chosen(mine) == "f32"
    (said,) = logs
    assert (said["event"], said["model"], said["engine"]) == ("engine.stale", "mine", "tensorrt-rtx-f16")
    assert "driver 12020 (here: " in said["built_for"]
    assert "--precision fp16" in said["cure"]
    kept(mine, "f16")
    with capture_logs() as logs:
        assert chosen(mine) == "f16"
    assert logs == []


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp32"])
def test_tensorrt_builds_every_precision_on_the_target_and_tensorrt_rtx_half_precision_for_a_t4(
    precision: str,
) -> None:
    """``here`` is the GPU of the machine; a target that is left out is that one."""
    for target in (None, "sm_75"):
        build_tensorrt.refuse("tensorrt", precision, target, here="sm_75")
    with pytest.raises(ConfigError, match=r"on the target GPU only \(sm_75; this machine has sm_89\)"):
        build_tensorrt.refuse("tensorrt", precision, "sm_75", here="sm_89")
    build_tensorrt.refuse("tensorrt-rtx", precision, "sm_89", here=None)
    for target, here in ((None, "sm_75"), ("sm_75", None), ("sm_75", "sm_89")):
        if precision == "fp16":
            build_tensorrt.refuse("tensorrt-rtx", precision, target, here)
        else:
            with pytest.raises(ConfigError, match=f"{precision}: TensorRT-RTX .* use --precision fp16"):
                build_tensorrt.refuse("tensorrt-rtx", precision, target, here)


@pytest.mark.parametrize("name", engines.shipped())
def test_a_shipped_model_scores_in_half_precision_as_it_did_and_builds_for_a_t4(
    tmp_path: Path, name: str
) -> None:
    """Twelve of its cards, calm to flagged, by the very graph of which the plan is made."""
    manifest = engines.load_manifest(name)
    graph = onnx_graph.halved(onnx_graph.clean(engines.weights(manifest))).SerializeToString()
    (tmp_path / "half.onnx").write_bytes(graph)
    half = classify_onnxruntime.open_classifier(
        manifest, threads=2, max_batch=12, precision="f16", graph=tmp_path / "half.onnx"
    )
    reference = registry.open_classifier(manifest, engine="onnxruntime", threads=2, max_batch=12)
    shown = [np.moveaxis(card, -1, 0) for card in list(cards(f"{name}-*.png").values())[:12]]
    slots = [convert(list(planes), manifest.spec, Colour("rgb", full=True)) for planes in shown]
    pixels = np.stack(slots, dtype=np.float32, casting="same_kind")
    wanted = reference.infer(pixels)
    assert np.ptp(wanted) > 0.5
    assert np.abs(half.infer(pixels) - wanted).max() <= manifest.tolerance["f16"]
    plan = build_tensorrt.build_plan(
        graph, manifest.spec, engine="tensorrt-rtx", target="sm_75", max_batch=16
    )
    assert len(plan.data) > 5_000_000


def test_a_target_that_tensorrt_rtx_does_not_know_is_answered_with_those_it_does(mine: Manifest) -> None:
    graph = onnx_graph.clean(engines.weights(mine)).SerializeToString()
    with pytest.raises(ConfigError, match=r"--target sm_10: .* builds for sm_75, sm_80"):
        build_tensorrt.build_plan(graph, mine.spec, engine="tensorrt-rtx", target="sm_10", max_batch=4)


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_refused_before_anything_is_begun() -> None:
    build_tensorrt.check("tensorrt-rtx", None, "sm_75")
    build_tensorrt.check("tensorrt-rtx", "sm_75", "sm_90")
    with pytest.raises(ConfigError, match=r"--target sm_90: .* on that GPU: --engine tensorrt$"):
        build_tensorrt.check("tensorrt-rtx", None, "sm_90")


def test_a_graph_in_fp32_is_refused_for_a_t4_with_the_compilers_reason(mine: Manifest) -> None:
    graph = onnx_graph.clean(engines.weights(mine)).SerializeToString()
    with pytest.raises(ModelError, match=r"cannot compile the graph for sm_75: .*FP32 GEMM is not supported"):
        build_tensorrt.build_plan(graph, mine.spec, engine="tensorrt-rtx", target="sm_75", max_batch=4)
