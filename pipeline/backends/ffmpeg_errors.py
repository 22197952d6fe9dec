"""FFmpeg's errors and log lines, turned into ``pipeline.errors``; nothing of them reaches stderr."""

import errno
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import av
import av.logging

from pipeline.backends.http_socket import TLS_CURE, Deadline
from pipeline.backends.mp4_check import too_many_tracks
from pipeline.errors import (
    SourceAuth,
    SourceCorrupt,
    SourceError,
    SourceNotFound,
    SourceNoVideo,
    SourceRefused,
    SourceTimeout,
    SourceTls,
    SourceUnsupported,
)
from pipeline.limits import Limits
from pipeline.masking import mask_text

READABLE = "rtsp, rtsps, rtmp, rtmps, http, https and file"
Lines = list[tuple[int, str, str]]
"""What FFmpeg logged: level, component, text."""
QUIET = -8  # AV_LOG_QUIET
_OVERSIZED = re.compile(r"Picture size (\d+x\d+) (?:exceeds specified max pixel count|is invalid)")
_NAME = re.compile(r"\S*:/\S*|(?<!\S)/\S+")
"""A URL or a path, in which any word may stand: a port of 40199 is no status 401."""
_REDIRECTED = re.compile(r"Status \d+: Redirecting to (\S+)")
_HUNG_UP = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
_NETWORK = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EIO)


def silence_logs() -> None:
    """Keep FFmpeg's lines away from stderr; process-wide, harmless to repeat."""
    logger = logging.getLogger("libav")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    av.logging.set_skip_repeated(False)
    av.logging.set_libav_level(QUIET)


