"""``framewarden bench flash``: how likely a flash of a given length is seen, by plan and promised gap.

Every picture of a small film carries its number. The film goes through the real source, sampler, decoder and
conversion; the numbers are read back from the pictures that would be scored. A flash of n pictures that
begins at picture s is seen when one of s, s + 1, …, s + n - 1 was among them. No model has a part in it: this
is about where it is looked, not about what is thought of it."""

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.frames_numpy import convert
from pipeline.backends.registry import open_decoder, open_source
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.bench.child import BenchError
from pipeline.bench.peers import Say
from pipeline.engines import sha256_of
from pipeline.flow.decode import Picture
from pipeline.flow.frames import InputSpec
from pipeline.flow.pick import pictures
from pipeline.flow.sample import Plan, Sampler, SamplingRules

RATE = 25
WIDTH, HEIGHT = 160, 96
ROWS, COLUMNS = (
    2,
    7,
)  # bits of a number, most significant first; every second cell is a bit, its mate the inverse
FILM_S = 120.0
GAPS_S = (0.5, 1.0, 2.0)
LENGTHS_S = (0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.52, 2.0, 3.0, 5.0)
SPARE = 4
"""Keyframes a promised gap where there are more of them than needed."""
RARE_GOPS = 2.5
"""Gaps a GOP where there are too few keyframes."""
BEGINS_S = 10.0
"""Flashes begin after this: by then the sampler knows the film's GOP."""
RUNS = 16

Rgb = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""


@dataclass(frozen=True, slots=True)
class Case:
    """A promised gap, the plan as the config says it, and the film's distance between keyframes."""

    name: str
    plan: Plan
    max_gap_s: float
    gop: int  # pictures

    @property
    def gop_s(self) -> float:
        return self.gop / RATE


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of flashes seen that last ``pictures`` (``seconds``): at random phase, and at the worst phase to
    the keyframes. ``expected`` is min(1, seconds / promised gap)."""

    seconds: float
    pictures: int
    random: float
    adversarial: float
    expected: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a case came to: ``sha256`` is the film's, ``plan`` was in force at the end, ``samples_a_second``
    pictures were scored."""

    case: Case
    sha256: str
    plan: str
    samples_a_second: float
    worst_gap_s: float
    recalls: tuple[Recall, ...]


def bench(gaps_s: Sequence[float], *, runs: int, folder: Path, say: Say) -> list[Found]:
    """Make the films in ``folder`` and measure every plan at every gap."""
    found = []
    for case in cases(gaps_s):
        say(f"gap {case.max_gap_s:g} s, {case.name}: {runs} runs over {FILM_S:g} s of film")
        found.append(measure(case, film(folder, case.gop, FILM_S), runs=runs))
    return found


def cases(gaps_s: Sequence[float]) -> list[Case]:
    """Every plan at every gap."""
    found = []
    for gap_s in gaps_s:
        needed, rare = round(gap_s * RATE), round(RARE_GOPS * gap_s * RATE)
        spare = max(1, round(gap_s * RATE / SPARE))
        found += [
            Case("keyframes, all needed", "auto", gap_s, needed),
            Case("keyframes, some spare", "auto", gap_s, spare),
            Case("skip", "auto", gap_s, rare),
            Case("full", "full", gap_s, rare),
        ]
    return found


