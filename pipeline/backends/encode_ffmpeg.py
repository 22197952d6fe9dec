"""Pictures to a video file, by PyAV's encoders: for tests, samples and benchmark material."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
"""Shape (height, width, 3), 0..255, RGB."""


FAST = {
    "libx264": {"preset": "veryfast", "sc_threshold": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0:open-gop=0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
"""Encoder options that cost little time and place keyframes only where ``gop`` says."""


def write_clip(
    path: Path | str,
    pictures: Iterable[Rgb],
    *,
    rate: float | Fraction = 30,
    gop: int = 60,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    bit_rate: int | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    full_range: bool = False,
) -> Path:
    """Encode ``pictures`` (all of one size) at ``rate`` a second with a keyframe every ``gop`` pictures.

    ``container`` is FFmpeg's name when the suffix does not tell it. ``options`` go to the encoder,
    ``container_options`` to the muxer; scene cuts make no keyframe of their own unless the options say so.
    Colours are BT.709, limited range unless ``full_range``. The pictures are consumed one by one. Returns
    ``path``."""
    path = Path(path)
    settings = {**FAST.get(codec, {}), **(options or {})}
    with (
        _own_priority(),
        av.open(str(path), "w", format=container, options=dict(container_options or {})) as output,
    ):
        stream = None
        scaler = VideoReformatter()  # one for all pictures: to set one up takes as long as its work on one
        for picture in pictures:
            if stream is None:
                height, width = picture.shape[:2]
                exact = Fraction(rate).limit_denominator(1001)
                stream = cast(VideoStream, output.add_stream(codec, rate=exact, options=settings))
                stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
                stream.gop_size = gop
                if bit_rate is not None:
                    stream.bit_rate = bit_rate
                stream.codec_context.color_range = 2 if full_range else 1
                stream.codec_context.colorspace = 1
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = scaler.reformat(
                frame,
                format=pixel_format,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
            )
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode())
    return path


@contextmanager
def _own_priority() -> Iterator[None]:
    """Leave this thread as it was: libsvtav1, when root runs it, puts its caller before everything else on
    the machine (SCHED_FIFO, 99), for good, and every process that is started after inherits that."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
