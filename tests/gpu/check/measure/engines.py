"""Engines on this GPU: built from the shipped models, verified, and timed batch by batch."""

import importlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import engines as models
from pipeline.backends import registry
from pipeline.backends.build_tensorrt import MODULES
from pipeline.errors import ModelError
from pipeline.flow.frames import InputSpec
from tests.gpu.check.measure import Failed, Row

PRECISIONS = ("fp16", "int8", "fp32")
BATCHES = (1, 2, 4, 8, 16)
CALLS, WARM = 200, 20
ROOT = Path(__file__).resolve().parents[4]


def engines() -> list[Row]:
    """Build every engine that this GPU takes, as a user would. Those within the manifest's tolerance stay in
    the cache, where ``device: gpu`` finds them."""
    rows: list[Row] = []
    without = []
    for model in models.shipped():
        accepted = 0
        for engine in (name for name, module in MODULES.items() if importlib.util.find_spec(module)):
            for precision in PRECISIONS:
                found, right = _build(model, engine, precision)
                rows += found
                accepted += right
        without += [] if accepted else [model]
    if without:
        raise Failed(f"no engine of {', '.join(without)} was built and found right", rows)
    return rows


def _build(model: str, engine: str, precision: str) -> tuple[list[Row], bool]:
    """What came of one build, and whether the engine may be used."""
    name = f"{model} {engine} {precision}"
    with TemporaryDirectory(prefix="framewarden-") as folder:
        command = [sys.executable, "-m", "pipeline", "engine", "build", model, "--engine", engine]
        command += ["--precision", precision, "--out", f"{folder}/model.plan", "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip().splitlines()
        return [(name, f"not built: {said[-1] if said else f'exit code {done.returncode}'}", "")], False
    return [
        (name, "right" if report["ok"] else "not within the tolerance, not used", ""),
        (f"{name}: same decision as ONNX Runtime f32", 100 * report["agreement"], "%"),
        (f"{name}: mean difference", report["mean"], ""),
        (f"{name}: worst difference", report["worst"], ""),
        (f"{name}: size", report["bytes"] / 1e6, "MB"),
        (f"{name}: built in", report["seconds"], "s"),
    ], bool(report["ok"])


def engine_time() -> list[Row]:
    """From the batch in GPU memory to the scores in host memory, by the host's clock."""
    from pipeline.backends.classify_tensorrt import open_classifier

    cupy = importlib.import_module("cupy")
    rows: list[Row] = []
    for model in models.shipped():
        manifest = models.load_manifest(model)
        for precision in (name.replace("fp", "f") for name in PRECISIONS):
            try:
                classifier = open_classifier(manifest, threads=1, max_batch=BATCHES[-1], precision=precision)
            except ModelError as error:
                rows.append((f"{model} {precision}", f"not run: {error}", ""))
                continue
            name = f"{model} {classifier.info.engine}"
            rows += timed(name, classifier.infer, cupy.asarray(noise(classifier.spec)))
            classifier.close()
    return rows


def onnxruntime_cuda() -> list[Row]:
    """The same on ONNX Runtime, in f32."""
    cupy = importlib.import_module("cupy")
    rows: list[Row] = []
    for model in models.shipped():
        manifest = models.load_manifest(model)
        classifier = registry.open_classifier(
            manifest, engine="onnxruntime-cuda", threads=1, max_batch=BATCHES[-1]
        )
        rows += timed(
            f"{model} {classifier.info.engine}", classifier.infer, cupy.asarray(noise(classifier.spec))
        )
        classifier.close()
    return rows


def timed(name: str, infer: Callable[[Any], Any], pixels: Any) -> list[Row]:
    """Each batch size: median and 99th percentile of a call, and pictures a second."""
    rows: list[Row] = []
    for batch in BATCHES:
        part, taken = pixels[:batch], []
        for number in range(WARM + CALLS):
            began = time.perf_counter()
            infer(part)
            if number >= WARM:
                taken.append(time.perf_counter() - began)
        middle, slow = np.percentile(taken, [50, 99])
        rows += [
            (f"{name}, batch {batch}: p50", 1e3 * float(middle), "ms"),
            (f"{name}, batch {batch}: p99", 1e3 * float(slow), "ms"),
            (f"{name}, batch {batch}", batch * CALLS / sum(taken), "pictures/s"),
        ]
    return rows


def noise(spec: InputSpec) -> NDArray[Any]:
    """A full batch as the pool would hold it."""
    values = np.random.default_rng(1).uniform(0, 255, (BATCHES[-1], spec.height, spec.width, 3))
    scaled = (values - np.asarray(spec.mean)) * np.asarray(spec.scale)
    ordered = scaled.transpose(0, 3, 1, 2) if spec.layout == "nchw" else scaled
    return np.ascontiguousarray(ordered, np.float16 if spec.half else np.float32)
