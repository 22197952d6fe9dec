"""Engines that were built on this machine: where they lie, what they were built for, what was found of them.

A folder an engine, under ``cache_folder()``, named after a key over all that could change its scores. In it
lie the engine's file and ``report.json``. An engine whose key differs is another one. A new folder is written
beside and moved into place."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import cache_folder
from pipeline.engines import Verification
from pipeline.errors import DiskError
from pipeline.manifest import Manifest

log = logging.getLogger(__name__)

REPORT = "report.json"
DIFFERS = {
    "weights": "other weights",
    "preprocess": "another conversion of pictures",
    "runtime": "{was} (here: {now})",
    "target": "{was} (here: {now})",
    "recipe": "another recipe",
    "tolerance": "a tolerance of {was} instead of {now}",
}
"""What is said of an engine whose key differs from the wanted one."""


@dataclass(frozen=True, slots=True)
class Key:
    """What an engine was built from and for. ``runtime`` is the engine's package and version, ``target`` the
    processor, ``recipe`` how it was built, ``tolerance`` the worst difference that its verdict accepts (None:
    none), ``max_batch`` the greatest batch of its profile, 0 without one."""

    model: str
    weights: str
    preprocess: str
    engine: str
    precision: str
    runtime: str
    target: str
    recipe: str
    tolerance: float | None
    max_batch: int = 0

    def folder(self) -> Path:
        """Where such an engine lies, whether or not there is one."""
        text = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cache_folder() / "engines" / f"{self.model}-{self.engine}-{self.precision}-{digest}"


def key_of(
    manifest: Manifest,
    sha256: str,
    engine: str,
    precision: str,
    *,
    runtime: str,
    target: str,
    recipe: str,
    max_batch: int = 0,
) -> Key:
    """The key of a model's engine."""
    return Key(
        model=manifest.name,
        weights=sha256,
        preprocess=manifest.preprocess,
        engine=engine,
        precision=precision,
        runtime=runtime,
        target=target,
        recipe=recipe,
        tolerance=manifest.tolerance.get(precision),
        max_batch=max_batch,
    )


def accepted(key: Key, file: str) -> Path | None:
    """The file of an engine that was built and found right, whose batches are as great as ``key``'s or
    greater; the least of those."""
    found: list[tuple[int, Path]] = []
    for place in key.folder().parent.glob(f"{key.model}-{key.engine}-{key.precision}-*/{REPORT}"):
        kept, path = _read(place), place.parent / file
        of = kept.get("key")
        most = of.get("max_batch") if isinstance(of, dict) else None
        if not isinstance(most, int) or most < key.max_batch or of != asdict(replace(key, max_batch=most)):
            continue
        if kept.get("ok") is True and path.is_file():
            found.append((most, path))
    return min(found)[1] if found else None


def stale(key: Key) -> str:
    """What the newest engine of this model, kind and precision was built for, when that is not what is wanted
    here; "" when it is, and when there is none."""
    here = built(f"{key.model}-{key.engine}-{key.precision}")
    if not here:
        return ""
    newest, _ = max(here, key=lambda one: one[1])
    was, now = _read(key.folder().parent / newest / REPORT).get("key"), asdict(key)
    if not isinstance(was, dict):
        return "something unknown (its report cannot be read)"
    differs = [
        said.format(was=was.get(name), now=now[name])
        for name, said in DIFFERS.items()
        if was.get(name) != now[name]
    ]
    most = was.get("max_batch")
    if isinstance(most, int) and most < key.max_batch:
        differs.append(f"batches of up to {most} (here: {key.max_batch})")
    return ", ".join(differs)


def built(model: str) -> frozenset[tuple[str, int]]:
    """The engines of a model that lie here, and when each was put there."""
    found = set()
    for place in (cache_folder() / "engines").glob(f"{model}-*/{REPORT}"):
        with suppress(OSError):  # it is replaced just now
            found.add((place.parent.name, place.stat().st_mtime_ns))
    return frozenset(found)


def report(key: Key) -> dict[str, Any] | None:
    """What was found of the engine when it was built, or None when there is none that can be read."""
    return _read(key.folder() / REPORT) or None


def _read(place: Path) -> dict[str, Any]:
    """A report; empty when it cannot be read."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def keep(key: Key, files: dict[str, bytes], found: Verification, more: dict[str, Any]) -> Path:
    """Put a built engine and its report in place; the folder.

    :raises DiskError: the folder cannot be written; what was there before is there still."""
    folder = key.folder()
    text = (
        json.dumps(
            {"key": asdict(key), "ok": found.ok and found.enough} | asdict(found) | more,
            indent=2,
            sort_keys=True,
        )
        + "\n"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _beside(folder) as made:
            for name, data in files.items():
                (made / name).write_bytes(data)
            (made / REPORT).write_text(text, encoding="utf-8")
            if folder.is_dir():
                shutil.rmtree(folder)
            os.replace(made, folder)
    except OSError as error:
        raise DiskError(
            f"engine cache {folder}: cannot be written: {error.strerror}; free some space there, or name "
            "another folder by XDG_CACHE_HOME"
        ) from error
    return folder


def timings(runtime: str, target: str) -> Path:
    """The file in which builds on this kind of GPU, with this version, remember how fast each kernel was."""
    return cache_folder() / "timings" / f"{runtime}-{target}".replace(" ", "-").replace("/", "-")


def put(place: Path, data: bytes) -> None:
    """Write a file of the cache: whole, or not at all. It only saves time: that it cannot be written is
    logged."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _beside(place) as made:
            (made / place.name).write_bytes(data)
            os.replace(made / place.name, place)
    except OSError as error:
        log.warning("cache %s: cannot be written: %s; it is done without", place, error.strerror)


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A new folder beside ``place``; gone at the end, if it is still there."""
    made = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
