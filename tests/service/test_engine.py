"""A model at work in a worker: how its batches are made, whatever scores them."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.service.engine import Engine
from pipeline.service.marks import board
from pipeline.service.orders import WorkerPlan
from tests.fixtures.own_model import write_manifest
from tests.fixtures.tiny_onnx import mean_colour_model

MAX_WAIT_MS = 70
OPENINGS = 5


def opened(folder: Path, engine: str) -> Engine:
    mean_colour_model(folder / "mine.onnx")
    model = str(write_manifest(folder))
    keys: dict[str, Any] = {"model": model, "engine": engine, "batch": {"max_wait_ms": MAX_WAIT_MS}}
    config = Config.model_validate({"streams": [{"id": "one", "url": "one.mp4"}], **keys})
    numbers: dict[str, Any] = {"number": 1, "cores": 2, "slots": 4, "live_slots": 2}
    places: dict[str, Any] = {"outbox": folder / "outbox", "board": board(1), "crash": folder / "crash"}
    plan = WorkerPlan(config=config, models=(model,), device="cpu", **numbers, **places)
    return Engine(model, plan, nullcontext)


@pytest.mark.parametrize(
    ("engine", "wait_s"), [("openvino-f32", 0.0), ("onnxruntime-f32", MAX_WAIT_MS / 1e3)]
)
def test_a_picture_waits_for_company_only_where_that_makes_it_cheaper(
    tmp_path: Path, engine: str, wait_s: float
) -> None:
    model = opened(tmp_path, engine)
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
