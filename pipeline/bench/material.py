"""The films that benchmarks are run on: 1080p30 H.264, a keyframe every 2 s, made once from fixed seeds.

    python -m pipeline.bench.material [--folder bench-out] [--seconds 600]

``ordinary`` is 3 Mbit/s: cloudy scenes of every scale of detail, panned, with the faint grain of a camera.
``heavy`` is the same film with noise, at 5 Mbit/s. Their keyframes are large, as decoding those is what
screening costs. A minute is encoded and repeated, packet for packet. The same libraries make the same bytes
on the same kind of processor (on another the last digits of a Fourier transform differ, and with them some
bytes); the report shows their sha256, bitrate and the cost of their keyframes."""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.backends.decode_software import open_decoder
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.join_ffmpeg import join_clips
from pipeline.backends.pictures_ffmpeg import read_picture
from pipeline.backends.source_ffmpeg import SourceSettings, open_source
from pipeline.engines import sha256_of
from pipeline.flow.resize import weights

WIDTH, HEIGHT, RATE, GOP = 1920, 1080, 30, 60
SCENE = 150  # pictures a scene
TURN_S = 60  # seconds encoded, then repeated
MARGIN = 384  # pixels of a scene beyond the picture, to pan over
COSTED = 20  # keyframes decoded to learn their cost
FLAGGED_SCENES = (1, 2)
"""Of the twelve scenes of a minute, those that show a card instead, where there is one: from 5 s to 15 s."""

Rgb = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""


@dataclass(frozen=True, slots=True)
class Film:
    """How a film is made.

    ``bit_rate`` is in bits a second. ``grain`` and ``noise`` are deviations in 0..255 units: grain is new in
    each picture, noise lies on the scene and moves with it."""

    name: str
    bit_rate: int
    grain: float
    noise: float
    seed: int = 1
    width: int = WIDTH
    height: int = HEIGHT
    gop: int = GOP  # pictures


ORDINARY = Film("ordinary", 3_000_000, grain=2.5, noise=0)
HEAVY = Film("heavy", 5_000_000, grain=3, noise=8)
FILMS = (ORDINARY, HEAVY)


@dataclass(frozen=True, slots=True)
class Shown:
    """Something to flag is seen from ``from_s`` to ``to_s`` of every ``every_s`` seconds of a film."""

    from_s: float
    to_s: float
    every_s: float

    def off_s(self, start_s: float, end_s: float) -> tuple[float, float]:
        """How far a segment's start and end are from the nearest true ones, in seconds."""

        def off(seen_s: float, true_s: float) -> float:
            return abs((seen_s - true_s + self.every_s / 2) % self.every_s - self.every_s / 2)

        return off(start_s, self.from_s), off(end_s, self.to_s)


@dataclass(frozen=True, slots=True)
class Material:
    """What a film is, for the report. Sizes in bytes, ``keyframe_ms`` libavcodec's CPU time, one thread."""

    name: str
    path: str
    sha256: str
    seconds: float
    bit_rate: int
    gop_s: float
    keyframe_bytes: int
    keyframe_bytes_min: int
    keyframe_bytes_max: int
    keyframe_ms: float
    keyframe_ms_a_stream_second: float


def scene(rng: np.random.Generator, film: Film) -> Rgb:
    """A cloudy picture, larger than the film's: amplitude falls as frequency to the 1.3."""
    height, width = film.height + MARGIN, film.width + MARGIN
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    fall = np.maximum(frequency, 1 / width) ** -1.3

    def clouds() -> NDArray[np.float64]:
        waves = (rng.normal(size=fall.shape) + 1j * rng.normal(size=fall.shape)) * fall
        field = np.fft.irfft2(waves, s=(height, width))
        return np.asarray((field - field.mean()) / field.std())

    light, tint = 118 + 42 * clouds(), clouds()
    light += rng.normal(0, film.noise, light.shape)
    return (
        np.stack([light + 14 * tint, light - 4 * tint, light - 16 * tint], axis=-1)
        .clip(0, 255)
        .astype(np.uint8)
    )