def numbered(number: int) -> Rgb:
    """A picture that says its number: a cell of light and one of dark for a one, the other way for a zero."""
    bits = [(number >> at) & 1 for at in reversed(range(ROWS * COLUMNS))]
    cells = np.array([[bit, 1 - bit] for bit in bits], np.uint8).reshape(ROWS, 2 * COLUMNS)
    light = np.where(cells, 210, 45).astype(np.uint8)
    grey = light[np.arange(HEIGHT) * ROWS // HEIGHT][:, np.arange(WIDTH) * 2 * COLUMNS // WIDTH]
    return np.repeat(grey[..., None], 3, axis=2)


SPEC = InputSpec(height=3 * ROWS, width=6 * COLUMNS, layout="nhwc")


def number_of(picture: Picture) -> int:
    """The number that a decoded picture carries.

    :raises BenchError: it cannot be read."""
    slot = np.empty(SPEC.slot_shape(), np.float32)
    convert(picture, SPEC, slot)
    cells = slot[1::3, 1::3, 1]  # the middle of each cell
    differ = (cells[:, ::2] - cells[:, 1::2]).ravel()
    if np.abs(differ).min() < 40:
        raise BenchError(f"the picture at {picture.time_s:.2f} s does not show its number clearly")
    return int("".join("1" if step > 0 else "0" for step in differ), 2)


def film(folder: Path, gop: int, seconds: float) -> Path:
    """The film with a keyframe every ``gop`` pictures; made when it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"numbers-{round(seconds)}s-gop{gop}.mp4"
    if not path.exists():
        part = path.with_suffix(".part")
        made: Iterator[Rgb] = (numbered(number) for number in range(round(seconds * RATE)))
        write_clip(part, made, rate=RATE, gop=gop, container="mp4").rename(path)
    return path


def sampled(path: Path, case: Case, seed: int) -> tuple[list[int], str]:
    """The numbers of the pictures that would be scored, and the plan at the end. The sampler is that of a
    live stream, with jitter and audit drawn from ``seed``."""
    rules = SamplingRules(max_gap_s=case.max_gap_s, plan=case.plan)
    sampler = Sampler(rules, kind="live", rng=random.Random(seed))
    seen = []
    with open_source(SourceSettings(url=str(path), kind="file"), stop=threading.Event()) as source:
        decoder = open_decoder(source.info)
        try:
            for packet in source:
                seen += [number_of(picture) for picture in pictures(packet, sampler, decoder)]
        finally:
            decoder.close()
    return seen, sampler.plan


def measure(case: Case, path: Path, *, runs: int, lengths_s: Sequence[float] = LENGTHS_S) -> Found:
    """Screen the film ``runs`` times, each time with other luck, and try every flash in it."""
    luck = [sampled(path, case, seed) for seed in range(runs)]
    samples = [np.array(seen) for seen, _ in luck]
    count = min(int(one[-1]) for one in samples) + 1
    begin = round(BEGINS_S * RATE)
    recalls = []
    for length_s in lengths_s:
        length = max(1, round(length_s * RATE))
        starts = np.arange(begin, count - length)
        hits = np.stack([hit(one, starts, length) for one in samples])
        recalls.append(
            Recall(
                seconds=length / RATE,
                pictures=length,
                random=float(hits.mean()),
                adversarial=worst_phase(hits, starts % case.gop),
                expected=min(1.0, length / RATE / case.max_gap_s),
            )
        )
    settled = [one[one >= begin] for one in samples]
    gaps = [int(np.diff(one).max()) for one in settled]
    each = sum(len(one) for one in settled) / (runs * (count - begin) / RATE)
    return Found(case, sha256_of(path), luck[-1][1], each, max(gaps) / RATE, tuple(recalls))


def hit(samples: NDArray[np.int64], starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """For each start, whether a sample lies in the ``length`` pictures from there on. ``samples`` ascend, and
    the last of them lies beyond every start."""
    following = samples[np.searchsorted(samples, starts)]
    return np.asarray(following < starts + length)


def worst_phase(hits: NDArray[np.bool_], phases: NDArray[np.int64]) -> float:
    """Recall of flashes at the phase that an adversary picks. He learns it from half of the runs and strikes
    in the other half, so that luck is not taken for weakness; then the halves change places.

    ``hits`` has shape (runs, starts), ``phases`` says of each start how far behind a keyframe it is."""
    rates = []
    for learn, strike in ((hits[::2], hits[1::2]), (hits[1::2], hits[::2])):
        times = np.bincount(phases)
        known = np.bincount(phases, weights=learn.mean(axis=0)) / np.maximum(times, 1)
        worst = int(np.argmin(np.where(times > 0, known, np.inf)))
        rates.append(float(strike[:, phases == worst].mean()))
    return sum(rates) / len(rates)
