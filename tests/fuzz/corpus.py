"""Real files to damage: small films of every common codec and container, made once a run."""

import os
import shutil
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av

from pipeline.backends.encode_ffmpeg import write_clip
from tests.fixtures import bombs
from tests.fixtures.media import moving_pictures

_FAST = {"preset": "ultrafast", "bf": "2"}
_FILMS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("h264.mp4", "libx264", _FAST),
    ("fragments.mp4", "libx264", _FAST),
    ("h264.mkv", "libx264", _FAST),
    ("h264.ts", "libx264", _FAST),
    ("h264.flv", "libx264", {"preset": "ultrafast", "bf": "0"}),
    ("hevc.mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("hevc.ts", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    ("vp9.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("vp8.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
    ("av1.mp4", "libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
    ("mpeg2.mpg", "mpeg2video", {}),
    ("mpeg4.avi", "mpeg4", {}),
    ("mjpeg.avi", "mjpeg", {}),
    ("mjpeg.mov", "mjpeg", {}),
)


def make(folder: Path) -> list[Path]:
    """The films, written to ``folder`` unless they are there; a codec that this FFmpeg cannot write is left
    out."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder writes to stderr itself
    made = []
    for name, codec, options in _FILMS:
        path = folder / name
        if not path.exists():
            if codec not in av.codecs_available:
                continue
            part = folder / f"part-{name}"
            fragments = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("fragments") else None
            format_ = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            write_clip(
                part, islice(moving_pictures(30, 96, 64), 30), rate=Fraction(10), gop=10, codec=codec,
                pixel_format=format_, options=options, container_options=fragments,
            )  # fmt: skip
            shutil.move(part, path)
        made.append(path)
    png = folder / "png.mov"
    if not png.exists():
        bombs.png_bomb(png, 64, 64)
    return [*made, png]
