"""Where an RTSP server leads, judged before FFmpeg goes there.

FFmpeg follows a redirect to any host and logs in there with the first host's password. So the server is
asked once, without credentials, on a connection of our own; FFmpeg is given the address that is left. A
server that answers FFmpeg otherwise is refused afterwards (``ffmpeg_remote``)."""

import io
import ssl
import threading
from typing import Protocol

from pipeline.backends.http_socket import Deadline, connect, map_network_errors
from pipeline.errors import SourceRefused
from pipeline.inputs import Reach, split_url
from pipeline.limits import Limits
from pipeline.masking import mask_url

_HEAD_BYTES = 1 << 14
_PORTS = {"rtsp": 554, "rtsps": 322}


class Asking(Protocol):
    """What of ``SourceSettings`` is used here."""

    @property
    def url(self) -> str: ...
    @property
    def reach(self) -> Reach: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def tls_ca(self) -> str | None: ...
    @property
    def tls_verify(self) -> bool: ...


def after_redirects(settings: Asking, deadline: Deadline, stop: threading.Event) -> str:
    """The URL at the end of the server's redirects. Any other failure is left to FFmpeg to find and to tell.

    :raises SourceRefused: it leads where ``reach`` does not allow, or too often.
    :raises SourceTimeout: no answer within the deadline."""
    url = settings.url
    for _ in range(settings.limits.redirects + 1):
        target = _Question(settings, deadline, stop, url).ask()
        if target is None:
            return url
        origin = split_url(settings.url)
        schemes = ("rtsps",) if origin.scheme == "rtsps" else ("rtsp", "rtsps")
        settings.reach.admit_next(settings.url, target, schemes)
        url = _with_login(url, target)
    raise SourceRefused(f"{mask_url(settings.url)}: redirects more than {settings.limits.redirects} times")


def _with_login(url: str, target: str) -> str:
    """``target`` with the login of ``url``, where both are the same server's."""
    here, there = split_url(url), split_url(target)
    if there.user is not None or (here.scheme, here.host, here.port) != (
        there.scheme,
        there.host,
        there.port,
    ):
        return target
    login, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    scheme, _, rest = target.partition("://")
    return f"{scheme}://{login}{at}{rest}"


class _Question:
    """One DESCRIBE; itself what a connection must know of its session (``Rules``)."""

    def __init__(self, settings: Asking, deadline: Deadline, stop: threading.Event, url: str) -> None:
        self.deadline = deadline
        self.stop = stop
        self._settings = settings
        self._url = url
        self._barred = False

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._settings.tls_ca)
        if not self._settings.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def admit_address(self, url: str, address: str) -> None:
        """:raises SourceRefused: ``url`` turned out to be at an address that may not be read."""
        try:
            self._settings.reach.admit_address(self._settings.url, url, address)
        except SourceRefused:
            self._barred = True
            raise

    def ask(self) -> str | None:
        """Where the server leads; None: it does not, or cannot be asked.

        :raises SourceTimeout: it said nothing. :raises SourceRefused: its address may not be read."""
        parts = split_url(self._url)
        rest = self._url.partition("://")[2]
        host, slash, path = rest.partition("/")
        request = (
            f"DESCRIBE {parts.scheme}://{host.rpartition('@')[2]}{slash}{path} RTSP/1.0\r\nCSeq: 1\r\n"
            "User-Agent: framewarden\r\nAccept: application/sdp\r\n\r\n"
        )
        port, secure = parts.port or _PORTS[parts.scheme], parts.scheme == "rtsps"
        try:
            with map_network_errors(self._settings.url, self):
                socket = connect(self, self._url, parts.host, port, secure=secure)
                with socket.makefile("rb") as reader:
                    socket.sendall(request.encode())
                    return _location(reader)
        except SourceRefused:
            if self._barred:
                raise
            return None


def _location(reader: io.BufferedReader) -> str | None:
    """Where an answer leads."""
    head, line = b"", b"-"
    while line.strip() and len(head) < _HEAD_BYTES:
        line = reader.readline(_HEAD_BYTES)
        head += line
    status, *headers = head.decode("utf-8", "replace").split("\r\n")
    if not status.startswith("RTSP/") or not status.partition(" ")[2].startswith("3"):
        return None
    found = (line.partition(":")[2].strip() for line in headers if line.lower().startswith("location:"))
    return next(found, None)
