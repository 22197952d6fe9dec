"""This machine: what its engine costs a picture, and what a worker weighs.

    python -m pipeline.capacity.here THREADS MODEL…

measures engines in a process of its own, so that its memory is that of a worker; prints JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.backends import registry
from pipeline.bench import child, parts
from pipeline.engines import load_manifest

BATCHES = (1, 8)
"""Batches of a worker with few and with many streams; the dearer one counts."""
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Engines:
    """CPU ms a picture by model, the engine's name by model, and MB of a process that has them all loaded."""

    ms: dict[str, float]
    engine: dict[str, str]
    worker_mb: float


def measure(models: Sequence[str], threads: int) -> Engines:
    """Measure the models' engines on ``threads`` cores in a child process.

    :raises BenchError: a model cannot be used."""
    usage = child.run(child.python(__name__, str(threads), *models), timeout_s=TIMEOUT_S)
    found = json.loads(usage.out)
    return Engines(found["ms"], found["engine"], usage.peak_mb)


def _alone(threads: int, models: Sequence[str]) -> dict[str, dict[str, float] | dict[str, str]]:
    ms: dict[str, float] = {}
    names: dict[str, str] = {}
    for name in models:
        manifest = load_manifest(name)
        classifier = registry.open_classifier(manifest, threads=threads, max_batch=max(BATCHES))
        shape = manifest.spec.slot_shape()
        pixels = np.random.default_rng(1).uniform(-1, 1, (max(BATCHES), *shape)).astype(np.float32)
        ms[name] = max(parts.speed(classifier, pixels, batch).cpu_ms for batch in BATCHES)
        names[name] = classifier.info.engine
    return {"ms": ms, "engine": names}


if __name__ == "__main__":
    print(json.dumps(_alone(int(sys.argv[1]), sys.argv[2:])))  # noqa: T201
