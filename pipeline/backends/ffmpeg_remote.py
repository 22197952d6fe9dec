"""Opening what is on the network: by FFmpeg's own protocols, or by Python for http(s)."""

import functools
import ssl
import threading
from collections.abc import Callable

import av
import av.logging
from av.container import InputContainer

from pipeline.backends.ffmpeg_errors import READABLE, map_errors, oversized, redirected, silence_logs
from pipeline.backends.ffmpeg_settings import CONTAINERS, Opened, SourceSettings, bounds, timeouts
from pipeline.backends.http_socket import Deadline
from pipeline.backends.mp4_check import check_index
from pipeline.backends.rtsp_redirect import after_redirects
from pipeline.backends.source_http import Http
from pipeline.errors import SourceError, SourceRefused, SourceUnsupported
from pipeline.inputs import split_url
from pipeline.masking import mask_url

SRT_CURE = (
    "this build of FFmpeg has no SRT; receive it with a media server (MediaMTX, for one) and read its RTSP, "
    "or install PyAV against an FFmpeg built with libsrt"
)
PROTOCOLS = ("file", "http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt")
_HTTP_FRAGMENTS = 8  # each may cost a request
_ANALYSE_US = 3_000_000  # media that is read ahead to learn the codec's parameters, at most


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


def open_remote(settings: SourceSettings, stop: threading.Event, monotonic: Callable[[], float]) -> Opened:
    """:raises SourceError: of the class that says why not."""
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
    options = _stream_options(settings, scheme) | bounds(settings.limits)
    with map_errors(shown, deadline, remote=True, limits=settings.limits, greeting=scheme) as lines:
        container = av.open(
            url,
            format="rtsp" if rtsp else None,
            options=options,
            timeout=timeouts(deadline, _Opening(deadline, settings.answered)),
            metadata_errors="replace",
        )
    if rtsp and (led := redirected(lines)) is not None:  # it answered otherwise when it was asked before
        container.close()
        raise SourceRefused(f"{shown}: led FFmpeg to {mask_url(led)} after it had not led us there")
    return Opened(container, deadline, oversized=oversized(lines))


class _Opening:
    """The deadline of opening, as PyAV asks for it: once to connect, and again to look at the first pictures.
    Then the server has answered."""

    def __init__(self, deadline: Deadline, answered: Callable[[], None]) -> None:
        self._deadline = deadline
        self._answered = answered
        self._asked = 0

    def __float__(self) -> float:
        self._asked += 1
        if self._asked == 2:
            self._answered()
        return float(self._deadline)


def _stream_options(settings: SourceSettings, scheme: str) -> dict[str, str]:
    options = {
        "analyzeduration": str(min(_ANALYSE_US, int(settings.open_timeout_s * 0.6e6))),
        "fpsprobesize": "2",  # by default 20 pictures are waited for: two seconds of a slow camera
        # Bounds what PyAV's own timeout does not: the farewell when a session is closed.
        ("timeout" if scheme.startswith("rtsp") else "rw_timeout"): str(int(settings.read_timeout_s * 1e6)),
    }
    if scheme.startswith("rtsp"):
        options |= {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
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
    options = {"analyzeduration": str(_ANALYSE_US), "format_whitelist": CONTAINERS}
    options |= bounds(settings.limits)
    if first.ranges and first.size is not None and not first.is_playlist:
        check_index(first, first.size, settings.shown, settings.limits, fragments=_HTTP_FRAGMENTS)
        first.seek(0)
        if http.error is not None:
            raise http.error
    if first.is_playlist:
        # Which URLs a playlist may name is judged by Http; their file names say nothing.
        options |= {"allowed_extensions": "ALL", "extension_picky": "0"}
        options |= {"http_persistent": "0", "http_multiple": "0", "format_whitelist": f"{CONTAINERS},hls"}
    with map_errors(settings.shown, deadline, remote=True, limits=settings.limits) as lines:
        container = av.open(
            first.plain_url,
            format="hls" if first.is_playlist else None,
            options=options,
            timeout=timeouts(deadline),
            metadata_errors="replace",
            io_open=http.io_open,
        )
    return container, oversized(lines)


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
