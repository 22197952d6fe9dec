"""A model at work in a worker."""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import structlog

from pipeline import engine_cache, engines
from pipeline.backends import registry
from pipeline.config import Config
from pipeline.engines import Manifest, load_manifest
from pipeline.errors import ModelError
from pipeline.flow.batch import Batcher, BatchRules
from pipeline.flow.classify import Classifier, Scores, Turn
from pipeline.flow.frames import FramePool
from pipeline.service.order import Model
from pipeline.service.orders import WorkerPlan

PACE = 0.2
"""Weight of the latest batch in the pace that is reckoned with."""


class Engine:
    """One model in a worker: its pool, its batcher, its classifier. ``turn`` is what a thread enters that
    scores on one core."""

    def __init__(self, name: str, plan: WorkerPlan, turn: Turn = nullcontext) -> None:
        self.name = name
        self._plan = plan
        self._turn = turn
        self._in_use = threading.Lock()  # by the one who scores, or who puts another classifier in place
        self._classifier, self._made_of = self._opened()
        self.pool: FramePool = registry.open_pool(
            self._classifier.spec, plan.slots, live_reserve=plan.live_slots, device=plan.device
        )
        self.batcher = Batcher(self._rules(self._classifier))
        self.picture_s = self._measured() if plan.device == "cpu" else 0.0
        self._pace_s = 0.0  # what a picture of a batch took lately, by the clock
        self.follow(plan.config)

    @property
    def model(self) -> Model:
        """What scores now."""
        return Model(self._classifier.info, self._classifier.categories)

    def infer(self, pixels: Any) -> tuple[Scores, Model]:
        """Score a batch, as the pool gathers it; and what scored it.

        :raises BackendError: the engine failed."""
        with self._in_use:
            began = time.monotonic()
            scores, model = self._classifier.infer(pixels), self.model
            took_s = (time.monotonic() - began) / len(scores)
        self._pace_s += PACE * (took_s - self._pace_s)
        return scores, model

    @property
    def wait_s(self) -> float:
        """Seconds until a picture that is stored now is scored, at the present pace; infinite when there is
        no slot for it."""
        free = self.pool.free
        return (self.pool.slots - free) * self._pace_s if free else math.inf

    def follow(self, config: Config) -> None:
        """Take care at the thresholds of this config."""
        self._classifier.thresholds = thresholds(config, self.name, self._classifier.categories)

    def newer(self) -> Classifier | None:
        """The model opened again, if its manifest or weights have changed, or another engine was built for
        it; the one that there is goes on scoring meanwhile.

        :raises ModelError: it cannot be used, or not without a restart."""
        if _made_of(load_manifest(self.name)) == self._made_of:
            return None
        opened, self._made_of = self._opened()
        if (opened.spec, opened.categories) == (self._classifier.spec, self._classifier.categories):
            opened.thresholds = self._classifier.thresholds
            return opened
        opened.close()
        raise ModelError(
            f"model {self.name}: it has changed what pictures it wants or which categories it has, "
            "and takes a restart"
        )

    def swap(self, opened: Classifier) -> None:
        """From the next batch on this one scores."""
        with self._in_use:
            old, self._classifier = self._classifier, opened
            self.batcher.rules = self._rules(opened)
        old.close()
        structlog.get_logger().info("engine.swapped", model=self.name, engine=opened.info.engine)

    def _opened(self) -> tuple[Classifier, object]:
        """The model as it is now, and what it was made of."""
        plan, manifest = self._plan, load_manifest(self.name)
        made_of = _made_of(manifest)  # before it is opened: what changes meanwhile is seen the next time
        classifier = registry.open_classifier(
            manifest,
            engine=plan.config.engine,
            device=plan.device,
            threads=plan.cores,
            max_batch=plan.config.batch.max_size,
        )
        classifier.turn = self._turn
        return classifier, made_of

    def _rules(self, classifier: Classifier) -> BatchRules:
        """How this classifier's batches are made: no picture waits for more company than it gains from."""
        rules = self._plan.config.batch
        max_wait_s = rules.max_wait_ms / 1e3
        if classifier.side_by_side:
            return BatchRules(rules.max_size, max_wait_s, file_wait_s=0.0, stale_s=rules.stale_s, enough=2)
        return BatchRules(rules.max_size, max_wait_s, stale_s=rules.stale_s)

    def _measured(self) -> float:
        """CPU seconds that a picture takes on this engine, measured on a grey one; the worker is idle as
        yet."""
        spec = self._classifier.spec
        self._classifier.thresholds = ()  # a picture near one costs more, but few are
        pixels = np.zeros((1, *spec.slot_shape()), np.float32)
        self._classifier.infer(pixels)
        began = time.process_time()
        self._classifier.infer(pixels)
        return time.process_time() - began

    def close(self) -> None:
        """Free pool and classifier, once a batch that is being scored is. Nothing may be scored after; to
        close again does nothing."""
        self.pool.close()
        with self._in_use:
            self._classifier.close()


def _made_of(manifest: Manifest) -> tuple[object, ...]:
    """What decides which engine is opened for a model. :raises ModelError: its weights are not there."""
    return manifest, engines.sha256_of(engines.weights(manifest)), engine_cache.built(manifest.name)


def thresholds(config: Config, model: str, categories: Sequence[str]) -> tuple[float, ...]:
    """Every score at which something is decided for some stream that this model screens, ascending."""
    found: set[float] = set()
    for stream in config.streams:
        for category in categories if model in config.models_of(stream) else ():
            rules = config.segment_rules(stream, category)
            found |= {rules.watch, rules.close, rules.open}
            if rules.min_hits > 1:  # else a sample at ``open`` opens by itself
                found.add(rules.instant)
    return tuple(sorted(found))
