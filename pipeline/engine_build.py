"""Builds engines and judges them: quantize, verify against the reference on pictures made for it, keep."""

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import engine_cache, engines
from pipeline import material as makers
from pipeline.backends import registry
from pipeline.config import cache_folder
from pipeline.engines import Verification
from pipeline.errors import ModelError
from pipeline.flow.classify import Classifier
from pipeline.manifest import Manifest
from pipeline.material import Chosen, Material, Recipe

CALIBRATION_FRAMES = 200
NEAR_SHARE = 0.25
BATCH = 8
SUFFIXES = (".jpeg", ".jpg", ".png")
PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "ihc", "moon", "motorcycle_left", "page", "retina", "rocket", "text"),
)
"""Freely licensed photographs that come with scikit-image, where it is installed."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judge:
    """Pictures to verify with and the reference's scores of them, for one model."""

    manifest: Manifest
    material: Material
    chosen: Chosen
    reference: str

    def verify(self, classifier: Classifier) -> Verification:
        """Compare an engine with the reference."""
        size = min(BATCH, classifier.max_batch)
        frames = self.material.batches(self.chosen.recipes, self.manifest.spec, size)
        found = np.concatenate([classifier.infer(pixels) for pixels in frames])
        return engines.compare(
            self.manifest, classifier.info.engine, self.reference, found, self.chosen.scores
        )


def find_pictures(folder: Path | None) -> list[Path]:
    """The pictures in a folder and below it; without one, the samples' cards and scikit-image's photographs.

    :raises ModelError: there are none; says where they were looked for."""
    if folder is not None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise ModelError(f"--pictures {folder}: no picture there: looked for {', '.join(SUFFIXES)}")
        return found
    cards = engines.shipped_folder().parent / "samples" / "cards"
    found = sorted(cards.glob("*.png"))
    if not found:
        raise ModelError(
            f"no pictures to calibrate and verify with: {cards} is not there (it comes with a checkout, not "
            "with "
            "a wheel); name a folder of your own with --pictures"
        )
    return found + _photographs()


def open_judge(manifest: Manifest, paths: list[Path], frames: int, threads: int, say: Say) -> Judge:
    """Read the pictures and find, or take from the cache, those to verify with.

    :raises ModelError: they do not reach the thresholds of this model."""
    from pipeline.backends.pictures_ffmpeg import read_picture

    material = Material([read_picture(path) for path in paths])
    reference = registry.open_classifier(manifest, engine="onnxruntime", threads=threads, max_batch=BATCH)
    place = _place(manifest, reference, paths, frames)
    chosen = _remembered(place)
    if chosen is None:
        say(f"looking for {frames} pictures that score around {makers.OPEN:g} and {makers.CLOSE:g}")
        chosen = makers.choose(material, manifest.spec, reference.infer, frames, NEAR_SHARE)
        _remember(place, chosen)
    reference.close()
    return Judge(manifest, material, chosen, reference.info.engine)


def calibration(judge: Judge) -> Iterator[NDArray[np.float32]]:
    """Batches to calibrate with. None of the pictures that are verified with is among them."""
    recipes = makers.calibration(len(judge.material.pictures), CALIBRATION_FRAMES)
    verified = set(judge.chosen.recipes)
    return judge.material.batches([one for one in recipes if one not in verified], judge.manifest.spec, BATCH)


@dataclass(frozen=True, slots=True)
class Built:
    """What came of it. ``seconds`` is the build alone, without the search for pictures and verification."""

    report: Verification
    place: Path
    size: int
    seconds: float


def build_int8(judge: Judge, threads: int, say: Say) -> Built:
    """Quantize the model for OpenVINO, verify it alone or else as int8+f32, and keep it. One that is not
    ``ok`` is kept with its report, too, so that the next build need not be tried in vain; it is not used."""
    from pipeline.backends import classify_openvino, onnx_graph

    manifest = judge.manifest
    say(f"quantizing with {CALIBRATION_FRAMES} pictures")
    begun = time.monotonic()
    graph = onnx_graph.quantized(
        onnx_graph.clean(engines.weights(manifest)), lambda: calibration(judge), symmetric=False
    ).SerializeToString()
    seconds = time.monotonic() - begun
    say(f"verifying with {len(judge.chosen.recipes)} pictures")
    with TemporaryDirectory(prefix="framewarden-") as folder:
        path = Path(folder) / classify_openvino.GRAPH
        path.write_bytes(graph)
        report = _verified_int8(judge, path, threads)
    more = {"built_with": onnx_graph.versions(), "seconds": seconds}
    key = classify_openvino.int8_key(manifest)
    place = engine_cache.keep(key, {classify_openvino.GRAPH: graph}, report, more)
    return Built(report, place / classify_openvino.GRAPH, len(graph), seconds)


def _verified_int8(judge: Judge, graph: Path, threads: int) -> Verification:
    """Of int8 alone; when that decides otherwise than f32, but is off by no more than the manifest's
    tolerance, of int8+f32, whose margin that is."""
    from pipeline.backends import classify_openvino

    for precision in ("int8", f"int8{classify_openvino.AGAIN}"):
        classifier = classify_openvino.open_classifier(
            judge.manifest, threads=threads, max_batch=BATCH, precision=precision, graph=graph
        )
        report = judge.verify(classifier)
        classifier.close()
        if report.ok or report.tolerance is None or report.worst > report.tolerance:
            break
    return report


