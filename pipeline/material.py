"""Pictures to quantize and to judge engines with: made from the samples' cards and photographs, by seeds.

A recipe says how one picture is made: a pan over one picture, blended with a window of another, mirrored,
brighter or darker, with noise. The same recipe gives the same picture on every machine. ``choose`` searches
for recipes whose scores crowd around the thresholds, because that is where an engine that is a little off
decides otherwise. Calibration and verification draw from different seeds and never share a recipe."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.flow.frames import InputSpec
from pipeline.flow.resize import weights
from pipeline.flow.segment_rules import SegmentRules

Rgb = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""
Pixels = NDArray[np.float32]
Score = Callable[[Pixels], NDArray[np.float32]]

VERSION = "1"
"""Raised whenever a recipe would give another picture."""
SIDE = 256
LONGEST = 384
CALIBRATION_SEED, VERIFICATION_SEED = 20_260_101, 20_260_102
OPEN, CLOSE = SegmentRules().open, SegmentRules().close
NEAR = 0.1
"""A score this close to ``open`` or ``close`` is near."""
LADDER = (0.25, 0.5, 0.75, 1.0)
PATIENCE = 40
"""Pairs in a row that may give nothing near a threshold before the search gives up."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One picture: ``share`` of picture ``over`` on top of ``under``, whose window is ``zoom`` of its sides
    wide and high and lies at ``left`` and ``top`` of what is left of it (0..1)."""

    over: int
    under: int
    share: float
    zoom: float
    left: float
    top: float
    mirror: bool
    gain: float
    offset: float
    noise: float
    seed: int

    def with_share(self, share: float) -> "Recipe":
        """The same with another ``share``."""
        values = list(astuple(self))
        values[2] = float(share)
        return Recipe(*values)


class Material:
    """Pictures, made smaller once. Recipes are painted ``side`` pixels wide and high."""

    def __init__(self, pictures: Sequence[Rgb], side: int = SIDE) -> None:
        """:raises ModelError: fewer than two pictures."""
        if len(pictures) < 2:
            raise ModelError(
                f"{len(pictures)} pictures to calibrate and verify with: two at least are needed; "
                "name a folder of them with --pictures"
            )
        self.side = side
        self.pictures = [_smaller(picture) for picture in pictures]
        self._whole = [_resized(picture, side, side) for picture in self.pictures]

    def paint(self, recipe: Recipe) -> NDArray[np.float32]:
        """The picture, (side, side, 3), RGB, whole numbers of 0..255."""
        over = self._whole[recipe.over]
        under = _window(self.pictures[recipe.under], recipe, self.side)
        mixed = np.float32(recipe.share) * over + np.float32(1 - recipe.share) * under
        mixed = np.float32(recipe.gain) * mixed + np.float32(recipe.offset)
        if recipe.noise:
            rng = np.random.default_rng(recipe.seed)
            mixed = mixed + rng.normal(0, recipe.noise, mixed.shape).astype(np.float32)
        return np.asarray(np.rint(mixed).clip(0, 255), np.float32)

    def batch(self, recipes: Sequence[Recipe], spec: InputSpec) -> Pixels:
        """The pictures in a model's form, (recipes, *slot)."""
        return np.stack([formed(self.paint(recipe), spec) for recipe in recipes])

    def batches(self, recipes: Sequence[Recipe], spec: InputSpec, size: int) -> Iterator[Pixels]:
        """All of them, ``size`` at a time."""
        for at in range(0, len(recipes), size):
            yield self.batch(recipes[at : at + size], spec)


def formed(picture: NDArray[np.float32], spec: InputSpec) -> Pixels:
    """A picture of 0..255 as the pool would store it for a model, in float32."""
    height, width = spec.resized()
    top, left = spec.corner()
    small = _resized(picture, height, width)[top : top + spec.height, left : left + spec.width]
    small = small if spec.channels == "rgb" else small[..., ::-1]
    scaled = (small - np.asarray(spec.mean, np.float32)) * np.asarray(spec.scale, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1) if spec.layout == "nchw" else scaled, np.float32)


