"""Engines that are built: quantized graphs, plans, the cache, and which of them are used."""

import importlib
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from pipeline import engine_build, engine_cache, engines
from pipeline.backends import classify_openvino, onnx_graph, registry
from pipeline.backends.classify_cascade import CascadeClassifier
from pipeline.engine_build import Judge
from pipeline.engine_cache import Key
from pipeline.engines import Verification
from pipeline.errors import DiskError, ModelError
from pipeline.manifest import Manifest
from pipeline.material import Chosen, Material, calibration, choose, near
from tests.fixtures.own_model import ACCEPTS, colours, judge_of, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

RIGHT = Verification("mine", "tensorrt-f16", "onnxruntime-f32", 1000, 0.3, 1.0, 0.0, 0.0, 0.05)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def mine(tmp_path: Path) -> Manifest:
    """The mean-colour model, with a tolerance for every precision."""
    mean_colour_model(tmp_path / "mine.onnx")
    return engines.load_manifest(str(write_manifest(tmp_path, tolerance=ACCEPTS)))


@pytest.fixture
def material() -> Material:
    return Material(colours(), side=16)


_chosen: list[Chosen] = []


@pytest.fixture
def judge(mine: Manifest) -> Judge:
    """A thousand pictures around the thresholds of the mean-colour model."""
    if not _chosen:
        _chosen.append(judge_of(mine).chosen)
    return judge_of(mine, _chosen[0])


def test_the_pictures_to_verify_with_crowd_around_the_thresholds(judge: Judge) -> None:
    assert len(judge.chosen.recipes) == len(judge.chosen.scores) == 1000
    assert near(judge.chosen.scores).mean() >= 0.2


def test_the_same_seed_chooses_the_same_pictures_again(mine: Manifest, material: Material) -> None:
    reference = registry.open_classifier(mine, engine="onnxruntime", threads=1, max_batch=8)
    again = choose(Material(colours(), side=16), mine.spec, reference.infer, 100)
    first = choose(material, mine.spec, reference.infer, 100)
    assert again.recipes == first.recipes
    assert np.array_equal(again.scores, first.scores)


def test_no_picture_is_both_calibrated_and_verified_with(judge: Judge) -> None:
    assert not set(calibration(5, 500)) & set(judge.chosen.recipes)


def test_pictures_that_never_reach_a_threshold_cannot_judge_a_model(mine: Manifest) -> None:
    grey = [np.full((24, 24, 3), value, np.uint8) for value in (90, 120, 150)]
    reference = registry.open_classifier(mine, engine="onnxruntime", threads=1, max_batch=8)
    with pytest.raises(ModelError, match=r"none of the 3 pictures to verify with reaches 0\.6"):
        choose(Material(grey, side=16), mine.spec, reference.infer, 100)


def test_an_int8_engine_within_the_tolerance_is_kept_and_used_by_itself(judge: Judge) -> None:
    before = registry.open_classifier(judge.manifest, threads=1, max_batch=8)
    assert before.info.engine != "openvino-int8"
    with pytest.raises(ModelError, match="an int8 engine was not built here: framewarden engine build"):
        registry.open_classifier(judge.manifest, engine="openvino-int8", threads=1, max_batch=8)
    built = engine_build.build_int8(judge, 1, print)
    assert built.report.ok, built.report
    assert built.report.frames == 1000
    after = registry.open_classifier(judge.manifest, threads=1, max_batch=8)
    native = "int8" in classify_openvino.available_precisions()
    assert (after.info.engine == "openvino-int8") == native


def test_an_int8_engine_outside_the_tolerance_is_never_used(judge: Judge, tmp_path: Path) -> None:
    accepts = {"f32": 0.002, "int8": 1e-6}
    strict = engines.load_manifest(str(write_manifest(tmp_path, tolerance=accepts)))
    built = engine_build.build_int8(Judge(strict, judge.material, judge.chosen, "onnxruntime-f32"), 1, print)
    assert not built.report.ok
    assert registry.open_classifier(strict, threads=1, max_batch=8).info.engine == "openvino-f32"
    with pytest.raises(ModelError, match="was built here, but is not within the manifest's tolerance"):
        registry.open_classifier(strict, engine="openvino-int8", threads=1, max_batch=8)