class _Listeners:
    """Has FFmpeg tell only while somebody listens, in whichever thread.

    It has something to tell of every packet, in a call that takes the interpreter's lock only to drop the
    line: a hundred readers would wait for each other at that. FFmpeg's own callback, told to be quiet, takes
    no lock. PyAV's level stays: a thread may be on its way into PyAV's callback, which fails without one."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._add(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._add(-1)

    def _add(self, change: int) -> None:
        with self._lock:
            self._count += change
            if self._count:
                av.logging.set_level(av.logging.INFO)  # it tells where a server led it
            else:
                av.logging.restore_default_callback()


_listening = _Listeners()


@contextmanager
def map_errors(
    shown: str, deadline: Deadline, *, remote: bool, limits: Limits, greeting: str = ""
) -> Iterator[Lines]:
    """Any FFmpeg error of the block becomes a ``SourceError`` whose text starts with ``shown``, already
    masked. Gives FFmpeg's log lines. ``greeting`` is the protocol in which a session is opened: what cannot
    be understood is then the server's answer, and no film.

    What FFmpeg calls the end of a blocking step that ran out of time differs by protocol (an exit, bad data,
    an I/O error), so the clock decides what was a timeout."""
    with _listening, av.logging.Capture() as lines:
        try:
            yield lines
        except av.FFmpegError as error:
            told = " ".join(line[2].strip() for line in lines if line[0] <= av.logging.ERROR)
            if isinstance(error, av.error.ExitError | av.error.TimeoutError) or (
                remote and deadline.left() <= 0
            ):
                raise SourceTimeout(f"{shown}: no answer within {deadline.seconds:g} s") from error
            if isinstance(error, av.error.MemoryError) and "max_streams" in told:
                raise too_many_tracks(shown, limits) from error
            raise _mapped(error, shown, told, remote, greeting) from error
        except MemoryError as error:
            raise SourceCorrupt(f"{shown}: asks for more memory than there is") from error
        except UnicodeError as error:  # PyAV decodes what a file or playlist names
            raise SourceCorrupt(f"{shown}: names something in bytes that are no text") from error


def oversized(lines: Lines) -> str | None:
    """The size, as ``16000x16000``, of a picture that FFmpeg would not make room for."""
    return next((found[1] for line in lines if (found := _OVERSIZED.search(line[2]))), None)


def redirected(lines: Lines) -> str | None:
    """Where FFmpeg was led to by an RTSP server."""
    return next((found[1] for line in lines if (found := _REDIRECTED.search(line[2]))), None)


def _mapped(error: av.FFmpegError, shown: str, told: str, remote: bool, greeting: str) -> SourceError:
    match error:
        case av.error.HTTPUnauthorizedError() | av.error.HTTPForbiddenError():
            return SourceAuth(f"{shown}: refused ({_status(error)}); check user and password in the URL")
        case av.error.HTTPNotFoundError():
            return SourceNotFound(f"{shown}: the server has no such stream (404); check the path")
        case av.error.FileNotFoundError():
            return SourceNotFound(f"{shown}: no such file")
        case av.error.HTTPError() | av.error.HTTPClientError():
            return SourceRefused(f"{shown}: the server refused: {_status(error)}")
        case av.error.ConnectionRefusedError():
            return SourceRefused(f"{shown}: connection refused; is the server running, and the port right?")
        case av.error.PermissionError() if remote:  # RTMP, whose own words may hold the stream's key
            return SourceRefused(
                f"{shown}: the server refused; does it have this stream, and may it be read?"
            )
        case av.error.PermissionError():
            return SourceRefused(f"{shown}: may not be read (permission denied)")
        case av.error.ProtocolNotFoundError():
            return SourceUnsupported(f"{shown}: this FFmpeg has no such protocol; use one of {READABLE}")
        case av.error.DecoderNotFoundError() | av.error.DemuxerNotFoundError() | av.error.PatchWelcomeError():
            return SourceUnsupported(f"{shown}: a format that this FFmpeg cannot read{_told(told)}")
    return _by_text(error, shown, told, greeting) if remote else _unreadable(error, shown, told)


def _by_text(error: av.FFmpegError, shown: str, told: str, greeting: str) -> SourceError:
    """Network failures that share one error number, told apart by what FFmpeg logged."""
    lower = _NAME.sub("", told.lower())
    if error.errno in _HUNG_UP:
        return SourceRefused(f"{shown}: the server closed the connection")
    if greeting and isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        return SourceRefused(
            f"{shown}: the server closed the connection, or does not speak {greeting.upper()}{_told(told)}"
        )
    if "resolve hostname" in lower:
        return SourceRefused(f"{shown}: the host name does not resolve")
    if "certificate" in lower or "tls" in lower or "handshake" in lower:
        return SourceTls(f"{shown}: TLS failed{_told(told)}{TLS_CURE}")
    if "401" in lower or "unauthorized" in lower or "authentication" in lower:
        return SourceAuth(f"{shown}: refused; check user and password in the URL")
    if error.errno == errno.EPROTONOSUPPORT:
        return SourceUnsupported(f"{shown}: the server does not offer this transport; try transport: tcp")
    if "loading first segment" in lower:
        return SourceRefused(f"{shown}: its playlist names what may not be read{_told(told)}")
    if error.errno in _NETWORK:
        return SourceRefused(f"{shown}: the connection failed{_told(told)}")
    return _unreadable(error, shown, told)


def _unreadable(error: av.FFmpegError, shown: str, told: str) -> SourceError:
    if isinstance(error, av.error.ArgumentError) and "whitelist" in told:
        return SourceUnsupported(f"{shown}: is not a video that framewarden reads")
    if "moov atom not found" in told:
        return SourceCorrupt(f"{shown}: is not a complete MP4 file (no moov atom); is its upload finished?")
    if isinstance(error, av.error.InvalidDataError):
        return SourceCorrupt(f"{shown}: is not a video, or is damaged{_told(told)}")
    if isinstance(error, av.error.MemoryError):
        return SourceCorrupt(f"{shown}: asks for more memory than it may have{_told(told)}")
    if isinstance(error, av.error.EOFError):
        return SourceNoVideo(f"{shown}: ended before the first picture")
    if isinstance(error, av.error.OSError):
        return SourceCorrupt(f"{shown}: could not be read: {error.strerror}")
    return SourceError(f"{shown}: could not be read: {error.strerror}{_told(told)}")


def _status(error: av.FFmpegError) -> str:
    return (error.strerror or "").removeprefix("Server returned ")


def _told(told: str) -> str:
    plain = "".join(letter if letter.isprintable() else "?" for letter in mask_text(told)[-200:])
    return f" ({plain})" if plain else ""
