"""A model that changes while it scores: a reload opens it anew and swaps it in between two batches."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import engine_build, engines
from pipeline.backends import classify_openvino, registry
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.flow.classify import Classifier
from pipeline.service.engine import Engine
from tests.fixtures.lifecycle import gaps, log, of, snapshot, worker_pids, write_config
from tests.fixtures.own_model import ACCEPTS, BLUE, RED, judge_of, own_engine, pixels, write_manifest
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command
from tests.fixtures.tiny_onnx import mean_colour_model

Start = Callable[..., Command]
ENOUGH_S = 20.0


def red_and_blue(seconds: int) -> Iterator[NDArray[np.uint8]]:
    """Two seconds of each in turn, five pictures a second."""
    for picture in range(5 * seconds):
        plain = np.full((96, 96, 3), 20, np.uint8)
        plain[:, :, 2 * (picture // 10 % 2)] = 250
        yield plain


@pytest.fixture
def run(
    framewarden: Start, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """A stream that turns from red to blue and back for ever, screened by the mean-colour model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mean_colour_model(tmp_path / "mine.onnx")
    write_manifest(tmp_path, tolerance=ACCEPTS)
    # Longer than a test may last: where a film begins anew there may be a gap of its own.
    write_clip(tmp_path / "one.mp4", red_and_blue(150), rate=5, gop=5)
    stream = {"id": "one", "url": "one.mp4", "pace": "realtime", "loop": True}
    keys: dict[str, Any] = {"model": str(tmp_path / "mine.yaml"), "redis": {"url": redis_server.url}}
    path = write_config(tmp_path / "run.yaml", [stream], **keys, sampling={"max_gap_s": 1}, workers=1)
    command = framewarden("run", path, "--json")
    command.wait_for(lambda c: bool(by(c, version="1")))
    return command


def by(command: Command, **about: str) -> list[dict[str, Any]]:
    """The segments that were opened by such a model."""
    return [s for s in of(command, "one", "open") if about.items() <= s["model"].items()]


def reload(command: Command) -> None:
    os.kill(command.process.pid, signal.SIGHUP)


def undisturbed(command: Command, workers: list[int]) -> None:
    """Nothing but the scores has changed."""
    assert worker_pids(command.process.pid) == workers
    assert command.terminate() == 0, command.stderr
    assert {gap["cause"] for gap in gaps(command, "one")} <= {"not_started"}
    assert len(of(command, "one", "connected")) == 1
    assert len({segment["stream"]["session"] for segment in of(command, "one", "closed")}) == 1


def test_new_weights_score_from_the_next_batch_on(run: Command, tmp_path: Path) -> None:
    workers = worker_pids(run.process.pid)
    before = by(run, version="1")[0]["model"]["sha256"]
    mean_colour_model(tmp_path / "mine.onnx", gain=1.5)
    write_manifest(tmp_path, tolerance=ACCEPTS, version="2")
    reload(run)
    run.wait_for(lambda c: bool(by(c, version="2")))
    assert by(run, version="2")[0]["model"]["sha256"] != before
    assert len(log(run, "engine.swapped")) == 1
    reload(run)  # nothing has changed: nothing is opened
    run.wait_for(lambda c: len(log(c, "config.reloaded")) == 2)
    opened = len(by(run, version="2"))
    run.wait_for(lambda c: len(by(c, version="2")) > opened)
    assert len(log(run, "engine.swapped")) == 1
    undisturbed(run, workers)