def test_an_int8_engine_that_decides_otherwise_is_used_with_f32_near_the_thresholds(tmp_path: Path) -> None:
    """The steeper a model is at its thresholds, the more an int8 decides otherwise."""
    mean_colour_model(tmp_path / "mine.onnx", gain=10.0)
    steep = engines.load_manifest(str(write_manifest(tmp_path, tolerance=ACCEPTS | {"int8": 0.8})))
    judge = judge_of(steep)
    built = engine_build.build_int8(judge, 1, print)
    assert built.report.ok, built.report
    assert (built.report.engine, built.report.agreement) == ("openvino-int8+f32", 1.0)
    with pytest.raises(ModelError, match=r"decides otherwise than f32, .* use openvino-int8\+f32"):
        registry.open_classifier(steep, engine="openvino-int8", threads=1, max_batch=8)
    both = registry.open_classifier(steep, engine="openvino-int8+f32", threads=1, max_batch=8)
    assert isinstance(both, CascadeClassifier)
    assert both.margin == 0.8
    if "int8" in classify_openvino.available_precisions():
        assert registry.open_classifier(steep, threads=1, max_batch=8).info.engine == "openvino-int8+f32"

    stricter = engines.load_manifest(str(write_manifest(tmp_path, tolerance=ACCEPTS | {"int8": 0.01})))
    assert "int8" not in registry.open_classifier(stricter, threads=1, max_batch=8).info.engine
    with pytest.raises(ModelError, match=r"was built here for a tolerance of 0\.8 instead of 0\.01"):
        registry.open_classifier(stricter, engine="openvino-int8+f32", threads=1, max_batch=8)
    again = engine_build.build_int8(replace(judge, manifest=stricter), 1, print)
    assert again.report.engine == "openvino-int8", "off by more than the margin would be: no cascade of it"
    assert not again.report.ok


def test_openvinos_int8_quantizes_what_convolutions_read_and_not_what_they_give() -> None:
    made, model, pictures = _quantized_convolutions()
    sources = {name: node.op_type for node in made.graph.node for name in node.output}
    convolutions = [node for node in made.graph.node if node.op_type == "Conv"]
    assert [[sources[name] for name in node.input[:2]] for node in convolutions] == (
        [["DequantizeLinear"] * 2] * 3
    ), "picture or activation, and weights"
    added = next(node for node in made.graph.node if node.op_type == "Add")
    assert [sources[name] for name in added.input] == ["Conv", "Conv"]
    wanted, found = (
        ort.InferenceSession(one.SerializeToString()).run(None, {"image": pictures[0]})[0]
        for one in (model, made)
    )
    assert found.shape == wanted.shape == (2, 8, 8, 8)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_openvinos_int8_has_no_strides_that_only_skip() -> None:
    onnx = importlib.import_module("onnx")
    made, _, _ = _quantized_convolutions()
    assert [node.op_type for node in made.graph.node].count("MaxPool") == 1, "one for both that read the same"
    strides = [one.ints for node in made.graph.node for one in node.attribute if one.name == "strides"]
    assert sorted(map(list, strides)) == [[1, 1], [1, 1], [2, 2]]
    assert onnx.checker.check_model(made) is None


def _quantized_convolutions() -> tuple[Any, Any, NDArray[np.float32]]:
    """As OpenVINO takes them, the graph that they are of, and what they were calibrated with."""
    rng = np.random.default_rng(1)
    model, pictures = _convolutions(rng), rng.normal(0, 1, (4, 2, 3, 16, 16)).astype(np.float32)
    return onnx_graph.quantized(model, lambda: iter(pictures), symmetric=False), model, pictures


def _convolutions(rng: np.random.Generator) -> Any:
    """Three of them: one reads the picture, two of 1x1 skip every other value of what it gives."""
    onnx = importlib.import_module("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"first": (8, 3, 3, 3), "left": (8, 8, 1, 1), "right": (8, 8, 1, 1)}
    weights = [
        onnx.numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["seen"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["seen", "left"], ["one"], name="b", strides=[2, 2]),
        helper.make_node("Conv", ["seen", "right"], ["other"], name="c", strides=[2, 2]),
        helper.make_node("Add", ["one", "other"], ["sum"], name="d"),
    ]
    image = helper.make_tensor_value_info("image", floats, ["batch", 3, 16, 16])
    total = helper.make_tensor_value_info("sum", floats, ["batch", 8, 8, 8])
    graph = helper.make_graph(nodes, "convolutions", [image], [total], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_verdict_on_few_pictures_makes_no_engine_usable(judge: Judge) -> None:
    few = Chosen(judge.chosen.recipes[:60], judge.chosen.scores[:60])
    built = engine_build.build_int8(Judge(judge.manifest, judge.material, few, "onnxruntime-f32"), 1, print)
    assert built.report.ok
    assert engine_cache.accepted(classify_openvino.int8_key(judge.manifest), classify_openvino.GRAPH) is None


def test_an_engine_of_other_weights_is_another_engine(judge: Judge, tmp_path: Path) -> None:
    first = classify_openvino.int8_key(judge.manifest).folder()
    mean_colour_model(tmp_path / "mine.onnx", gain=2.0)
    assert classify_openvino.int8_key(judge.manifest).folder() != first


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_graph_for_a_gpu_is_verified_on_the_cpu(judge: Judge, precision: str) -> None:
    graph = engine_build.prepared(judge, precision)
    report = engine_build.verify_graph(judge, graph, precision, 1)
    assert report.ok, report
    assert report.engine == f"onnxruntime-{precision.replace('fp', 'f')}"


def test_a_graph_in_half_precision_reads_the_half_floats_that_a_gpu_s_pool_writes(judge: Judge) -> None:
    onnx = importlib.import_module("onnx")
    graph = onnx.load_from_string(engine_build.prepared(judge, "fp16")).graph
    kinds = [one.type.tensor_type.elem_type for one in (*graph.input, *graph.output)]
    assert kinds == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]


def test_a_graph_for_int8_has_signed_symmetric_quantization_as_tensorrt_wants_it(judge: Judge) -> None:
    onnx = importlib.import_module("onnx")
    graph = onnx.load_from_string(engine_build.prepared(judge, "int8")).graph
    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    points = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name in zeros]
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)


