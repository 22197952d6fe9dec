"""The film of a benchmark: made from fixed seeds, or a file of the user's own."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline import engines
from pipeline.bench import material
from pipeline.bench.child import BenchError
from pipeline.bench.material import FILMS, Material
from pipeline.errors import SourceError
from pipeline.flow.sample import TOLERANCE

NAMES = tuple(film.name for film in FILMS)


def made(name: str, folder: Path, seconds: float) -> Material:
    """The film of this name, at least ``seconds`` long; made in ``folder`` when it is not there yet."""
    film = next(film for film in FILMS if film.name == name)
    return material.describe(film, material.make(film, folder, seconds=seconds).resolve())


def flagged(name: str, folder: Path, seconds: float, model: str) -> Material:
    """The film of this name with a card in it that ``model`` flags; made in ``folder`` when it is not there.

    :raises BenchError: there is no such card."""
    cards = engines.shipped_folder().parent / "samples" / "cards"
    card = next(iter(sorted(cards.glob(f"{model}-sexual-*.png"))), None)
    if card is None:
        raise BenchError(
            f"--flagged: {cards} holds no card that {model} flags; there are some for the shipped models, in "
            "a checkout"
        )
    film = next(film for film in FILMS if film.name == name)
    path = material.make(film, folder, seconds=seconds, card=card).resolve()
    return material.describe(replace(film, name=f"{name} with {card.stem}"), path)


def own(path: Path) -> Material:
    """The user's file.

    :raises BenchError: it cannot be measured, and why."""
    path = path.resolve()
    try:
        return material.describe(replace(FILMS[0], name=path.stem), path)
    except SourceError as error:
        raise BenchError(f"{error}; a benchmark needs a video file") from error


def interval_s(film: Material, max_gap_s: float) -> float:
    """Seconds between the keyframes that are needed: as few as keep the gap, or all when GOPs are longer."""
    return film.gop_s * max(1, int(max_gap_s * TOLERANCE / film.gop_s + 1e-6)) if film.gop_s else max_gap_s


def facts(film: Material) -> dict[str, Any]:
    """What a report says of it; its folder is left out."""
    return asdict(film) | {"path": Path(film.path).name}