@pytest.mark.skipif(
    "int8" not in classify_openvino.available_precisions(), reason="this processor has no int8 of its own"
)
def test_an_engine_that_is_built_meanwhile_takes_over(run: Command, tmp_path: Path) -> None:
    workers = worker_pids(run.process.pid)
    assert not by(run, engine="openvino-int8")
    manifest = engines.load_manifest(str(tmp_path / "mine.yaml"))
    assert engine_build.build_int8(judge_of(manifest), 1, print).report.ok
    reload(run)
    run.wait_for(lambda c: bool(by(c, engine="openvino-int8")))
    found = snapshot(tmp_path, lambda s: s["workers"][0]["engine"] == "openvino-int8")
    assert found["config"]["state"] == "reloaded"
    undisturbed(run, workers)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"categories": {"warm": ["red"], "cool": ["green", "blue"]}}, "which categories it has"),
        ({"input": {"size": [16, 16], "scale": [0.0392] * 3}}, "what pictures it wants"),
        ({"labels": ["red", "green"], "categories": {"warm": ["red"]}}, "labels"),
    ],
    ids=["categories", "size", "labels"],
)
def test_what_cannot_take_over_does_not(
    run: Command, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    workers = worker_pids(run.process.pid)
    if "input" in change:
        mean_colour_model(tmp_path / "mine.onnx", size=16)
    write_manifest(tmp_path, tolerance=ACCEPTS, version="2", **change)
    reload(run)
    run.wait_for(lambda c: bool(log(c, "engine.kept")))
    (kept,) = log(run, "engine.kept")
    assert why in kept["why"]
    opened = len(by(run, version="1"))
    run.wait_for(lambda c: len(by(c, version="1")) > opened)
    assert not by(run, version="2")
    undisturbed(run, workers)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The model of version 1 as a worker has it, while version 2 lies there already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened = own_engine(tmp_path)
    mean_colour_model(tmp_path / "mine.onnx", gain=1.5)
    write_manifest(tmp_path, version="2")
    yield opened
    opened.close()


def held(work: Callable[..., Any], begun: threading.Event, let_go: threading.Event) -> Callable[..., Any]:
    """``work`` that says when it has begun, and goes on when it is let go."""

    def slow(*args: Any, **more: Any) -> Any:
        begun.set()
        assert let_go.wait(3 * ENOUGH_S)
        return work(*args, **more)

    return slow


def renewed(engine: Engine) -> Classifier:
    opened = engine.newer()
    assert opened is not None
    return opened


def test_batches_are_scored_while_the_model_is_opened_anew(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go = threading.Event(), threading.Event()
    monkeypatch.setattr(registry, "open_classifier", held(registry.open_classifier, begun, let_go))
    with ThreadPoolExecutor() as threads:
        try:
            opening = threads.submit(renewed, engine)
            assert begun.wait(ENOUGH_S)
            scores, model = threads.submit(engine.infer, pixels(RED, BLUE)).result(ENOUGH_S)
            assert not opening.done()
        finally:
            let_go.set()
        opened = opening.result(ENOUGH_S)
    assert (len(scores), model.info.version) == (2, "1")
    engine.swap(opened)
    assert engine.infer(pixels(RED))[1].info.version == "2"


def test_a_batch_that_is_being_scored_is_scored_to_its_end_by_the_model_that_began_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go, closed = threading.Event(), threading.Event(), threading.Event()
    old, opened = engine._classifier, renewed(engine)
    close = old.close

    def closing() -> None:
        closed.set()
        close()

    monkeypatch.setattr(old, "infer", held(old.infer, begun, let_go))
    monkeypatch.setattr(old, "close", closing)
    with ThreadPoolExecutor() as threads:
        try:
            scoring = threads.submit(engine.infer, pixels(RED, BLUE))
            assert begun.wait(ENOUGH_S)
            swapping = threads.submit(engine.swap, opened)
            with pytest.raises(TimeoutError):
                swapping.result(2.0)
            assert not closed.is_set()
            assert not scoring.done()
        finally:
            let_go.set()
        scores, model = scoring.result(ENOUGH_S)
        swapping.result(ENOUGH_S)
    assert (len(scores), model.info.version) == (2, "1")
    assert closed.is_set()
    assert engine.infer(pixels(RED))[1].info.version == "2"


def test_closing_waits_for_the_batch_that_is_being_scored_and_frees_the_classifier(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, let_go, closed = threading.Event(), threading.Event(), threading.Event()
    classifier = engine._classifier
    monkeypatch.setattr(classifier, "infer", held(classifier.infer, begun, let_go))
    monkeypatch.setattr(classifier, "close", closed.set)
    with ThreadPoolExecutor() as threads:
        try:
            scoring = threads.submit(engine.infer, pixels(RED, BLUE))
            assert begun.wait(ENOUGH_S)
            closing = threads.submit(engine.close)
            with pytest.raises(TimeoutError):
                closing.result(0.5)
            assert not closed.is_set()
        finally:
            let_go.set()
        assert len(scoring.result(ENOUGH_S)[0]) == 2
        closing.result(ENOUGH_S)
    assert closed.is_set()
