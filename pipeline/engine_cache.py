"""Engines that were built on this machine: where they lie, what they were built for, what was found of them.

A folder an engine, under ``cache_folder()``, named after a key over all that could change its scores. In it
lie the engine's file and ``report.json``. An engine whose key differs is another one. A new folder is written
beside and moved into place."""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import cache_folder
from pipeline.engines import Verification
from pipeline.errors import ModelError
from pipeline.manifest import Manifest

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class Key:
    """What an engine was built from and for. ``runtime`` is the engine's package and version, ``target`` the
    processor, ``recipe`` how it was built."""

    model: str
    weights: str
    preprocess: str
    engine: str
    precision: str
    runtime: str
    target: str
    recipe: str

    def folder(self) -> Path:
        """Where such an engine lies, whether or not there is one."""
        text = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cache_folder() / "engines" / f"{self.model}-{self.engine}-{self.precision}-{digest}"


def key_of(
    manifest: Manifest, sha256: str, engine: str, precision: str, *, runtime: str, target: str, recipe: str
) -> Key:
    """The key of a model's engine."""
    return Key(manifest.name, sha256, manifest.preprocess, engine, precision, runtime, target, recipe)


def accepted(key: Key, file: str) -> Path | None:
    """The engine's file, when one was built and found to be within the manifest's tolerance."""
    found = report(key)
    path = key.folder() / file
    return path if found is not None and found.get("ok") is True and path.is_file() else None


def report(key: Key) -> dict[str, Any] | None:
    """What was found of the engine when it was built, or None when there is none that can be read."""
    try:
        found = json.loads((key.folder() / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep(key: Key, files: dict[str, bytes], found: Verification, more: dict[str, Any]) -> Path:
    """Put a built engine and its report in place; the folder.

    :raises ModelError: the folder cannot be written."""
    folder = key.folder()
    text = (
        json.dumps(
            asdict(key) | asdict(found) | {"ok": found.ok and found.enough} | more, indent=2, sort_keys=True
        )
        + "\n"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        for name, data in files.items():
            (made / name).write_bytes(data)
        (made / REPORT).write_text(text, encoding="utf-8")
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(made, folder)
    except OSError as error:
        raise ModelError(f"engine cache {folder}: cannot be written: {error.strerror}") from error
    return folder
