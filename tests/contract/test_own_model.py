"""A user's own ONNX classifier works by its manifest alone, on every engine; a wrong one is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import engines
from pipeline.backends import registry
from pipeline.errors import BackendError, ModelError
from tests.fixtures.own_model import BLUE, CPU_ENGINES, GREEN, RED, pixels, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_users_own_model_works_by_its_manifest_alone(tmp_path: Path, engine: str) -> None:
    """softmax of (10, 0, 0) is (0.9999, 0.0000, 0.0000); a category scores as the greatest of its labels."""
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    classifier = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=8)
    scores = classifier.infer(pixels(RED, GREEN, BLUE, RED, GREEN))
    assert classifier.categories == ("warm", "cold")
    np.testing.assert_allclose(scores, [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1]], atol=2e-4)
    assert classifier.info.name == "mine"
    assert classifier.info.sha256 == engines.sha256_of(tmp_path / "mine.onnx")


def test_a_users_own_model_runs_in_f32_unless_its_manifest_accepts_bf16(tmp_path: Path) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    assert registry.open_classifier(manifest, threads=1, max_batch=1).info.engine == "openvino-f32"


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_model_of_a_fixed_batch_scores_batches_of_any_size(tmp_path: Path, engine: str) -> None:
    mean_colour_model(tmp_path / "mine.onnx", batch=2)
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    classifier = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=8)
    scores = classifier.infer(pixels(RED, GREEN, RED))
    np.testing.assert_allclose(scores, [[1, 0], [0, 1], [1, 0]], atol=2e-4)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_model_that_gives_logits_is_refused_and_the_error_names_the_cure(
    tmp_path: Path, engine: str
) -> None:
    mean_colour_model(tmp_path / "mine.onnx", final="none")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    with pytest.raises(
        ModelError, match=r"gives 9\.996, but a score is 0\.\.1; .*output\.activation to softmax"
    ):
        registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize(("activation", "white"), [("softmax", 1 / 3), ("sigmoid", 1 / (1 + np.exp(-9.996)))])
def test_logits_become_scores_by_the_activation_in_the_manifest(
    tmp_path: Path, engine: str, activation: str, white: float
) -> None:
    mean_colour_model(tmp_path / "mine.onnx", final="none")
    manifest = engines.load_manifest(str(write_manifest(tmp_path, output={"activation": activation})))
    classifier = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)
    np.testing.assert_allclose(classifier.infer(pixels(RED + GREEN + BLUE)), [[white, white]], atol=1e-5)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_wrong_number_of_labels_is_refused_at_load(tmp_path: Path, engine: str) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    path = write_manifest(tmp_path, labels=["red", "green"], categories={"warm": ["red"]})
    with pytest.raises(
        ModelError, match=r"output is \[\?, 3\], but the manifest names 2 labels \(red, green\)"
    ):
        registry.open_classifier(engines.load_manifest(str(path)), engine=engine, threads=1, max_batch=2)


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("wrong", [{"size": [9, 8]}, {"size": [8, 8], "layout": "nhwc"}])
def test_a_wrong_input_shape_is_refused_at_load(tmp_path: Path, engine: str, wrong: dict[str, Any]) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path, input=wrong)))
    with pytest.raises(ModelError, match=r"input is \[\?, 3, 8, 8\], the manifest says \[\?, "):
        registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_model_of_several_outputs_needs_the_name_of_one(tmp_path: Path, engine: str) -> None:
    mean_colour_model(tmp_path / "mine.onnx", second_output=True)
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    with pytest.raises(ModelError, match=r"output\.name is missing; the model has 'scores', 'means'"):
        registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)
    manifest = engines.load_manifest(str(write_manifest(tmp_path, output={"name": "scores"})))
    classifier = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)
    np.testing.assert_allclose(classifier.infer(pixels(RED)), [[1, 0]], atol=2e-4)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_an_input_name_that_the_model_lacks_is_refused(tmp_path: Path, engine: str) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path, input={"name": "image", "size": [8, 8]})))
    with pytest.raises(ModelError, match=r"input\.name: 'image': there is none; the model has 'pixels'"):
        registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)


@pytest.mark.parametrize("engine", ["auto", *CPU_ENGINES])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, engine: str) -> None:
    (tmp_path / "mine.onnx").write_text("this is not a model")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    with pytest.raises(
        ModelError, match=r"^model mine: (ONNX Runtime|OpenVINO) cannot (load|read) .*mine\.onnx"
    ) as caught:
        registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)
    assert "\n" not in str(caught.value)


def test_a_shipped_file_under_another_manifest_takes_its_categories(tmp_path: Path) -> None:
    """Only labels and categories differ: ``unsafe`` is the greater of the two classes of image-safety-s."""
    original = engines.load_manifest("image-safety-s")
    path = write_manifest(
        tmp_path,
        weights={"path": str(engines.weights(original)), "sha256": original.sha256},
        input={"size": [224, 224]},
        labels=["gore", "nude", "fine"],
        categories={"unsafe": ["gore", "nude"]},
    )
    frames = np.random.default_rng(3).uniform(0, 255, (2, 3, 224, 224)).astype(np.float32)
    one = registry.open_classifier(
        engines.load_manifest(str(path)), engine="onnxruntime", threads=2, max_batch=2
    )
    two = registry.open_classifier(original, engine="onnxruntime", threads=2, max_batch=2)
    np.testing.assert_allclose(one.infer(frames)[:, 0], two.infer(frames).max(axis=1), atol=1e-6)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_score_that_is_no_number_is_an_error_and_never_reads_as_clean(tmp_path: Path, engine: str) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    classifier = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)
    with pytest.raises(BackendError, match=r"mine on .* gave a value that is not finite"):
        classifier.infer(pixels(RED, GREEN * np.float32(np.nan)))
    np.testing.assert_allclose(classifier.infer(pixels(RED)), [[1, 0]], atol=2e-4)


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_an_engine_that_fails_is_told_as_our_own_error(tmp_path: Path, engine: str) -> None:
    """Pixels of another size than the model was compiled for are a bug of ours, but the engine finds it."""
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    classifier = registry.open_classifier(manifest, engine=engine, threads=1, max_batch=2)
    with pytest.raises(BackendError, match=r"^mine on (onnxruntime|openvino)-f32: ") as caught:
        classifier.infer(np.zeros((1, 3, 9, 8), np.float32))
    assert "\n" not in str(caught.value)
