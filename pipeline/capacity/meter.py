"""What a stream's own pictures cost on this machine: CPU milliseconds, measured one stream at a time."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from pipeline.backends.registry import open_decoder
from pipeline.capacity.demand import Choice
from pipeline.errors import DecodeError
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.frames import InputSpec
from pipeline.flow.source import Packet, StreamInfo

STILLS, FED, CONVERSIONS = 3, 30, 3
"""Pictures measured of a stream, at most."""
STREAM_S = 0.5
"""CPU that measuring one stream may take; what it has begun it ends."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU ms: of a keyframe, of another picture fed, of converting one for all models; None: not measured."""

    still_ms: float | None = None
    fed_ms: float | None = None
    convert_ms: float | None = None


@dataclass
class Meter:
    """Measures streams as long as ``left_s`` seconds of CPU last; then says nothing more. Thread-safe."""

    left_s: float
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def measure(
        self, info: StreamInfo, packets: Sequence[Packet], choice: Choice, specs: Iterable[InputSpec]
    ) -> Costs:
        """Decode and convert a few of a stream's pictures.

        :raises SourceUnsupported: there is no decoder for its codec."""
        with self._lock:
            decoder = open_decoder(info)
            try:
                if self.left_s <= 0:
                    return Costs()
                begun = time.thread_time()
                costs = _measure(decoder, packets, choice, list(specs))
                self.left_s -= time.thread_time() - begun
                return costs
            finally:
                decoder.close()


def _measure(
    decoder: Decoder, packets: Sequence[Packet], choice: Choice, specs: Sequence[InputSpec]
) -> Costs:
    keys = [packet for packet in packets if packet.keyframe and not packet.damaged][:STILLS]
    begun, spent, picture = time.thread_time(), [], None
    for number, key in enumerate([*keys[:1], *keys]):
        started = time.thread_time()
        try:
            picture = decoder.still(key) or picture
        except DecodeError:
            continue
        if number:  # the first time sets up a context, which is kept
            spent.append(time.thread_time() - started)
        if time.thread_time() - begun > STREAM_S:
            break
    fed = _feed(decoder, packets, choice)
    return Costs(
        still_ms=1e3 * fmean(spent) if spent else None,
        fed_ms=fed,
        convert_ms=_convert(picture, specs) if picture is not None else None,
    )


def _feed(decoder: Decoder, packets: Sequence[Packet], choice: Choice) -> float | None:
    """CPU ms of a picture that is fed, the keyframe before it left out."""
    first = next((at for at, packet in enumerate(packets) if packet.keyframe), None)
    if first is None:
        return None
    count, spent = 0, 0.0
    decoder.reset()
    for packet in packets[first : first + 1 + FED]:
        started = time.thread_time()
        try:
            for _ in decoder.decode(packet, wanted=packet.keyframe or choice.plan != "skip"):
                pass
        except DecodeError:
            break
        if not packet.keyframe:
            count, spent = count + 1, spent + time.thread_time() - started
        if spent > STREAM_S:
            break
    decoder.reset()
    return 1e3 * spent / count if count else None


def _convert(picture: Picture, specs: Sequence[InputSpec]) -> float | None:
    """CPU ms of the conversions for all models."""
    from pipeline.backends.frames_numpy import convert

    total = 0.0
    for spec in specs:
        slot = np.empty(spec.slot_shape(), np.float32)
        try:
            convert(picture, spec, slot)
            started = time.thread_time()
            for _ in range(CONVERSIONS):
                convert(picture, spec, slot)
        except DecodeError:
            return None
        total += (time.thread_time() - started) / CONVERSIONS
    return 1e3 * total
