"""A model at work in a worker."""

import time
from collections.abc import Sequence

import numpy as np

from pipeline.backends import registry
from pipeline.config import Config
from pipeline.engines import load_manifest
from pipeline.flow.batch import Batcher, BatchRules
from pipeline.flow.classify import Classifier
from pipeline.flow.frames import FramePool
from pipeline.service.order import Model
from pipeline.service.orders import WorkerPlan


class Engine:
    """One model in a worker: its pool, its batcher, its classifier."""

    def __init__(self, name: str, plan: WorkerPlan) -> None:
        manifest = load_manifest(name)
        rules = plan.config.batch
        self.classifier: Classifier = registry.open_classifier(
            manifest,
            engine=plan.config.engine,
            device=plan.device,
            threads=plan.cores,
            max_batch=rules.max_size,
        )
        self.name = name
        self.pool: FramePool = registry.open_pool(
            self.classifier.spec, plan.slots, live_reserve=plan.live_slots, device=plan.device
        )
        self.batcher = Batcher(
            BatchRules(max_size=rules.max_size, max_wait_s=rules.max_wait_ms / 1e3, stale_s=rules.stale_s)
        )
        self.picture_s = self._measured() if plan.device == "cpu" else 0.0
        self.model = Model(self.classifier.info, self.classifier.categories)
        self.follow(plan.config)

    def follow(self, config: Config) -> None:
        """Take care at the thresholds of this config."""
        self.classifier.thresholds = thresholds(config, self.name, self.classifier.categories)

    def _measured(self) -> float:
        """CPU seconds that a picture takes on this engine, measured on a grey one; the worker is idle as
        yet."""
        spec = self.classifier.spec
        self.classifier.thresholds = ()  # a picture near one costs more, but few are
        pixels = np.zeros((1, *spec.slot_shape()), np.float32)
        self.classifier.infer(pixels)
        began = time.process_time()
        self.classifier.infer(pixels)
        return time.process_time() - began

    def close(self) -> None:
        self.pool.close()


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
