"""libavcodec alone, to be measured against and to know what demuxing and decoding cost by themselves.

``decode`` is what anyone would do, with libavcodec's defaults: a peer. ``demux`` and ``stills`` are parts of
the limit: the work of the service, and nothing around it.

    python -m pipeline.backends.peer_ffmpeg keyframes|full FILE SECONDS

reads up to SECONDS of the file and decodes its keyframes or all of it on one thread, without resize or model.
Prints JSON: packets ``read``, ``pictures`` decoded, ``seconds`` of media."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import av
from av.container import InputContainer

from pipeline.backends.software_contexts import Parameters
from pipeline.flow.decode import Picture

OVER_TCP = {"rtsp_transport": "tcp"}


@dataclass(slots=True)
class Read:
    """What was read: number of packets and pictures, seconds of media; CPU seconds it took, once open."""

    packets: int = 0
    pictures: int = 0
    seconds: float = 0.0
    spent_s: float = 0.0


@dataclass(slots=True)
class Stills:
    """Keyframes decoded one by one. ``spent_s``: CPU seconds of each; ``kept``: pictures of some of them."""

    spent_s: list[float] = field(default_factory=list)
    kept: list[Picture] = field(default_factory=list)


def demux(path: str, seconds: float) -> Read:
    """Read the video packets of a file or an RTSP stream, and nothing more."""
    read = Read()
    with av.open(path, options=OVER_TCP if path.startswith("rtsp:") else {}) as container:
        begun = time.process_time()
        for _ in _packets(container, seconds, read):
            pass
        read.spent_s = time.process_time() - begun
    return read


def stills(path: str, seconds: float, *, keep: int, most: int = 30) -> Stills:
    """Decode keyframes in the first ``seconds`` of the file, some ``most`` of them at most, evenly spread;
    keep the pictures of the first ``keep``.

    With the context that the service decodes a keyframe with, so a large one is not deblocked here either. It
    stays open: what opening costs is not counted."""
    done = Stills()
    next_s: float | None = None
    with av.open(path) as container:
        told = container.streams.video[0].codec_context
        extradata = bytes(told.extradata or b"")
        context = Parameters(told.name, extradata, told.width, told.height).open(alone=True)
        for packet in _packets(container, seconds, Read()):
            at_s = float(packet.pts * packet.time_base)
            if not packet.is_keyframe or (next_s is not None and at_s < next_s):
                continue
            next_s = (at_s if next_s is None else next_s) + seconds / most
            begun = time.thread_time()
            frames = [*context.decode(packet), *context.decode(None)]
            done.spent_s.append(time.thread_time() - begun)
            context.flush_buffers()
            if frames and len(done.kept) < keep:
                frame = frames[0]
                done.kept.append(Picture(frame.time or 0.0, frame.width, frame.height, 0.0, 0, frame))
    return done


def decode(path: str, seconds: float, *, keyframes: bool) -> Read:
    """Decode up to ``seconds`` of the file, deblocked: all of it, or the keyframes only."""
    read = Read()
    with av.open(path) as container:
        context = container.streams.video[0].codec_context
        context.thread_count, context.thread_type = 1, "NONE"
        for packet in _packets(container, seconds, read):
            if packet.is_keyframe or not keyframes:
                read.pictures += len(context.decode(packet))
        read.pictures += len(context.decode(None))
    return read


def library() -> str:
    """The version of libavcodec."""
    return ".".join(map(str, av.library_versions["libavcodec"]))


def _packets(container: InputContainer, seconds: float, read: Read) -> Iterator[Any]:
    """Video packets up to ``seconds`` after the first; ``read`` counts them and their media time."""
    first: float | None = None
    for packet in container.demux(container.streams.video[0]):
        if packet.pts is None or packet.time_base is None:
            continue
        time_s = float(packet.pts * packet.time_base)
        first = time_s if first is None else first
        if time_s - first >= seconds:
            return
        read.packets += 1
        read.seconds = max(read.seconds, time_s - first + float((packet.duration or 0) * packet.time_base))
        yield packet


def main(what: str, path: str, seconds: str) -> None:
    """Print what was read and decoded."""
    read = decode(path, float(seconds), keyframes=what == "keyframes")
    print(json.dumps({"read": read.packets, "pictures": read.pictures, "seconds": read.seconds}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