def test_tensorrts_int8_is_calibrated_with_the_same_pictures_as_the_cpus(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[bytes]] = []
    quantized = onnx_graph.quantized

    def heard(model: Any, feeds: onnx_graph.Feeds, *, symmetric: bool) -> Any:
        seen.append([batch.tobytes() for batch in feeds()])
        return quantized(model, feeds, symmetric=symmetric)

    monkeypatch.setattr(onnx_graph, "quantized", heard)
    engine_build.build_int8(judge, 1, print)
    engine_build.prepared(judge, "int8")
    for_cpu, for_gpu = seen
    assert len(for_cpu) == engine_build.CALIBRATION_FRAMES / engine_build.BATCH
    assert for_gpu == for_cpu


def test_a_verification_tells_decisions_apart_at_both_thresholds(mine: Manifest) -> None:
    wanted = np.array([[0.1, 0.59], [0.79, 0.2], [0.3, 0.3], [0.95, 0.1]], np.float32)
    found = wanted + np.array([[0, 0.02], [0.02, 0], [0.02, 0.02], [0, 0]], np.float32)
    report = engines.compare(mine, "openvino-int8", "onnxruntime-f32", found, wanted)
    assert report.agreement == 0.5
    assert report.near == 0.5
    assert report.mean == pytest.approx(0.01)
    assert report.faults == ["same decision 50.00 % (needed: 99.5 %)"]


def test_a_precision_without_a_tolerance_is_never_right() -> None:
    assert not Verification("m", "openvino-int8", "r", 1000, 0.3, 1.0, 0.0, 0.0, None).ok


def plan_key(manifest: Manifest, most: int, target: str = "T4 sm_75") -> Key:
    return engine_cache.key_of(
        manifest, "0" * 64, "tensorrt", "f16", runtime="10", target=target, recipe="1", max_batch=most
    )


def test_a_plan_for_greater_batches_serves_smaller_ones_but_not_the_other_way_round(mine: Manifest) -> None:
    keys = {most: plan_key(mine, most) for most in (4, 8, 16, 32)}
    for most in (8, 16):
        engine_cache.keep(keys[most], {"model.plan": b"plan"}, RIGHT, {})
    found = {most: engine_cache.accepted(key, "model.plan") for most, key in keys.items()}
    assert found[4] == found[8] == keys[8].folder() / "model.plan"
    assert found[16] == keys[16].folder() / "model.plan"
    assert found[32] is None
    assert engine_cache.accepted(plan_key(mine, 8, target="L4 sm_89"), "model.plan") is None


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("weights", "1" * 64, "other weights"),
        ("engine", "tensorrt-rtx", ""),  # of another kind there is none
        ("precision", "int8", ""),
        (
            "runtime",
            "tensorrt 11.4, driver 13000",
            "tensorrt 10.16, driver 12020 (here: tensorrt 11.4, driver 13000)",
        ),
        ("target", "Tesla T4 sm_76", "Tesla T4 sm_75 (here: Tesla T4 sm_76)"),
        ("recipe", "2", "another recipe"),
    ],
)
def test_a_plan_is_for_its_weights_engine_precision_versions_and_gpu_only(
    mine: Manifest, name: str, other: str, said: str
) -> None:
    about = {
        "weights": "0" * 64,
        "engine": "tensorrt",
        "precision": "f16",
        "runtime": "tensorrt 10.16, driver 12020",
        "target": "Tesla T4 sm_75",
        "recipe": "1",
    }

    def key(**about: str) -> Key:
        named = {name: about[name] for name in ("runtime", "target", "recipe")}
        return engine_cache.key_of(
            mine, about["weights"], about["engine"], about["precision"], max_batch=16, **named
        )

    engine_cache.keep(key(**about), {"model.plan": b"plan"}, RIGHT, {})
    assert engine_cache.accepted(key(**about), "model.plan") is not None
    assert engine_cache.stale(key(**about)) == ""
    assert engine_cache.accepted(key(**about | {name: other}), "model.plan") is None
    assert engine_cache.stale(key(**about | {name: other})) == said


