"""What every classifier promises, on every engine and for every shipped model."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import engines
from pipeline.backends import classify_tensorrt, registry
from pipeline.engines import Manifest
from pipeline.flow.classify import Classifier, Scores
from pipeline.flow.resize import Colour, convert
from tests.fixtures.pictures import cards
from tests.gpu.engines import on_gpu

Pixels = NDArray[np.float32]
MAX_BATCH = 16
THREADS = 2
ROW_TOLERANCE = {"f32": 1e-5, "bf16": 2e-3, "f16": 2e-3, "int8": 2e-2}
"""How far a row may move with its batch mates: the order of additions differs between batch sizes. In int8 a
sum that lies between two steps may fall to either."""


@pytest.fixture(scope="module", params=["image-safety-s", "open-nsfw"])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return engines.load_manifest(request.param)


@pytest.fixture(
    scope="module",
    params=[
        *("onnxruntime", "openvino-f32", "openvino-bf16", "openvino"),
        *(pytest.param(f"gpu {one}", marks=pytest.mark.needs_gpu) for one in on_gpu()),
    ],
)
def classifier(request: pytest.FixtureRequest, manifest: Manifest) -> Iterator[Classifier]:
    *gpu, engine = request.param.split()
    opened = registry.open_classifier(
        manifest,
        engine=engine,
        device="gpu" if gpu else "cpu",
        threads=THREADS,
        max_batch=MAX_BATCH,
    )
    yield opened
    opened.close()
    opened.close()  # does nothing


@pytest.fixture(scope="module")
def reference(manifest: Manifest) -> Classifier:
    return registry.open_classifier(manifest, engine="onnxruntime", threads=2, max_batch=MAX_BATCH)


@pytest.fixture(scope="module")
def frames(manifest: Manifest) -> Pixels:
    """13 pictures of the model's form with scores from low to high: cards, black, white, noise."""
    noise = np.random.default_rng(5).integers(0, 256, (256, 256, 3), np.uint8)
    plain = [np.full_like(noise, 0), np.full_like(noise, 255), noise]
    pictures = [*list(cards(f"{manifest.name}-middle-*.png").values())[:10], *plain]
    colour = Colour("rgb", full=True)
    return np.stack(
        [convert(list(np.moveaxis(picture, -1, 0)), manifest.spec, colour) for picture in pictures],
        dtype=np.float32,
        casting="same_kind",
    )


@pytest.fixture(scope="module")
def scores(classifier: Classifier, frames: Pixels) -> Scores:
    """The scores of the frames, all at once."""
    return classifier.infer(frames)


@pytest.fixture(scope="module")
def alone(classifier: Classifier, frames: Pixels) -> Scores:
    """The scores of the frames, each by itself."""
    return np.concatenate([classifier.infer(frames[at : at + 1]) for at in range(13)])


def row_tolerance(classifier: Classifier) -> float:
    return ROW_TOLERANCE[classifier.info.engine.rpartition("-")[2].partition("+")[0]]


def test_every_precision_that_an_engine_may_have_is_known_here() -> None:
    from pipeline.backends import classify_openvino  # a GPU server may be without it

    for name in (*classify_tensorrt.PRECISIONS, *classify_openvino.PRECISIONS):
        assert name.partition("+")[0] in ROW_TOLERANCE


def test_scores_are_one_row_a_frame_of_one_float32_a_category(classifier: Classifier, scores: Scores) -> None:
    assert scores.shape == (13, len(classifier.categories))
    assert scores.dtype == np.float32
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0


def test_the_pictures_of_this_test_reach_from_low_to_high(scores: Scores) -> None:
    best = scores.max(axis=1)
    assert best.min() < 0.2
    assert best.max() > 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 13])
def test_a_score_does_not_depend_on_how_many_are_scored_with_it(
    classifier: Classifier, frames: Pixels, alone: Scores, count: int
) -> None:
    np.testing.assert_allclose(
        classifier.infer(frames[:count]), alone[:count], atol=row_tolerance(classifier)
    )


def test_a_score_does_not_depend_on_its_place_nor_on_its_mates(
    classifier: Classifier, frames: Pixels, scores: Scores
) -> None:
    order = np.random.default_rng(1).permutation(13)
    shuffled = classifier.infer(np.ascontiguousarray(frames[order]))
    np.testing.assert_allclose(shuffled, scores[order], atol=row_tolerance(classifier))


def test_the_same_batch_gives_the_same_scores(classifier: Classifier, frames: Pixels, scores: Scores) -> None:
    assert np.array_equal(classifier.infer(frames), scores)


def test_scores_stay_as_they_are_when_the_pixels_and_the_engine_are_used_again(
    classifier: Classifier, frames: Pixels
) -> None:
    slots = frames[:4].copy()
    given = classifier.infer(slots)
    kept = given.copy()
    slots[:] = 0
    classifier.infer(slots)
    assert np.array_equal(given, kept)


def test_the_pixels_are_only_read(classifier: Classifier, frames: Pixels) -> None:
    slots = frames[:5].copy()
    classifier.infer(slots)
    assert np.array_equal(slots, frames[:5])


def test_slots_that_lie_apart_can_be_scored(classifier: Classifier, frames: Pixels, scores: Scores) -> None:
    np.testing.assert_allclose(classifier.infer(frames[::2]), scores[::2], atol=row_tolerance(classifier))


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
def test_an_empty_batch_and_one_that_is_too_big_are_refused(classifier: Classifier, count: int) -> None:
    pixels = np.zeros((count, *classifier.spec.slot_shape()), np.float32)
    with pytest.raises(ValueError, match=f"a batch of {count} pictures; 1 to {MAX_BATCH} are allowed"):
        classifier.infer(pixels)


def test_every_engine_agrees_with_onnx_runtime_within_the_manifests_tolerance(
    classifier: Classifier,
    reference: Classifier,
    manifest: Manifest,
    frames: Pixels,
    record_property: Callable[[str, object], None],
) -> None:
    report = engines.verify(manifest, classifier, reference, frames)
    record_property("report", repr(report))
    assert report.tolerance is not None
    assert report.worst <= report.tolerance, report
    assert report.mean <= 0.02, report  # which decisions are alike: docs/engines.md
    assert report.agreement == 1.0 or classifier.info.engine == "openvino-bf16"


def test_where_pictures_are_scored_side_by_side_each_has_a_turn_and_elsewhere_none(
    classifier: Classifier, frames: Pixels, scores: Scores
) -> None:
    begun, at_once, most, counted = 0, 0, 0, threading.Lock()

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal begun, at_once, most
        with counted:
            begun, at_once = begun + 1, at_once + 1
            most = max(most, at_once)
        yield
        with counted:
            at_once -= 1

    before, classifier.turn = classifier.turn, turn
    try:
        assert np.array_equal(classifier.infer(frames), scores)
    finally:
        classifier.turn = before
    if classifier.side_by_side:
        assert begun >= len(frames) / 2  # more where some are scored again
        if "+" not in classifier.info.engine:
            assert begun < len(frames)  # one for two pictures
        assert most == THREADS
        assert at_once == 0
    else:
        assert begun == 0


def test_the_model_is_described_as_events_need_it(classifier: Classifier, manifest: Manifest) -> None:
    info = classifier.info
    assert (info.name, info.version, info.sha256) == (manifest.name, manifest.version, manifest.sha256)
    assert info.preprocess == manifest.preprocess
    assert info.engine.partition("-")[0] in {"onnxruntime", "openvino", "tensorrt"}
    assert classifier.categories == tuple(manifest.categories)
