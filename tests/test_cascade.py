"""A fast engine whose doubtful scores an exact one gives again, and how it learns where scores decide."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import engines
from pipeline.backends import registry
from pipeline.backends.classify_cascade import THRESHOLDS, CascadeClassifier
from pipeline.config import Config
from pipeline.errors import ModelError
from pipeline.flow.classify import Classifier
from pipeline.service.engine import thresholds
from tests.fixtures.own_model import write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

MARGIN = 0.05


def opened(folder: Path, gain: float) -> Classifier:
    """The mean-colour model; another ``gain`` makes it score a little otherwise."""
    mean_colour_model(folder / "mine.onnx", gain=gain)
    manifest = engines.load_manifest(str(write_manifest(folder)))
    return registry.open_classifier(manifest, engine="openvino-f32", threads=1, max_batch=64)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Classifier, Classifier]:
    """A fast engine and an exact one that are apart by less than ``MARGIN``."""
    fast, exact = opened(tmp_path, 0.96), opened(tmp_path, 1.0)
    apart = np.abs(fast.infer(pictures()) - exact.infer(pictures()))
    assert 0.005 < apart.max() < MARGIN
    return fast, exact


def pictures() -> NDArray[np.float32]:
    """64 plain ones; their scores of ``warm`` and ``cold`` rise from 0 to 1 and fall from 1 to 0."""
    strength = np.linspace(0, 10, 64, dtype=np.float32)
    plain = np.stack([strength, 5 - strength / 2, np.zeros_like(strength)], axis=1)
    return np.ascontiguousarray(plain[:, :, None, None] * np.ones((1, 1, 8, 8), np.float32))


def test_a_picture_near_a_threshold_is_the_exact_engines_and_no_other(
    pair: tuple[Classifier, Classifier],
) -> None:
    fast, exact = pair
    both = CascadeClassifier(fast, exact, MARGIN)
    first, right = fast.infer(pictures()), exact.infer(pictures())
    near = (np.abs(first[:, :, None] - np.array(THRESHOLDS)) <= MARGIN).any(axis=(1, 2))
    assert 5 < near.sum() < 60
    assert np.array_equal(both.infer(pictures()), np.where(near[:, None], right, first))
    assert both.again == near.sum()


def test_everything_is_decided_as_the_exact_engine_does(pair: tuple[Classifier, Classifier]) -> None:
    """At whatever thresholds: the two are never further apart than the margin."""
    fast, exact = pair
    both, right = CascadeClassifier(fast, exact, MARGIN), exact.infer(pictures())
    wrong = 0
    for threshold in np.linspace(0.02, 0.98, 49):
        both.thresholds = (float(threshold),)
        assert np.array_equal(both.infer(pictures()) >= threshold, right >= threshold)
        wrong += ((fast.infer(pictures()) >= threshold) != (right >= threshold)).sum()
    assert wrong > 0, "the fast engine alone decides some otherwise"


def test_where_nothing_is_decided_nothing_is_scored_again(pair: tuple[Classifier, Classifier]) -> None:
    both = CascadeClassifier(*pair, MARGIN)
    both.thresholds = ()
    assert np.array_equal(both.infer(pictures()), pair[0].infer(pictures()))
    assert both.again == 0


def test_it_says_which_two_engines_it_is(tmp_path: Path) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path, tolerance={"bf16": 0.04})))
    both = registry.open_classifier(manifest, engine="openvino-bf16+f32", threads=1, max_batch=8)
    assert isinstance(both, CascadeClassifier)
    assert (both.info.engine, both.margin) == ("openvino-bf16+f32", 0.04)
    scores = both.infer(pictures()[:8])
    assert engines.compare(manifest, both.info.engine, "r", scores, scores).tolerance == 0.04


def test_without_a_tolerance_it_is_not_known_what_is_near(tmp_path: Path) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = engines.load_manifest(str(write_manifest(tmp_path)))
    with pytest.raises(
        ModelError, match=r"tolerance\.bf16: is missing; .* verify mine --engine openvino-bf16$"
    ):
        registry.open_classifier(manifest, engine="openvino-bf16+f32", threads=1, max_batch=8)


def test_a_model_heeds_every_threshold_of_the_streams_that_it_screens() -> None:
    """``instant`` decides only where one hit does not open a segment."""
    config = Config.model_validate(
        {
            "policy": {"sexual": {"open": 0.9}},
            "streams": [
                {"id": "a", "url": "a.mp4"},
                {"id": "b", "url": "b.mp4", "policy": {"sexual": {"close": 0.7, "min_hits": 2, "window": 3}}},
                {"id": "c", "url": "c.mp4", "model": "image-safety-s", "policy": {"graphic": {"open": 0.95}}},
            ],
        }
    )
    assert thresholds(config, "open-nsfw", ["sexual"]) == (0.5, 0.6, 0.7, 0.9, 0.97)
    assert thresholds(config, "image-safety-s", ["graphic", "sexual"]) == (0.5, 0.6, 0.9, 0.95)
    assert thresholds(config, "mine.yaml", ["warm"]) == ()


def test_every_engine_that_a_config_may_name_is_there() -> None:
    named = set(get_args(Config.model_fields["engine"].annotation))
    assert named <= {"auto", *registry.ENGINES}
    assert {one for one in registry.ENGINES if registry.ENGINES[one].device == "gpu"} <= named