def test_of_engines_that_do_not_fit_the_newest_is_told_of(mine: Manifest) -> None:
    wanted = plan_key(mine, 16)
    for age, target in enumerate(("T4 sm_75", "L4 sm_89", "A10 sm_86")):
        place = engine_cache.keep(plan_key(mine, 8, target), {"model.plan": b"plan"}, RIGHT, {})
        os.utime(place / engine_cache.REPORT, (1e9 - age, 1e9 - age))
    assert engine_cache.stale(wanted) == "batches of up to 8 (here: 16)"
    (plan_key(mine, 8).folder() / engine_cache.REPORT).unlink()
    assert engine_cache.stale(wanted) == "L4 sm_89 (here: T4 sm_75), batches of up to 8 (here: 16)"
    (plan_key(mine, 8, "L4 sm_89").folder() / engine_cache.REPORT).write_text("torn")
    assert engine_cache.stale(wanted) == "something unknown (its report cannot be read)"


@pytest.mark.skipif(
    "int8" not in classify_openvino.available_precisions(), reason="this processor has no int8 of its own"
)
def test_an_int8_of_another_version_is_named_with_what_to_do_and_not_used(mine: Manifest) -> None:
    key = classify_openvino.int8_key(mine)
    engine_cache.keep(replace(key, runtime="openvino 2020.1"), {classify_openvino.GRAPH: b"graph"}, RIGHT, {})
    said = f"openvino 2020.1 (here: {key.runtime})"
    build = "framewarden engine build mine --engine openvino --precision int8"
    with pytest.raises(ModelError, match=re.escape(f"was built here for {said}: {build}")):
        registry.open_classifier(mine, engine="openvino-int8", threads=1, max_batch=8)
    with capture_logs() as logs:
        assert registry.open_classifier(mine, threads=1, max_batch=8).info.engine != "openvino-int8"
    about = {"model": "mine", "engine": "openvino-int8", "built_for": said, "cure": build}
    assert logs == [{"event": "engine.stale", "log_level": "warning", **about}]


def test_what_a_build_found_of_kernels_is_kept_for_this_version_and_kind_of_gpu() -> None:
    place = engine_cache.timings("tensorrt 10.16", "sm_75")
    for data in (b"first", b"second"):
        engine_cache.put(place, data)
    assert place.read_bytes() == b"second"
    assert list(place.parent.iterdir()) == [place]
    assert place != engine_cache.timings("tensorrt 11.4", "sm_75")
    assert place != engine_cache.timings("tensorrt 10.16", "sm_89")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_no_build_what_is_only_remembered(caplog: pytest.LogCaptureFixture) -> None:
    place = engine_cache.timings("tensorrt 10.16", "sm_75")
    engine_cache.put(place, b"first")
    with full_disk():
        engine_cache.put(place, bytes(1000))
    assert caplog.messages == [f"cache {place}: cannot be written: File too large; it is done without"]
    assert place.read_bytes() == b"first"
    assert list(place.parent.iterdir()) == [place]


def test_an_engine_that_finds_no_room_is_an_error_of_the_disk_and_the_one_before_stays(
    mine: Manifest,
) -> None:
    key = plan_key(mine, 8)
    place = engine_cache.keep(key, {"model.plan": b"plan"}, RIGHT, {})
    with (
        full_disk(),
        pytest.raises(DiskError, match="cannot be written: File too large; free some space there"),
    ):
        engine_cache.keep(key, {"model.plan": bytes(1000)}, RIGHT, {})
    assert (place / "model.plan").read_bytes() == b"plan"
    assert engine_cache.accepted(key, "model.plan") == place / "model.plan"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_no_plan_is_made_of_a_graph_that_is_not_within_the_tolerance(
    judge: Judge, tmp_path: Path, precision: str
) -> None:
    accepts = {"f32": 0.002, "f16": 1e-9, "int8": 1e-9}
    strict = engines.load_manifest(str(write_manifest(tmp_path, tolerance=accepts)))
    with pytest.raises(
        ModelError, match=f"its {precision} graph is not used: .* of 1000 pictures; use another"
    ):
        engine_build.build_plan(
            Judge(strict, judge.material, judge.chosen, "onnxruntime-f32"),
            engine="tensorrt-rtx",
            precision=precision,
            target="sm_75" if precision == "fp16" else "sm_89",
            max_batch=4,
            out=tmp_path / "mine.plan",
            threads=1,
            say=print,
        )
    assert not (tmp_path / "mine.plan").exists()
