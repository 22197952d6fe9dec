"""What every classifier in host memory does around its engine: checks, batches, activation, categories."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from pipeline.engines import Manifest
from pipeline.errors import BackendError, ModelError
from pipeline.flow.classify import ModelInfo, Scores, Turn

Run = Callable[[NDArray[np.float32], Turn], NDArray[np.float32]]
"""Pixels of n pictures, n one of the engine's sizes, and the turn of each → its raw output (n, labels)."""

SLACK = 1e-3
"""A softmax in bf16 may leave 0..1 by this much; more means that the output is no probability."""


class Reading:
    """What a model's raw output means: labels to scores of categories."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._activate = _ACTIVATIONS[manifest.activation]
        self._columns = [
            manifest.labels.index(label) for labels in manifest.categories.values() for label in labels
        ]
        sizes = [len(labels) for labels in manifest.categories.values()]
        self._starts = [sum(sizes[:category]) for category in range(len(sizes))]

    def scores(self, raw: NDArray[np.float32], engine: str) -> Scores:
        """(n, labels) to (n, categories). :raises BackendError: it is not 0..1."""
        by_label = self._activate(raw)
        if (wrong := _not_scores(by_label)) is not None:
            raise BackendError(f"{self._manifest.name} on {engine} gave {wrong}, which is no score of 0..1")
        scores = np.maximum.reduceat(by_label[:, self._columns], self._starts, axis=1)
        return np.asarray(np.clip(scores, 0.0, 1.0), np.float32)

    def check(self, raw: NDArray[np.float32]) -> None:
        """:raises ModelError: the output for ``plain_pictures`` are not scores of these labels."""
        manifest, labels = self._manifest, self._manifest.labels
        if raw.shape != (4, len(labels)):
            raise ModelError(
                f"model {manifest.name}: gives shape {raw.shape} for 4 pictures, "
                f"not (4, {len(labels)}) as its {len(labels)} labels ({', '.join(labels)}) say"
            )
        if (wrong := _not_scores(self._activate(raw))) is not None:
            raise ModelError(
                f"model {manifest.name}: gives {wrong}, but a score is 0..1; if it gives logits, set "
                f"output.activation to softmax or sigmoid in its manifest (now {manifest.activation})"
            )


class HostClassifier:
    """An engine that reads host memory, behind the ``Classifier`` protocol.

    A batch is run in pieces of the engine's ``sizes``, greatest first, and never padded where they allow it:
    with sizes 1 and 4, 6 pictures are 4 + 1 + 1. Without sizes it is run whole, its pictures side by side.
    Not thread-safe: it belongs to the one inference thread."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        engine: str,
        sha256: str,
        run: Run,
        sizes: Sequence[int],
        max_batch: int,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """:raises ModelError: what the engine gives for four plain pictures are not scores."""
        self.info = ModelInfo(manifest.name, manifest.version, sha256, manifest.preprocess, engine)
        self.spec = manifest.spec
        self.categories = tuple(manifest.categories)
        self.max_batch = max_batch
        self.thresholds: tuple[float, ...] = ()
        self.side_by_side = not sizes
        self.turn: Turn = nullcontext
        self._run = run
        self._sizes = sorted(sizes, reverse=True)
        self._close = close
        self._reading = Reading(manifest)
        self._reading.check(self._raw(plain_pictures(manifest)))

    def infer(self, pixels: NDArray[np.float32]) -> Scores:
        """Scores (n, categories) of pixels (n, *slot), n from 1 to ``max_batch``.

        :raises BackendError: the engine failed, or gave something that is not 0..1."""
        if not 1 <= len(pixels) <= self.max_batch:
            raise ValueError(f"a batch of {len(pixels)} pictures; 1 to {self.max_batch} are allowed")
        return self._reading.scores(self._raw(pixels), self.info.engine)

    def close(self) -> None:
        """Free the engine. Nothing may be scored after; to close again does nothing."""
        self._close()

    def _raw(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._sizes:
            return self._run(np.ascontiguousarray(pixels), self.turn)
        parts, at = [], 0
        while at < len(pixels):
            left = len(pixels) - at
            size = next((size for size in self._sizes if size <= left), self._sizes[-1])
            parts.append(self._run(_padded(pixels[at : at + size], size), nullcontext)[:left])
            at += size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def check_input(manifest: Manifest, shape: Sequence[int | None], is_f32: bool) -> int | None:
    """The model's fixed batch size, or None when it takes any. ``shape`` has None where a size is open.

    :raises ModelError: the input is not what the manifest says."""
    wanted = manifest.spec.slot_shape()
    if not is_f32:
        raise ModelError(f"model {manifest.name}: its input is not float32; export it with a float32 input")
    fits = len(shape) == 4 and all(
        found in (None, size) for found, size in zip(shape[1:], wanted, strict=True)
    )
    if not fits:
        raise ModelError(
            f"model {manifest.name}: its input is {_shape_text(shape)}, the manifest says "
            f"{_shape_text([None, *wanted])} (layout {manifest.spec.layout}); "
            "correct input.size or input.layout"
        )
    return shape[0]


def check_output(manifest: Manifest, shape: Sequence[int | None]) -> None:
    """:raises ModelError: the output has not one column for each label."""
    labels = len(manifest.labels)
    if len(shape) != 2 or shape[1] not in (None, labels):
        raise ModelError(
            f"model {manifest.name}: its output is {_shape_text(shape)}, but the manifest names {labels} "
            f"labels ({', '.join(manifest.labels)}): {_shape_text([None, labels])} is needed; "
            "correct labels or output.name"
        )


def pick(manifest: Manifest, what: str, names: Sequence[str], wanted: str | None) -> int:
    """Index of the model's input or output (``what``) of the wanted name, or of the only one when it is None.

    :raises ModelError: there is none of that name, or several and none named."""
    if wanted is None and len(names) == 1:
        return 0
    if wanted in names:
        return names.index(wanted)
    problem = f"{what}.name is missing" if wanted is None else f"{what}.name: {wanted!r}: there is none"
    raise ModelError(f"model {manifest.name}: {problem}; the model has {', '.join(map(repr, names))}")


def _shape_text(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _padded(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    if len(pixels) == size:
        return np.ascontiguousarray(pixels)
    filler = np.zeros((size - len(pixels), *pixels.shape[1:]), np.float32)
    return np.concatenate([pixels, filler])


def plain_pictures(manifest: Manifest) -> NDArray[np.float32]:
    """Black, grey, white and noise, as the pool would store them."""
    spec = manifest.spec
    plain = np.empty((4, spec.height, spec.width, 3), np.float32)
    plain[:3] = np.array([0, 128, 255], np.float32)[:, None, None, None]
    plain[3] = np.random.default_rng(0).uniform(0, 255, plain.shape[1:])
    plain = (plain - np.array(spec.mean, np.float32)) * np.array(spec.scale, np.float32)
    return np.ascontiguousarray(plain.transpose(0, 3, 1, 2) if spec.layout == "nchw" else plain)


def _not_scores(values: NDArray[np.float32]) -> str | None:
    """The worst value when some are not 0..1, as text."""
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        return "a value that is not finite"
    if low < -SLACK:
        return f"{low:.4g}"
    return f"{high:.4g}" if high > 1 + SLACK else None


def _softmax(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    power = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(power / power.sum(axis=1, keepdims=True), np.float32)


def _sigmoid(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * raw)), np.float32)


_ACTIVATIONS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "none": lambda raw: raw,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
}