def pictures(film: Film, seconds: float, card: Rgb | None = None) -> Iterator[Rgb]:
    """The film's pictures: a new scene every 5 s, panned, under grain that is never twice the same. A
    ``card`` of the picture's size stands still in ``FLAGGED_SCENES``."""
    looks, noise = np.random.default_rng(film.seed), np.random.default_rng(film.seed + 1)
    shape = (film.height + MARGIN, film.width + MARGIN, 1)
    grain = [np.rint(noise.normal(0, film.grain, shape)).astype(np.int16) for _ in range(2)]
    for number in range(round(seconds * RATE)):
        step = number % SCENE
        if step == 0:
            view = scene(looks, film)
        top, left = noise.integers(0, MARGIN, 2)
        shown = view[step // 2 : step // 2 + film.height, 2 * step : 2 * step + film.width]
        if card is not None and number // SCENE % (TURN_S * RATE // SCENE) in FLAGGED_SCENES:
            shown = card
        over = grain[number % 2][top : top + film.height, left : left + film.width]
        yield (shown + over).clip(0, 255).astype(np.uint8)


def shown(film_s: float) -> Shown:
    """When the card is seen in a film of that many seconds."""
    first, last = FLAGGED_SCENES[0], FLAGGED_SCENES[-1]
    return Shown(first * SCENE / RATE, (last + 1) * SCENE / RATE, min(film_s, float(TURN_S)))


def enlarged(picture: Rgb, film: Film) -> Rgb:
    """A small picture, smoothly enlarged to the film's size."""
    rows, columns = weights(picture.shape[0], film.height), weights(picture.shape[1], film.width)
    large = np.einsum("yh,hwc,xw->yxc", rows, picture.astype(np.float64), columns, optimize=True)
    return np.asarray(np.rint(large).clip(0, 255), np.uint8)


def make(
    film: Film, folder: Path, *, seconds: float = 600, card: Path | None = None, turn_s: float = TURN_S
) -> Path:
    """The film's file, at least ``seconds`` long in whole turns; made when it is not there yet. ``card`` is a
    picture that a model flags, shown for 10 s of each turn."""
    folder.mkdir(parents=True, exist_ok=True)
    turn_s = min(seconds, turn_s)
    turns = max(1, round(seconds / turn_s))
    name = film.name if card is None else f"{film.name}-{card.stem}"
    one, whole = (folder / f"{name}-{round(length)}s.mp4" for length in (turn_s, turns * turn_s))
    if not one.exists():
        part = one.with_suffix(".part")
        # A fixed number of threads: x264's rate control depends on it, and with it every byte.
        options = {"maxrate": str(film.bit_rate), "bufsize": str(2 * film.bit_rate), "threads": "2"}
        write_clip(
            part,
            pictures(film, turn_s, None if card is None else enlarged(read_picture(card), film)),
            rate=RATE,
            gop=film.gop,
            container="mp4",
            bit_rate=film.bit_rate,
            options=options,
        )
        part.rename(one)
    return whole if whole.exists() else join_clips([one] * turns, whole)


def describe(film: Film, path: Path) -> Material:
    """Read the whole file once and decode some of its keyframes."""
    spent: list[float] = []
    sizes: list[int] = []
    times: list[float] = []
    total, last = 0, 0.0
    with open_source(SourceSettings(url=str(path), kind="file"), stop=threading.Event()) as source:
        decoder = open_decoder(source.info)
        for packet in source:
            total, last = total + packet.size, max(last, packet.time_s)
            if not packet.keyframe:
                continue
            sizes.append(packet.size)
            times.append(packet.time_s)
            if len(spent) < COSTED:
                before = time.thread_time()
                decoder.still(packet)
                spent.append(time.thread_time() - before)
        decoder.close()
    seconds = last + 1 / RATE
    gop_s = statistics.median(np.diff(times)) if len(times) > 1 else seconds
    cost_ms = 1000 * statistics.median(spent)
    return Material(
        name=film.name,
        path=str(path),
        sha256=sha256_of(path),
        seconds=round(seconds, 2),
        bit_rate=round(8 * total / seconds),
        gop_s=round(float(gop_s), 3),
        keyframe_bytes=round(statistics.median(sizes)),
        keyframe_bytes_min=min(sizes),
        keyframe_bytes_max=max(sizes),
        keyframe_ms=round(cost_ms, 1),
        keyframe_ms_a_stream_second=round(cost_ms / float(gop_s), 1),
    )


def main() -> None:
    """Make both films and print what they are."""
    options = argparse.ArgumentParser(description="Make the benchmark films.")
    options.add_argument(
        "--folder", type=Path, default=Path("bench-out"), help="where they go (default %(default)s)"
    )
    options.add_argument("--seconds", type=float, default=600, help="their length (default %(default)s)")
    given = options.parse_args()
    for film in FILMS:
        print(f"{film.name}: making {given.seconds:g} s of {WIDTH}x{HEIGHT}, unless it is there", flush=True)
        for name, value in asdict(describe(film, make(film, given.folder, seconds=given.seconds))).items():
            print(f"  {name:28} {value}")


if __name__ == "__main__":
    main()
