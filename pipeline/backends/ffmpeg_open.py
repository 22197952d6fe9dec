"""Opening a source with PyAV: a local file here, all else by ``ffmpeg_remote``."""

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import av.logging
from av.container import InputContainer

from pipeline.backends.ffmpeg_errors import map_errors, oversized, silence_logs
from pipeline.backends.ffmpeg_remote import open_remote
from pipeline.backends.ffmpeg_settings import CONTAINERS, Opened, SourceSettings, bounds, timeouts
from pipeline.backends.ffmpeg_video import context_of, has_pictures
from pipeline.backends.http_socket import Deadline
from pipeline.backends.mp4_check import check_file
from pipeline.errors import (
    SourceCorrupt,
    SourceNotFound,
    SourceRefused,
    SourceUnsupported,
)
from pipeline.inputs import local_path
from pipeline.limits import Limits

_ROTATED = ("mov", "matroska")  # FFmpeg's names of containers that may carry a rotation


def open_container(
    settings: SourceSettings, *, stop: threading.Event, monotonic: Callable[[], float] = time.monotonic
) -> Opened:
    """:raises SourceError: of the class that says why not."""
    silence_logs()
    path = local_path(settings.url)
    return _open_file(path, settings, monotonic) if path else open_remote(settings, stop, monotonic)


def _open_file(path: Path, settings: SourceSettings, monotonic: Callable[[], float]) -> Opened:
    _check_file(path, settings)
    upright = check_file(path, settings.shown, settings.limits)
    deadline = Deadline(settings.limits.open_s, monotonic)
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS} | bounds(settings.limits)
    name = f"file:{path}"  # so that a colon in a file's name is not taken for a protocol
    waits = timeouts(deadline)
    with map_errors(settings.shown, deadline, remote=False, limits=settings.limits) as lines:
        container = av.open(name, options=options, timeout=waits, metadata_errors="replace")
        rotation = 0
        if container.format.name.split(",")[0] in _ROTATED and not upright:
            with av.open(name, options=options, timeout=waits, metadata_errors="replace") as second:
                rotation = _rotation(second, settings.limits)
    return Opened(container, deadline, rotation=rotation, oversized=oversized(lines))


def _check_file(path: Path, settings: SourceSettings) -> None:
    shown = settings.shown
    try:
        settings.reach.admit_path(path)
        found = path.stat()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise SourceNotFound(f"{shown}: no such file") from error
    except OSError as error:
        raise SourceRefused(f"{shown}: may not be read ({error.strerror})") from error
    if stat.S_ISDIR(found.st_mode):
        raise SourceUnsupported(f"{shown}: is a folder; a source is one file of it")
    if not stat.S_ISREG(found.st_mode):
        raise SourceUnsupported(f"{shown}: is not a regular file")
    if not os.access(path, os.R_OK):
        raise SourceRefused(f"{shown}: may not be read; check its permissions")
    if found.st_size == 0:
        raise SourceCorrupt(f"{shown}: is empty")


def _rotation(container: InputContainer, limits: Limits) -> int:
    """Degrees clockwise to apply for display. PyAV tells it of pictures only, so the first one is decoded, by
    a container of its own: no decoder stays behind."""
    for stream in container.streams.video:
        if not has_pictures(stream) or context_of(stream) is None:
            continue
        stream.codec_context.options = {"max_pixels": str(limits.picture_pixels)}
        try:
            for frame in container.decode(stream):
                return clockwise(frame.rotation)
        except av.FFmpegError:
            return 0  # a damaged first picture: the session will tell
    return 0


def clockwise(rotation: float) -> int:
    """Quarter turns clockwise, in degrees, of a display matrix's angle (counter-clockwise); 0 for one that is
    no rotation at all."""
    return round(-rotation / 90) * 90 % 360 if -180 <= rotation <= 180 else 0
