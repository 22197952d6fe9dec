"""A model at work in a worker: how its batches are made, whatever scores them."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from pipeline.backends import registry
from pipeline.backends.openvino_lanes import Lanes
from pipeline.engines import Manifest, load_manifest
from pipeline.errors import BackendError
from pipeline.service.admission import Turns
from pipeline.service.marks import Marks, board
from tests.fixtures.own_model import own_engine, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

MAX_WAIT_MS = 70
OPENINGS = 5


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of a little model of one's own."""
    mean_colour_model(tmp_path / "mine.onnx")
    return load_manifest(str(write_manifest(tmp_path)))


@pytest.mark.parametrize(("engine", "enough"), [("openvino-f32", 2), ("onnxruntime-f32", None)])
def test_a_picture_waits_for_no_more_company_than_makes_it_cheaper(
    tmp_path: Path, engine: str, enough: int | None
) -> None:
    model = own_engine(tmp_path, cores=2, engine=engine, batch={"max_wait_ms": MAX_WAIT_MS})
    assert model.batcher.rules.enough == enough
    assert model.batcher.rules.max_wait_s == MAX_WAIT_MS / 1e3
    assert (model.batcher.rules.file_wait_s > 0) == (enough is None)
    model.close()


def test_an_engine_is_opened_however_its_threads_take_turns(tmp_path: Path) -> None:
    """Python changes threads after each of its steps here, in a process of its own: what an engine's binding
    sets up in its first call has to be there before two threads call it."""
    mean_colour_model(tmp_path / "mine.onnx")
    program = f"""
import sys
sys.setswitchinterval(1e-6)
from pipeline import engines
from pipeline.backends import registry
from pipeline.backends.openvino_lanes import Lanes
manifest = engines.load_manifest({str(write_manifest(tmp_path))!r})
registry.open_classifier(manifest, engine="openvino-f32", threads=2, max_batch=16).close()
"""
    command = [sys.executable, "-c", program]
    for _ in range(OPENINGS):
        subprocess.run(command, check=True, timeout=60, env=dict(os.environ), capture_output=True)


def test_a_request_that_fails_raises_and_gives_its_turn_back(manifest: Manifest) -> None:
    """A graph whose last step fails unless the greatest of the pixels is the number of pictures."""
    pixels = ops.parameter([-1, *manifest.spec.slot_shape()], np.float32)
    axes = ops.constant([0, 1, 2, 3], np.int64)
    rows = ops.unsqueeze(ops.convert(ops.reduce_max(pixels, axes), "i64"), ops.constant([0], np.int64))
    shape = ops.concat([rows, ops.constant([3], np.int64)], 0)
    means = ops.reduce_mean(pixels, ops.constant([2, 3], np.int64))
    lanes = Lanes(
        ov.Model([ops.reshape(means, shape, False)], [pixels]), manifest, None, 2, ov.Type.f32, pairs=False
    )
    turns = Turns(1, Marks(board(1)))
    good = np.ones((1, *manifest.spec.slot_shape()), np.float32)
    assert lanes.infer(good, turns.scoring).shape == (1, 3)
    with pytest.raises(RuntimeError):
        lanes.infer(5.0 * good, turns.scoring)
    with turns.alone(1, until_s=time.monotonic() + 5):
        pass
    assert lanes.infer(good, turns.scoring).shape == (1, 3)
    lanes.close()
    with pytest.raises(RuntimeError, match="closed"):
        lanes.infer(good, turns.scoring)


def test_a_graph_with_a_batch_of_one_written_into_it_is_scored_picture_by_picture(manifest: Manifest) -> None:
    pixels = ops.parameter([-1, *manifest.spec.slot_shape()], np.float32)
    means = ops.reduce_mean(pixels, ops.constant([2, 3], np.int64))
    graph = ov.Model([ops.reshape(means, ops.constant([1, 3], np.int64), False)], [pixels])
    lanes = Lanes(graph, manifest, None, 2, ov.Type.f32, pairs=True)
    pictures = np.arange(5)[:, None, None, None] * np.ones(manifest.spec.slot_shape())
    assert lanes.infer(pictures.astype(np.float32), nullcontext).tolist() == [[n] * 3 for n in range(5)]
    lanes.close()


def test_a_turn_in_which_nothing_could_be_scored_is_given_back(manifest: Manifest) -> None:
    classifier = registry.open_classifier(manifest, engine="openvino-f32", threads=1, max_batch=4)
    turns = Turns(1, Marks(board(1)))
    classifier.turn = turns.scoring
    with pytest.raises(BackendError):
        classifier.infer(np.zeros((1, 3, 5, 5), np.float32))  # not the model's size
    with turns.alone(1, until_s=time.monotonic() + 5):
        pass
    classifier.infer(np.zeros((2, *classifier.spec.slot_shape()), np.float32))
    classifier.close()
