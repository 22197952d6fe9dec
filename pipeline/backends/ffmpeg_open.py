"""Opening a source with PyAV: what may be opened, by which demuxer, with which options and deadline."""

import functools
import os
import ssl
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.backends.ffmpeg_errors import READABLE, map_errors, oversized, redirected, silence_logs
from pipeline.backends.http_socket import Deadline
from pipeline.backends.mp4_check import check_file, check_index
from pipeline.backends.rtsp_redirect import after_redirects
from pipeline.backends.source_http import Http
from pipeline.errors import (
    SourceCorrupt,
    SourceError,
    SourceNotFound,
    SourceRefused,
    SourceUnsupported,
)
from pipeline.flow.source import Kind
from pipeline.inputs import Reach, local_path, split_url
from pipeline.limits import Limits
from pipeline.masking import mask_url

Transport = Literal["tcp", "udp"]
Pace = Literal["asap", "realtime"]

SRT_CURE = (
    "this build of FFmpeg has no SRT; receive it with a media server (MediaMTX, for one) and read its RTSP, "
    "or install PyAV against an FFmpeg built with libsrt"
)
PROTOCOLS = ("file", "http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt")
# Containers of pictures and sound. Playlists of local files and descriptions of devices and networks (concat,
# sdp, hls …) are not among them: an upload must not name what else is read.
_CONTAINERS = ",".join(
    (
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,live_flv,asf,asf_o,ogg,mxf,mxf_opatom",
        "h264,hevc,vvc,av1,obu,ivf,m4v,mpegvideo,dv,nut,rm,wtv,gxf,vc1,vc1test,gif,apng,mjpeg,mjpeg_2000",
        "yuv4mpegpipe,nsv,3dostr,swf,dirac,evc,cavsvideo,h261,h263,mp3,aac,wav,flac,w64,aiff,ac3,eac3",
    )
)
_ROTATED = ("mov", "matroska")  # FFmpeg's names of containers that may carry a rotation
_NO_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_HTTP_FRAGMENTS = 8  # each may cost a request
_ANALYSE_US = 3_000_000  # media that is read ahead to learn the codec's parameters, at most


@dataclass(frozen=True)
class SourceSettings:
    """What to open and how. ``url`` may hold credentials, so it is in no ``repr``.

    ``kind`` ``live`` on the network means that an end is a lost connection. ``open_timeout_s`` bounds
    everything up to the first packet, ``read_timeout_s`` the wait for each one (for HLS: at least three
    segments); of a local file each is bounded by ``limits.open_s``. ``pace`` ``realtime`` gives packets when
    they are due. ``tls_ca`` is a file of authorities, in place of the system's own."""

    url: str = field(repr=False)
    kind: Kind
    transport: Transport = "tcp"
    open_timeout_s: float = 5.0
    read_timeout_s: float = 5.0
    pace: Pace = "asap"
    reach: Reach = field(default_factory=Reach)
    tls_ca: str | None = None
    tls_verify: bool = True
    limits: Limits = field(default_factory=Limits)

    @property
    def shown(self) -> str:
        """The URL as it may be shown."""
        return (
            mask_url(self.url).encode("utf-8", "backslashreplace").decode()
        )  # a file's name may be any bytes


@dataclass
class Opened:
    """An open container and what bounds its waits; ``rotation`` is in degrees clockwise, ``oversized`` the
    size of a picture that was too large to learn anything from it."""

    container: InputContainer
    deadline: Deadline
    http: Http | None = None
    rotation: int = 0
    oversized: str | None = None

    def close(self) -> None:
        """Hang up. Harmless to repeat."""
        self.container.close()
        if self.http is not None:
            self.http.close()


def open_container(
    settings: SourceSettings, *, stop: threading.Event, monotonic: Callable[[], float] = time.monotonic
) -> Opened:
    """:raises SourceError: of the class that says why not."""
    silence_logs()
    path = local_path(settings.url)
    return _open_file(path, settings, monotonic) if path else _open_remote(settings, stop, monotonic)


def probe_protocols() -> dict[str, bool]:
    """Which of ``PROTOCOLS`` this FFmpeg can read. Opens no connection: a whitelist stops it before it
    would."""
    silence_logs()
    can = {name: _has_protocol(name) for name in (*PROTOCOLS, "tcp", "tls")}
    rtsp = "rtsp" in av.formats_available
    return {name: can[name] for name in PROTOCOLS} | {
        "rtsp": rtsp and can["tcp"],
        "rtsps": rtsp and can["tcp"] and can["tls"],
    }


def _open_file(path: Path, settings: SourceSettings, monotonic: Callable[[], float]) -> Opened:
    _check_file(path, settings)
    check_file(path, settings.shown, settings.limits)
    deadline = Deadline(settings.limits.open_s, monotonic)
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS} | _bounds(settings.limits)
    name = f"file:{path}"  # so that a colon in a file's name is not taken for a protocol
    waits = _timeouts(deadline)
    with map_errors(settings.shown, deadline, remote=False, limits=settings.limits) as lines:
        container = av.open(name, options=options, timeout=waits, metadata_errors="replace")
        rotation = 0
        if container.format.name.split(",")[0] in _ROTATED:
            with av.open(name, options=options, timeout=waits, metadata_errors="replace") as second:
                rotation = _rotation(second, settings.limits)
    return Opened(container, deadline, rotation=rotation, oversized=oversized(lines))


