"""``framewarden bench cost``: how the CPU of a stream-second grows with GOP, bitrate, resolution and gap.

    python -m pipeline.bench.growth FILE GAP MODEL

runs in a process of its own: the file, as a live stream, through the real source, sampler, decoder and
conversion, on one thread, as fast as it goes; prints JSON. Each film differs from the first in one thing."""

import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.backends import peer_ffmpeg
from pipeline.backends.frames_numpy import convert
from pipeline.backends.registry import open_decoder, open_source
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.bench import child, material, parts
from pipeline.bench.machine import cores
from pipeline.bench.material import ORDINARY, RATE, Film
from pipeline.bench.peers import Say
from pipeline.bench.report import Bars, Cell, Section, Table
from pipeline.engines import load_manifest
from pipeline.flow.pick import pictures
from pipeline.flow.sample import Sampler, SamplingRules

TURN_S, FILM_S = 8.0, 56.0
"""Seconds encoded, and the length to which they are repeated."""
FILMS = (
    ORDINARY,
    replace(ORDINARY, name="gop-1s", gop=RATE),
    replace(ORDINARY, name="gop-4s", gop=4 * RATE),
    replace(ORDINARY, name="1.5-Mbit", bit_rate=1_500_000),
    replace(ORDINARY, name="6-Mbit", bit_rate=6_000_000),
    replace(ORDINARY, name="720p", width=1280, height=720),
    replace(ORDINARY, name="2160p", width=3840, height=2160),
)
GAPS_S = (0.5, 1.0, 4.0)
"""Other promised gaps, on the first film."""
GAP_S = SamplingRules().max_gap_s


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU ms a stream-second by part, and what it was spent on. ``demux_ms`` is measured by itself; decoding
    has what the sampler and Python take in it. ``plan`` was in force at the end."""

    film: str
    sha256: str
    size: str
    gop_s: float
    bit_rate: int
    keyframe_bytes: int
    keyframe_ms: float
    max_gap_s: float
    plan: str
    samples_a_second: float
    demux_ms: float
    decode_ms: float
    convert_ms: float
    engine_ms: float

    @property
    def ms(self) -> float:
        """All parts together."""
        return self.demux_ms + self.decode_ms + self.convert_ms + self.engine_ms


@dataclass(frozen=True, slots=True)
class Run:
    """``samples`` pictures of ``seconds`` of film: CPU seconds for demuxing alone, for source, sampler and
    decoder together, and for conversion."""

    plan: str
    samples: int
    seconds: float
    demux_s: float
    path_s: float
    convert_s: float


def bench(model: str, *, folder: Path, say: Say) -> Section:
    """Make the films in ``folder`` and measure each; the first at other gaps, too."""
    costs, engine_ms = [], 0.0
    for film in FILMS:
        say(f"making and measuring {film.name}")
        path = material.make(film, folder, seconds=FILM_S, turn_s=TURN_S).resolve()
        if not engine_ms:
            alone = parts.measure(path, seconds=TURN_S, model=model, threads=cores(), turn=0)
            engine_ms = alone.engine_ms
        costs += [
            cost(film, path, gap_s, model, engine_ms)
            for gap_s in ((GAP_S, *GAPS_S) if film is ORDINARY else (GAP_S,))
        ]
    return section(costs, model)


def cost(film: Film, path: Path, gap_s: float, model: str, engine_ms: float) -> Cost:
    """Measure one film at one gap; ``engine_ms`` is what scoring a picture costs."""
    run = Run(**json.loads(child.run(child.python(__name__, path, str(gap_s), model)).out))
    about = material.describe(film, path)
    each = 1e3 / run.seconds
    return Cost(
        film=film.name,
        sha256=about.sha256,
        size=f"{film.width}x{film.height}",
        gop_s=film.gop / RATE,
        bit_rate=about.bit_rate,
        keyframe_bytes=about.keyframe_bytes,
        keyframe_ms=about.keyframe_ms,
        max_gap_s=gap_s,
        plan=run.plan,
        samples_a_second=run.samples / run.seconds,
        demux_ms=each * run.demux_s,
        decode_ms=each * max(0.0, run.path_s - run.demux_s),
        convert_ms=each * run.convert_s,
        engine_ms=engine_ms * run.samples / run.seconds,
    )


def through(path: str, gap_s: float, model: str) -> Run:
    """Run the film through the real stages, here."""
    begun = time.thread_time()
    peer_ffmpeg.demux(path, FILM_S)
    demux_s = time.thread_time() - begun
    spec = load_manifest(model).spec
    slot = np.empty(spec.slot_shape(), np.float32)
    sampler = Sampler(SamplingRules(max_gap_s=gap_s), kind="live", rng=random.Random(1))
    samples, last_s, convert_s = 0, 0.0, 0.0
    begun = time.thread_time()
    with open_source(SourceSettings(url=path, kind="file"), stop=threading.Event()) as source:
        decoder = open_decoder(source.info)
        for packet in source:
            last_s = max(last_s, packet.time_s)
            for picture in pictures(packet, sampler, decoder):
                started = time.thread_time()
                convert(picture, spec, slot)
                convert_s += time.thread_time() - started
                samples += 1
        decoder.close()
    path_s = time.thread_time() - begun - convert_s
    return Run(sampler.plan, samples, last_s + 1 / RATE, demux_s, path_s, convert_s)


def section(costs: Sequence[Cost], model: str) -> Section:
    """The costs as a sentence, tables and plots; the first is what the others are compared with."""
    first = costs[0]
    parts_said = (
        f"demux {first.demux_ms:.1f}, decode {first.decode_ms:.1f}, conversion {first.convert_ms:.1f}, "
        f"engine {first.engine_ms:.1f}"
    )
    says = [
        f"{first.film} film at a gap of {first.max_gap_s:g} s costs {first.ms:.1f} ms of CPU a stream-second "
        f"on {model}: {parts_said}. Each other row differs from it in one thing. The service's own work "
        "(threads, SQLite, Redis) is not in it."
    ]
    titles = (
        *(
            "film",
            "size",
            "GOP s",
            "Mbit/s",
            "keyframe kB",
            "keyframe ms",
            "gap s",
            "plan",
            "samples a second",
        ),
        *("demux", "decode", "conversion", "engine", "ms a stream-second", "times the first"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            *(one.film, one.size, one.gop_s, one.bit_rate / 1e6, one.keyframe_bytes / 1e3, one.keyframe_ms),
            *(one.max_gap_s, one.plan, one.samples_a_second),
            *(one.demux_ms, one.decode_ms, one.convert_ms, one.engine_ms, one.ms, one.ms / first.ms),
        )
        for one in costs
    ]
    bars = [(_name(one), (one.demux_ms, one.decode_ms, one.convert_ms, one.engine_ms)) for one in costs]
    plot = Bars("CPU a stream-second", "ms", ("demux", "decode", "conversion", "engine"), bars)
    data = {"costs": [asdict(one) | {"ms": one.ms} for one in costs], "says": says}
    made = Table(("film", "sha256"), list({one.film: (one.film, one.sha256) for one in costs}.values()))
    return Section("cost", "What a stream-second costs", says, [Table(titles, rows), made], data, [plot])


def _name(one: Cost) -> str:
    return one.film if one.max_gap_s == GAP_S else f"{one.film}, gap {one.max_gap_s:g} s"


if __name__ == "__main__":
    print(json.dumps(asdict(through(sys.argv[1], float(sys.argv[2]), sys.argv[3]))))