def calibration(pictures: int, count: int) -> list[Recipe]:
    """Recipes to calibrate with: each of ``pictures`` by itself, then blends of every share."""
    rng = np.random.default_rng(CALIBRATION_SEED)
    alone = [_draw(rng, over, over).with_share(0.0) for over in range(pictures)]
    while len(alone) < count:
        over, under = (int(one) for one in rng.integers(0, pictures, 2))
        alone.append(_draw(rng, over, under))
    return alone[:count]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pictures to verify with and their reference scores (recipes, categories)."""

    recipes: list[Recipe]
    scores: NDArray[np.float32]


def choose(material: Material, spec: InputSpec, score: Score, count: int, share_near: float = 0.25) -> Chosen:
    """``count`` recipes of which at least ``share_near`` score near ``OPEN`` or ``CLOSE`` in some category.

    ``score`` is the reference. Pictures that reach ``CLOSE`` by themselves are blended over those that do
    not, first with fixed shares, then with the share that should meet a threshold.

    :raises ModelError: the pictures do not reach the thresholds of this model."""
    high, low = _sides(material, spec, score)
    rng = np.random.default_rng(VERIFICATION_SEED)
    far_left = count - round(count * share_near)
    recipes: list[Recipe] = []
    scores: list[NDArray[np.float32]] = []
    idle = 0
    while len(recipes) < count:
        base = _draw(rng, int(rng.choice(high)), int(rng.choice(low)))
        found, values = _ladder(material, spec, score, base, rng)
        close = near(values)
        idle = 0 if close.any() else idle + 1
        if idle > PATIENCE:
            raise ModelError(
                f"no blend of {idle * len(LADDER)} in a row scores within {NEAR} of {OPEN} or {CLOSE}: "
                "these pictures say nothing of this model's decisions; name others with --pictures"
            )
        for recipe, value, is_near in zip(found, values, close, strict=True):
            if len(recipes) < count and (is_near or far_left > 0):
                recipes.append(recipe)
                scores.append(value)
                far_left -= not is_near
    return Chosen(recipes, np.stack(scores))


def near(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows have a score within ``NEAR`` of a threshold."""
    apart = np.minimum(np.abs(scores - OPEN), np.abs(scores - CLOSE))
    return np.asarray((apart <= NEAR).any(axis=1))


def _sides(material: Material, spec: InputSpec, score: Score) -> tuple[list[int], list[int]]:
    count = len(material.pictures)
    plain = [Recipe(one, one, 1.0, 1.0, 0.0, 0.0, False, 1.0, 0.0, 0.0, 0) for one in range(count)]
    best = np.concatenate([score(pixels).max(axis=1) for pixels in material.batches(plain, spec, 8)])
    high = [one for one in range(count) if best[one] >= OPEN] or [
        one for one in range(count) if best[one] >= CLOSE
    ]
    low = [one for one in range(count) if best[one] < CLOSE]
    if not high or not low:
        lacks = f"reaches {CLOSE}" if not high else f"stays below {CLOSE}"
        raise ModelError(
            f"none of the {count} pictures to verify with {lacks} on this model (scores {best.min():.2f} to "
            f"{best.max():.2f}); name a folder that holds some of both kinds with --pictures"
        )
    return high, low


def _ladder(
    material: Material, spec: InputSpec, score: Score, base: Recipe, rng: np.random.Generator
) -> tuple[list[Recipe], NDArray[np.float32]]:
    """A pair at the fixed shares, and at two more that should come close to a threshold."""
    found = [base.with_share(share) for share in LADDER]
    values = score(material.batch(found, spec))
    best = values.max(axis=1)
    for threshold in (OPEN, CLOSE):
        aim = threshold + rng.uniform(-NEAR, NEAR)
        step = next((at for at in range(len(best) - 1) if best[at] < aim <= best[at + 1]), None)
        if step is None:
            continue
        part = (aim - best[step]) / (best[step + 1] - best[step])
        recipe = base.with_share(LADDER[step] + part * (LADDER[step + 1] - LADDER[step]))
        found.append(recipe)
        values = np.concatenate([values, score(material.batch([recipe], spec))])
    return found, values


def _draw(rng: np.random.Generator, over: int, under: int) -> Recipe:
    return Recipe(
        over=over,
        under=under,
        share=float(rng.uniform(0, 1)),
        zoom=float(rng.uniform(0.4, 1.0)),
        left=float(rng.uniform()),
        top=float(rng.uniform()),
        mirror=bool(rng.integers(0, 2)),
        gain=float(rng.uniform(0.85, 1.1)),
        offset=float(rng.uniform(-12, 12)),
        noise=float(rng.choice([0.0, 0.0, 2.0, 5.0])),
        seed=int(rng.integers(0, 2**31)),
    )


def _window(picture: NDArray[np.float32], recipe: Recipe, side: int) -> NDArray[np.float32]:
    height, width = (max(8, round(recipe.zoom * side)) for side in picture.shape[:2])
    top = round(recipe.top * (picture.shape[0] - height))
    left = round(recipe.left * (picture.shape[1] - width))
    cut = picture[top : top + height, left : left + width]
    return _resized(cut[:, ::-1] if recipe.mirror else cut, side, side)


def _smaller(picture: Rgb) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    ratio = min(1.0, LONGEST / max(height, width))
    return _resized(picture.astype(np.float32), max(8, round(height * ratio)), max(8, round(width * ratio)))


def _resized(picture: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """By the tent of ``flow/resize.py``."""
    if picture.shape[:2] == (height, width):
        return picture
    rows = _table(picture.shape[0], height) @ picture.reshape(picture.shape[0], -1)
    across = rows.reshape(height, picture.shape[1], 3).transpose(1, 0, 2).reshape(picture.shape[1], -1)
    both = _table(picture.shape[1], width) @ across
    return np.ascontiguousarray(both.reshape(width, height, 3).transpose(1, 0, 2))


@lru_cache(maxsize=512)
def _table(source: int, target: int) -> NDArray[np.float32]:
    return weights(source, target).astype(np.float32)