def _bounds(limits: Limits) -> dict[str, str]:
    """What FFmpeg enforces itself, while it opens and while it looks at the first pictures."""
    return {
        "max_streams": str(limits.tracks),
        "max_pixels": str(limits.picture_pixels),
        "probesize": str(limits.probe_bytes),
    }


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


def _open_remote(settings: SourceSettings, stop: threading.Event, monotonic: Callable[[], float]) -> Opened:
    scheme, shown = split_url(settings.url).scheme, settings.shown
    if scheme not in PROTOCOLS:
        raise SourceUnsupported(f"{shown}: scheme {scheme!r} is not supported; use one of {READABLE}")
    if not _has_protocol(scheme) and not scheme.startswith("rtsp"):
        cure = SRT_CURE if scheme == "srt" else f"this build of FFmpeg has no {scheme}; use one of {READABLE}"
        raise SourceUnsupported(f"{shown}: {cure}")
    settings.reach.admit(settings.url)
    deadline = Deadline(min(settings.open_timeout_s, settings.limits.open_s), monotonic)
    if scheme in ("http", "https"):
        return _open_http(settings, deadline, stop)
    url, rtsp = settings.url, scheme.startswith("rtsp")
    if rtsp:
        url = after_redirects(settings, deadline, stop)
    options = _stream_options(settings, scheme) | _bounds(settings.limits)
    with map_errors(shown, deadline, remote=True, limits=settings.limits) as lines:
        container = av.open(
            url,
            format="rtsp" if rtsp else None,
            options=options,
            timeout=_timeouts(deadline),
            metadata_errors="replace",
        )
    if rtsp and (led := redirected(lines)) is not None:  # it answered otherwise when it was asked before
        container.close()
        raise SourceRefused(f"{shown}: led FFmpeg to {mask_url(led)} after it had not led us there")
    return Opened(container, deadline, oversized=oversized(lines))


def _stream_options(settings: SourceSettings, scheme: str) -> dict[str, str]:
    options = {
        "analyzeduration": str(min(_ANALYSE_US, int(settings.open_timeout_s * 0.6e6))),
        # Bounds what PyAV's own timeout does not: the farewell when a session is closed.
        ("timeout" if scheme.startswith("rtsp") else "rw_timeout"): str(int(settings.read_timeout_s * 1e6)),
    }
    if scheme.startswith("rtsp"):
        options |= {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
        options["fpsprobesize"] = "2"  # by default 20 pictures are waited for: two seconds of a slow camera
    if scheme in ("rtsps", "rtmps"):
        ca = settings.tls_ca or ssl.get_default_verify_paths().cafile
        options |= {"tls_verify": "1" if settings.tls_verify else "0"} | ({"ca_file": ca} if ca else {})
    return options


def _open_http(settings: SourceSettings, deadline: Deadline, stop: threading.Event) -> Opened:
    http = Http(
        settings.url,
        reach=settings.reach,
        deadline=deadline,
        stop=stop,
        tls_ca=settings.tls_ca,
        tls_verify=settings.tls_verify,
        limits=settings.limits,
    )
    try:
        container, large = _open_first(http, settings, deadline)
        return Opened(container, deadline, http, oversized=large)
    except SourceError as error:
        http.close()
        raise (http.error or http.missed or error) from error


def _open_first(
    http: Http, settings: SourceSettings, deadline: Deadline
) -> tuple[InputContainer, str | None]:
    first = http.open_first()
    options = {"analyzeduration": str(_ANALYSE_US), "format_whitelist": _CONTAINERS}
    options |= _bounds(settings.limits)
    if first.ranges and first.size is not None and not first.is_playlist:
        check_index(first, first.size, settings.shown, settings.limits, fragments=_HTTP_FRAGMENTS)
        first.seek(0)
        if http.error is not None:
            raise http.error
    if first.is_playlist:
        # Which URLs a playlist may name is judged by Http; their file names say nothing.
        options |= {"allowed_extensions": "ALL", "extension_picky": "0"}
        options |= {"http_persistent": "0", "http_multiple": "0", "format_whitelist": f"{_CONTAINERS},hls"}
    with map_errors(settings.shown, deadline, remote=True, limits=settings.limits) as lines:
        container = av.open(
            first.plain_url,
            format="hls" if first.is_playlist else None,
            options=options,
            timeout=_timeouts(deadline),
            metadata_errors="replace",
            io_open=http.io_open,
        )
    return container, oversized(lines)


def _timeouts(deadline: Deadline) -> tuple[float, float]:
    """PyAV reads its two timeouts anew for each step, as numbers: so one deadline bounds connecting, probing
    and, restarted, every read."""
    number = cast(float, deadline)
    return number, number


def has_pictures(stream: VideoStream) -> bool:
    """A stream of moving pictures, not a cover or thumbnails."""
    return not stream.disposition & _NO_PICTURES


def context_of(stream: VideoStream) -> Any:
    return stream.codec_context  # None for a codec without a decoder, whatever the type says


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


@functools.cache
def _has_protocol(name: str) -> bool:
    with av.logging.Capture():
        try:
            av.open(f"{name}://framewarden", options={"protocol_whitelist": "none"}).close()
        except av.error.ProtocolNotFoundError:
            return False
        except av.FFmpegError:
            return True
    return True
