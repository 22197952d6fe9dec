"""What a stream-second cannot do without, each part measured alone, on one thread that does nothing else:
demuxing, decoding the keyframes that the gap needs (as the service does: large ones are not deblocked),
converting them, scoring them. Their sum is the limit.

    python -m pipeline.bench.parts film FILE SECONDS MODEL THREADS
    python -m pipeline.bench.parts demux URL SECONDS
    python -m pipeline.bench.parts engine MODEL ENGINE THREADS BATCH,BATCH,…

run in a process of their own, and print JSON."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.backends import registry
from pipeline.bench import child
from pipeline.engines import Manifest, load_manifest
from pipeline.errors import ConfigError, ModelError
from pipeline.flow.classify import Classifier
from pipeline.flow.decode import Picture
from pipeline.flow.frames import InputSpec
from pipeline.log import configure

KEPT = 8  # pictures of 3 MB each that are converted again and again
CONVERSIONS = 64
BATCHES = (1, 4, 8)
ENGINE_S = 1.0
"""Each batch size is scored for this long, and at least ``TURNS`` times."""
TURNS = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """CPU milliseconds: ``demux_ms`` a stream-second; the others a picture. ``keyframes`` were decoded, from
    ``seconds`` of film; the engine is at its cheapest ``batch``."""

    demux_ms: float
    decode_ms: float
    convert_ms: float
    engine_ms: float
    batch: int
    engine: str
    keyframes: int
    seconds: float
    libavcodec: str

    def per_stream_second(self, pictures_a_second: float) -> dict[str, float]:
        """CPU ms a stream-second of each part, for so many screened pictures a second."""
        each = {"decode": self.decode_ms, "conversion": self.convert_ms, "engine": self.engine_ms}
        return {"demux": self.demux_ms} | {name: ms * pictures_a_second for name, ms in each.items()}


def mean(turns: Sequence[Parts]) -> Parts:
    """The parts of several turns on the same film, on average."""
    cheapest = min(turns, key=lambda one: one.engine_ms)
    return replace(
        cheapest,
        demux_ms=fmean(one.demux_ms for one in turns),
        decode_ms=fmean(one.decode_ms for one in turns),
        convert_ms=fmean(one.convert_ms for one in turns),
        engine_ms=fmean(one.engine_ms for one in turns),
    )


@dataclass(frozen=True, slots=True)
class Speed:
    """An engine at one batch size: CPU ms a picture over all threads, and pictures a second by the clock."""

    batch: int
    cpu_ms: float
    per_second: float


@cache
def measure(film: Path, *, seconds: float, model: str, threads: int, turn: int) -> Parts:
    """Measure all four parts in a child process: once a ``turn``, whichever sections want them."""
    command = child.python(__name__, "film", film, str(seconds), model, str(threads))
    return Parts(**json.loads(child.run(command).out))


def measure_reading(url: str, seconds: float) -> float:
    """CPU ms a stream-second of reading a live stream by libavformat alone, in a child process."""
    return float(json.loads(child.run(child.python(__name__, "demux", url, str(seconds))).out)["demux_ms"])


def measure_engine(
    model: str, engine: str, *, threads: int, batches: tuple[int, ...]
) -> tuple[list[Speed], str]:
    """Measure an engine in a child process: its speeds, or none and why it cannot be used here."""
    command = child.python(__name__, "engine", model, engine, str(threads), ",".join(map(str, batches)))
    found = json.loads(child.run(command).out)
    return [Speed(**speed) for speed in found["speeds"]], found["why"]


def alone(film: str, seconds: float, model: str, threads: int) -> Parts:
    """Measure all four parts here."""
    from pipeline.backends import peer_ffmpeg

    read = peer_ffmpeg.demux(film, seconds)
    stills = peer_ffmpeg.stills(film, seconds, keep=KEPT)
    manifest = load_manifest(model)
    pixels, convert_s = _convert(stills.kept, manifest.spec)
    classifier = registry.open_classifier(manifest, threads=threads, max_batch=max(BATCHES))
    best = min((speed(classifier, pixels, batch) for batch in BATCHES), key=lambda found: found.cpu_ms)
    return Parts(
        demux_ms=1e3 * read.spent_s / read.seconds,
        decode_ms=1e3 * fmean(stills.spent_s),
        convert_ms=1e3 * convert_s,
        engine_ms=best.cpu_ms,
        batch=best.batch,
        engine=classifier.info.engine,
        keyframes=len(stills.spent_s),
        seconds=read.seconds,
        libavcodec=peer_ffmpeg.library(),
    )


def _convert(pictures: list[Picture], spec: InputSpec) -> tuple[NDArray[np.float32], float]:
    """The pictures as a batch tensor, and CPU seconds a conversion."""
    from pipeline.backends.frames_numpy import convert

    slots = np.empty((len(pictures), *spec.slot_shape()), np.float32)
    for picture, slot in zip(pictures, slots, strict=True):
        convert(picture, spec, slot)
    begun = time.thread_time()
    for number in range(CONVERSIONS):
        convert(pictures[number % len(pictures)], spec, slots[number % len(pictures)])
    return slots, (time.thread_time() - begun) / CONVERSIONS


def speed(classifier: Classifier, pixels: NDArray[np.float32], batch: int) -> Speed:
    """Score batches of ``batch`` pictures (``pixels``, repeated) for ``ENGINE_S``."""
    tensor = np.ascontiguousarray(np.resize(pixels, (batch, *pixels.shape[1:])))
    classifier.infer(tensor)
    turns, clock, cpu = 0, time.monotonic(), time.process_time()
    while turns < TURNS or time.monotonic() - clock < ENGINE_S:
        classifier.infer(tensor)
        turns += 1
    pictures = turns * batch
    return Speed(batch, 1e3 * (time.process_time() - cpu) / pictures, pictures / (time.monotonic() - clock))


def speeds(model: str, engine: str, threads: int, batches: tuple[int, ...]) -> tuple[list[Speed], str]:
    """Measure an engine here: its speeds, or none and why it cannot be used on this machine."""
    manifest = load_manifest(model)
    if (why := _emulated(engine)) is not None:
        return [], why
    try:
        classifier = registry.open_classifier(
            manifest, engine=engine, threads=threads, max_batch=max(batches)
        )
    except (ModelError, ConfigError) as error:
        return [], str(error)
    return [speed(classifier, _noise(manifest), batch) for batch in batches], ""


def _emulated(engine: str) -> str | None:
    """Why a precision is not worth measuring: this processor would only imitate it."""
    name, _, precision = engine.partition("-")
    if name != "openvino":
        return None
    from pipeline.backends.classify_openvino import available_precisions

    native = available_precisions()
    return (
        None if precision.partition("+")[0] in native else f"this processor computes {', '.join(native)} only"
    )


def _noise(manifest: Manifest) -> NDArray[np.float32]:
    spec = manifest.spec
    values = np.random.default_rng(1).uniform(0, 255, (8, spec.height, spec.width, 3)).astype(np.float32)
    scaled = (values - np.asarray(spec.mean, np.float32)) * np.asarray(spec.scale, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2) if spec.layout == "nchw" else scaled)


def _main(what: str, *given: str) -> dict[str, Any]:
    """The JSON of one of the programs."""
    programs: dict[str, Callable[..., dict[str, Any]]] = {"film": _film, "demux": _demux, "engine": _engine}
    return programs[what](*given)


def _film(film: str, seconds: str, model: str, threads: str) -> dict[str, Any]:
    return asdict(alone(film, float(seconds), model, int(threads)))


def _demux(url: str, seconds: str) -> dict[str, Any]:
    from pipeline.backends import peer_ffmpeg

    read = peer_ffmpeg.demux(url, float(seconds))
    return {"demux_ms": 1e3 * read.spent_s / read.seconds}


def _engine(model: str, engine: str, threads: str, batches: str) -> dict[str, Any]:
    found, why = speeds(model, engine, int(threads), tuple(map(int, batches.split(","))))
    return {"speeds": [asdict(one) for one in found], "why": why}


if __name__ == "__main__":
    configure()  # a log line, as of an engine that no longer fits, is no part of the JSON
    print(json.dumps(_main(*sys.argv[1:])))
