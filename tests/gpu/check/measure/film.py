"""The film that is decoded: 1080p30 H.264 of 3 Mbit/s, a keyframe every 2 s, made once from a fixed seed."""

import threading
from pathlib import Path

from pipeline.backends.annexb import Framing
from pipeline.backends.join_ffmpeg import join_clips
from pipeline.backends.source_ffmpeg import SourceSettings, open_source
from pipeline.bench import material
from pipeline.flow.source import Packet, StreamInfo

FOLDER = Path(__file__).resolve().parents[4] / "bench-out"
TURN_S = 20.0


def film() -> Path:
    """20 s of it."""
    return material.make(material.ORDINARY, FOLDER, seconds=TURN_S)


def longer(times: int) -> Path:
    """The same film, several times over."""
    target = FOLDER / f"{material.ORDINARY.name}-{round(TURN_S)}s-x{times}.mp4"
    return target if target.exists() else join_clips([film()] * times, target)


def packets() -> tuple[StreamInfo, list[Packet]]:
    """All of its packets, in memory."""
    settings = SourceSettings(url=str(film()), kind="file")
    with open_source(settings, stop=threading.Event()) as source:
        return source.info, list(source)


def annex_b(info: StreamInfo, found: list[Packet]) -> list[bytes]:
    """The packets as NVDEC's parser takes them."""
    framing = Framing.of(info.codec, bytes(info.codec_parameters.extradata or b""))
    return [framing.annex_b(bytes(packet.data), packet.keyframe) for packet in found]