def prepared(judge: Judge, precision: str) -> bytes:
    """The cleaned-up ONNX graph in ``fp32``, ``fp16`` or explicit ``int8``."""
    from pipeline.backends import onnx_graph

    graph = onnx_graph.clean(engines.weights(judge.manifest))
    if precision == "fp16":
        graph = onnx_graph.halved(graph)
    elif precision == "int8":
        graph = onnx_graph.quantized(graph, lambda: calibration(judge), symmetric=True)
    return bytes(graph.SerializeToString())


def verify_graph(judge: Judge, graph: bytes, precision: str, threads: int) -> Verification:
    """Compare a graph, run by ONNX Runtime on the CPU, with the model that it was made from."""
    from pipeline.backends import classify_onnxruntime

    with TemporaryDirectory(prefix="framewarden-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph)
        classifier = classify_onnxruntime.open_classifier(
            judge.manifest,
            threads=threads,
            max_batch=BATCH,
            precision=precision.replace("fp", "f"),
            graph=path,
        )
        report = judge.verify(classifier)
        classifier.close()
    return report


def build_plan(
    judge: Judge,
    *,
    engine: str,
    precision: str,
    target: str | None,
    max_batch: int,
    out: Path,
    threads: int,
    say: Say,
) -> Built:
    """Make the graph, verify it on the CPU, build the plan from it and write it to ``out``.

    :raises ModelError: the graph is not within the manifest's tolerance, or the engine does not take it."""
    from pipeline.backends import build_tensorrt

    say(f"preparing the graph in {precision}")
    graph = prepared(judge, precision)
    say(f"verifying the graph with {len(judge.chosen.recipes)} pictures on the CPU")
    report = verify_graph(judge, graph, precision, threads)
    if not report.ok:
        raise ModelError(
            f"model {judge.manifest.name}: its {precision} graph is not used: {'; '.join(report.faults)}, "
            f"of {report.frames} pictures; {_cure(report)}"
        )
    here = registry.gpu_target()
    say(f"building the plan for {target or 'this GPU'}")
    begun = time.monotonic()
    timings = engine_cache.timings(f"{engine} {build_tensorrt.load(engine).__version__}", str(target or here))
    plan = build_tensorrt.build_plan(
        graph,
        judge.manifest.spec,
        engine=engine,
        target=target,
        max_batch=max_batch,
        timing_cache=timings.read_bytes() if timings.is_file() else b"",
    )
    if plan.timing_cache:
        engine_cache.put(timings, plan.timing_cache)
    seconds = time.monotonic() - begun
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(plan.data)
    except OSError as error:
        raise ModelError(f"--out {out}: cannot be written: {error.strerror}") from error
    if here is not None and target in (None, here):
        report = keep_plan(judge, engine, out, precision.replace("fp", "f"), max_batch)
    return Built(report, out, len(plan.data), seconds)


def _cure(report: Verification) -> str:
    """For a graph that is not right; of few pictures one may make all the difference."""
    return (
        "use another --precision"
        if report.enough
        else f"try --frames {engines.FRAMES}, or another --precision"
    )


def keep_plan(judge: Judge, engine: str, plan: Path, precision: str, max_batch: int) -> Verification:
    """Verify a plan on the GPU here, and keep it with its report; ``run`` uses it when it is right.

    :raises BackendError: there is no usable GPU. :raises ModelError: the plan is not for it."""
    from pipeline.backends import classify_tensorrt

    classifier = classify_tensorrt.open_classifier(
        judge.manifest, threads=1, max_batch=max_batch, plan=(engine, precision, plan)
    )
    report = judge.verify(classifier)
    classifier.close()
    key = classify_tensorrt.key(judge.manifest, engine, precision, max_batch)
    engine_cache.keep(key, {classify_tensorrt.PLAN: plan.read_bytes()}, report, {})
    return report


def _photographs() -> list[Path]:
    """scikit-image's, found without importing it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    return [
        path for name in PHOTOGRAPHS for path in sorted(folder.glob(f"{name}.*")) if path.suffix in SUFFIXES
    ]


def _place(manifest: Manifest, reference: Classifier, paths: list[Path], frames: int) -> Path:
    """Where the choice is remembered: named after all that it follows from."""
    means = (manifest.spec, manifest.labels, manifest.categories, manifest.activation, manifest.output_name)
    seen = [reference.info.sha256, manifest.preprocess, repr(means), makers.VERSION, str(frames)]
    digest = hashlib.sha256("\n".join([*seen, *(engines.sha256_of(path) for path in paths)]).encode())
    return cache_folder() / "verification" / f"{manifest.name}-{digest.hexdigest()[:16]}.json"


def _remembered(place: Path) -> Chosen | None:
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return Chosen(
            [Recipe(*values) for values in found["recipes"]], np.asarray(found["scores"], np.float32)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(place: Path, chosen: Chosen) -> None:
    found = {
        "recipes": [astuple(one) for one in chosen.recipes],
        "scores": chosen.scores.astype(float).tolist(),
    }
    engine_cache.put(place, json.dumps(found).encode())
