"""What a stream needs: which sampling plan it will have, and what that costs. Pure arithmetic."""

from dataclasses import dataclass
from math import floor
from typing import Literal

from pipeline.backends.nvdec_memory import budget_mb
from pipeline.capacity.figures import Basis
from pipeline.flow.ring import LAG_S
from pipeline.flow.sample_rules import TOLERANCE, SamplingRules

Planned = Literal["keyframes", "skip", "full"]

FULL_HD = 1920 * 1080
DUE = tuple(0.6 + 0.4 * (step + 0.5) / 200 for step in range(200))
"""The sampler draws when the next sample is due from U(0.6, 1.0) of the gap."""
MEAN_DUE = 0.8
CONTEXT_1080P_MB = 15.0
THREAD_MB = 2.0
"""A reader's stack, sockets and demuxer."""
SERVICE_MS = 2.0
"""CPU a stream-second of what is not decode, conversion or engine: segments, coverage, outbox, status."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a probe saw of a stream. ``gop_s`` is the longest distance between two keyframes, None when fewer
    came in the ``watched_s`` seconds of stream time. ``bits`` are a second's. ``remote``: it comes over the
    network. ``read_ms`` is CPU a stream-second for demuxing and sampling, ``still_ms`` a keyframe's,
    ``fed_ms`` that of each other picture under its plan, ``convert_ms`` that of one picture for all its
    models together; None where it was not measured."""

    codec: str
    width: int
    height: int
    fps: float
    gop_s: float | None
    watched_s: float
    keyframe_bytes: float
    bits: float
    remote: bool
    read_ms: float | None = None
    still_ms: float | None = None
    fed_ms: float | None = None
    convert_ms: float | None = None

    @property
    def full_hd(self) -> float:
        """Its picture's size as a share of 1920 x 1080."""
        return self.width * self.height / FULL_HD


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan that the sampler will settle on, and why. ``sure`` is False where the probe was too short."""

    plan: Planned
    why: str
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Rates:
    """Pictures a second: keyframes decoded alone, pictures fed to the decoder, pictures scored."""

    stills: float
    fed: float
    samples: float

    @property
    def decoded(self) -> float:
        """Pictures a second that the decoder sees."""
        return self.stills + self.fed


def choose(rules: SamplingRules, gop_s: float | None, watched_s: float) -> Choice:
    """What ``flow/sample.py`` comes to with keyframes ``gop_s`` apart (None: none followed the first within
    ``watched_s`` seconds)."""
    if rules.plan != "auto":
        return Choice(rules.plan, "set in the config")
    limit = rules.max_gap_s * TOLERANCE
    if gop_s is not None and gop_s <= limit:
        return Choice("keyframes", f"a keyframe every {gop_s:.3g} s keeps the gap")
    if gop_s is not None or watched_s > limit:
        return Choice("skip", f"keyframes come less often than every {rules.max_gap_s:g} s")
    return Choice("keyframes", "too little was seen to tell", sure=False)


def interval_s(rules: SamplingRules, gop_s: float) -> float:
    """Mean seconds between samples of the plan keyframes: of the keyframes that keep the gap, the one nearest
    to the time that is due."""
    most = floor((rules.max_gap_s * TOLERANCE - 1e-6) / gop_s)
    if most <= 1:
        return gop_s
    taken = [min(most, max(1, round(due * rules.max_gap_s / gop_s))) for due in DUE]
    return gop_s * sum(taken) / len(taken)


def rates(rules: SamplingRules, choice: Choice, seen: Seen) -> Rates:
    """Pictures a second of a stream in which nothing is suspected. An audit feeds half a GOP on average."""
    if choice.plan != "keyframes":
        return Rates(0.0, seen.fps, min(seen.fps, 1 / (MEAN_DUE * rules.max_gap_s)))
    gop_s = seen.gop_s or rules.max_gap_s
    stills = 1 / interval_s(rules, gop_s)
    audits = stills * rules.audit
    return Rates(stills, audits * (1 + gop_s * seen.fps / 2), stills + audits)


@dataclass(frozen=True, slots=True)
class CpuCost:
    """CPU milliseconds: ``still`` a keyframe, ``fed`` a picture, ``convert`` and ``engine`` a scored picture
    (all its models), ``read`` a stream-second; and where they come from."""

    read: float
    still: float
    fed: float
    convert: float
    engine: float
    basis: Basis

    def decode_cores(self, rate: Rates) -> float:
        """Cores for reading and decoding."""
        return (self.read + rate.stills * self.still + rate.fed * self.fed) / 1e3

    def engine_cores(self, rate: Rates) -> float:
        """Cores for conversion and engine."""
        return rate.samples * (self.convert + self.engine) / 1e3


def held_mb(rules: SamplingRules, seen: Seen) -> float:
    """MB of encoded packets that are kept to look back at: whole GOPs over the gap and a little, twice (the
    ring's and the sampler's lists share the packets, but a GOP begun counts whole)."""
    gop_s = seen.gop_s or max(seen.watched_s, rules.max_gap_s)
    return seen.bits / 8e6 * (rules.max_gap_s + LAG_S + gop_s)


def host_mb(rules: SamplingRules, choice: Choice, seen: Seen, slot_mb: float, *, software: bool) -> float:
    """MB of main memory: packets, the reader, its slot in each pool, and with ``software`` a decoder that is
    kept open where pictures are fed (keyframes borrow one of a few)."""
    own = software and choice.plan != "keyframes"
    context = CONTEXT_1080P_MB * max(seen.full_hd, 0.1) if own else 0.0
    return held_mb(rules, seen) + THREAD_MB + context + (slot_mb if software else 0.0)


def surfaces_mb(seen: Seen) -> float:
    """MB of GPU memory for a decoder's surfaces: what the decoder is admitted with until it was measured."""
    return budget_mb(seen.width, seen.height)


def nvdec_share(rate: Rates, seen: Seen, pictures_1080p: float) -> float:
    """Share of the card's decoders: work grows with the number of pixels, and a small picture costs at least
    a quarter of a full-HD one."""
    return rate.decoded * max(0.25, seen.full_hd) / pictures_1080p
