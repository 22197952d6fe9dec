"""Makes the sample clips: pans over photographs, with cards that the models flag between known times.

    python -m samples.make_clips [--folder samples/clips]

The photographs are some of those that scikit-image ships, in the public domain, CC0 or without known
copyright restrictions; no shipped model gives them 0.3 anywhere on the camera's way. The cards are coloured
noise (``find_cards.py``). What is flagged, and when, goes to ``truth.json``. A clip that is there already and
is still what this script would make is left alone."""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.backends.encode_ffmpeg import write_clip

HERE = Path(__file__).parent
RECIPE = 1  # a higher number makes every clip anew

Rgb = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A card fills the picture from ``start_s`` until just before ``end_s``."""

    start_s: float
    end_s: float
    card: str


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: pans over ``photos``, one after another, interrupted by ``flags``. ``gop_s`` is in seconds."""

    name: str
    seconds: float
    photos: tuple[str, ...]
    flags: tuple[Flag, ...] = ()
    width: int = 640
    height: int = 360
    rate: int = 25
    gop_s: float = 2.0


NSFW = tuple(f"open-nsfw-sexual-{number}.png" for number in range(1, 5))
GRAPHIC = tuple(f"image-safety-s-graphic-{number}.png" for number in range(1, 3))
SAFETY_SEXUAL = tuple(f"image-safety-s-sexual-{number}.png" for number in range(1, 3))

CLIPS = (
    Clip("market.mp4", 30, ("camera", "gravel", "chelsea"), (Flag(10.4, 17.2, NSFW[0]),)),
    Clip("lobby.mp4", 28, ("rocket", "hubble_deep_field", "astronaut"), width=1280, height=720, rate=20),
    Clip(
        "stage.mp4",
        28,
        ("chelsea", "rocket"),
        (Flag(6.3, 11.9, GRAPHIC[0]), Flag(18, 23.5, SAFETY_SEXUAL[0])),
        gop_s=8,
    ),
    Clip(
        "mixed.mp4",
        24,
        ("gravel", "coins"),
        (Flag(5.5, 10.5, NSFW[1]), Flag(14.5, 19.5, GRAPHIC[1])),
        rate=30,
    ),
    Clip("uploads/start.mp4", 16, ("astronaut", "coins"), (Flag(0, 5, NSFW[2]),)),
    Clip("uploads/end.mp4", 16, ("rocket", "chelsea"), (Flag(9.6, 16, NSFW[3]),), rate=30),
    Clip(
        "uploads/twice.mp4",
        30,
        ("chelsea", "gravel"),
        (Flag(4, 9, NSFW[1]), Flag(20.2, 25.7, NSFW[2])),
        gop_s=4,
    ),
    Clip("uploads/clean.mp4", 16, ("gravel", "rocket")),
    Clip(
        "uploads/upright.mp4",
        16,
        ("chelsea", "camera"),
        (Flag(6, 11, NSFW[0]),),
        width=360,
        height=640,
        rate=30,
    ),
)


@cache
def photo(name: str) -> Rgb:
    """One of scikit-image's photographs, in colour."""
    from skimage import data

    picture = np.asarray(getattr(data, name)(), np.uint8)
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture


@cache
def card(name: str, width: int, height: int) -> Rgb:
    """A card, enlarged smoothly to fill the picture."""
    small = np.asarray(Image.open(HERE / "cards" / name).convert("RGB"))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def pan(name: str, share: float, width: int, height: int) -> Rgb:
    """A photograph at ``share`` (0..1) of the camera's diagonal way over it: three quarters of it show."""
    picture = photo(name)
    tall, wide = picture.shape[:2]
    zoom = 0.75 * min(wide / width, tall / height)  # photograph's pixels a pixel of the clip
    left, top = share * (wide - zoom * width), share * (tall - zoom * height)
    where = np.array([[zoom, 0, left], [0, zoom, top]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, where, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


def pictures(clip: Clip) -> Iterator[Rgb]:
    """Every picture of a clip, in order."""
    each = clip.seconds / len(clip.photos)
    for number in range(round(clip.seconds * clip.rate)):
        time_s = number / clip.rate
        shown = [flag.card for flag in clip.flags if flag.start_s <= time_s < flag.end_s]
        if shown:
            yield card(shown[0], clip.width, clip.height)
        else:
            at, share = divmod(time_s / each, 1)
            yield pan(clip.photos[int(at)], share, clip.width, clip.height)


def cards_index() -> dict[str, dict[str, Any]]:
    """``cards.json`` by file name."""
    return {entry["file"]: entry for entry in json.loads((HERE / "cards" / "cards.json").read_text())}


def truth(clip: Clip) -> dict[str, Any]:
    """What is to be found in a clip: the line of ``truth.json``.

    ``model`` is the one that a card was found with; the others may flag it or not."""
    known = cards_index()
    flags = [
        {
            "model": known[flag.card]["model"],
            "category": known[flag.card]["category"],
            "start_s": flag.start_s,
            "end_s": flag.end_s,
        }
        for flag in clip.flags
    ]
    used = b"".join((HERE / "cards" / flag.card).read_bytes() for flag in clip.flags)
    recipe = hashlib.sha256(f"{RECIPE} {clip}".encode() + used).hexdigest()
    return {"seconds": clip.seconds, "gop_s": clip.gop_s, "flags": flags, "recipe": recipe}


def make(clip: Clip, folder: Path) -> None:
    """Encode one clip; it appears under its name only when it is whole."""
    path = folder / clip.name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    options = {"preset": "ultrafast", "crf": "23"}
    gop = round(clip.gop_s * clip.rate)
    write_clip(part, pictures(clip), rate=clip.rate, gop=gop, container="mp4", options=options)
    os.replace(part, path)


def make_all(folder: Path) -> dict[str, Any]:
    """Make what is missing or has changed; return what ``truth.json`` then says."""
    index = folder / "truth.json"
    before = json.loads(index.read_text()) if index.exists() else {}
    now = {clip.name: truth(clip) for clip in CLIPS}
    todo = [
        clip for clip in CLIPS if before.get(clip.name) != now[clip.name] or not (folder / clip.name).exists()
    ]
    began = time.monotonic()
    for number, clip in enumerate(todo, 1):
        print(
            f"sample {number}/{len(todo)}: {clip.name}, {clip.seconds:g} s of {clip.width}x{clip.height}",
            flush=True,
        )
        make(clip, folder)
    folder.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps(now, indent=1) + "\n")
    made = f"{len(todo)} made in {time.monotonic() - began:.0f} s" if todo else "all there"
    print(f"{len(CLIPS)} sample clips in {folder}: {made}")
    return now


def main() -> None:
    """Make the clips."""
    options = argparse.ArgumentParser(description="Make the sample clips.")
    options.add_argument(
        "--folder", type=Path, default=HERE / "clips", help="where they go (default %(default)s)"
    )
    cv2.setNumThreads(1)  # the encoder has the cores
    make_all(options.parse_args().folder)


if __name__ == "__main__":
    main()
