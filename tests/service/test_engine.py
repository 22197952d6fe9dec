"""A model at work in a worker: how its batches are made, whatever scores them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.backends import registry
from pipeline.engines import load_manifest
from pipeline.errors import BackendError
from pipeline.service.admission import Turns
from pipeline.service.marks import Marks, board
from tests.fixtures.own_model import own_engine, write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

MAX_WAIT_MS = 70
OPENINGS = 5


@pytest.mark.parametrize(
    ("engine", "wait_s"), [("openvino-f32", 0.0), ("onnxruntime-f32", MAX_WAIT_MS / 1e3)]
)
def test_a_picture_waits_for_company_only_where_that_makes_it_cheaper(
    tmp_path: Path, engine: str, wait_s: float
) -> None:
    model = own_engine(tmp_path, cores=2, engine=engine, batch={"max_wait_ms": MAX_WAIT_MS})
    assert model.batcher.rules.max_wait_s == wait_s
    assert (model.batcher.rules.file_wait_s > 0) == (wait_s > 0)
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
manifest = engines.load_manifest({str(write_manifest(tmp_path))!r})
registry.open_classifier(manifest, engine="openvino-f32", threads=2, max_batch=16).close()
"""
    command = [sys.executable, "-c", program]
    for _ in range(OPENINGS):
        subprocess.run(command, check=True, timeout=60, env=dict(os.environ), capture_output=True)


def test_a_turn_in_which_nothing_could_be_scored_is_given_back(tmp_path: Path) -> None:
    mean_colour_model(tmp_path / "mine.onnx")
    manifest = load_manifest(str(write_manifest(tmp_path)))
    classifier = registry.open_classifier(manifest, engine="openvino-f32", threads=1, max_batch=4)
    turns = Turns(1, Marks(board(1)))
    classifier.turn = turns.scoring
    with pytest.raises(BackendError):
        classifier.infer(np.zeros((1, 3, 5, 5), np.float32))  # not the model's size
    with turns.alone(1, until_s=time.monotonic() + 5):
        pass
    classifier.infer(np.zeros((2, *classifier.spec.slot_shape()), np.float32))
    classifier.close()
