"""http(s) for the FFmpeg demuxers, read by Python.

So every redirect and every URL in a playlist is judged before it is opened, a deadline bounds every wait but
the look-up of a name (which the system bounds), and no credential reaches FFmpeg and its texts.
"""

import base64
import http.client
import io
import re
import ssl
import threading
from urllib.parse import urljoin, urlsplit

from pipeline.backends.http_socket import Connection, Deadline, check_status, map_network_errors
from pipeline.backends.mp4_check import check_index
from pipeline.errors import (
    SourceEnded,
    SourceError,
    SourceNotFound,
    SourceNoVideo,
    SourceRefused,
    SourceUnsupported,
)
from pipeline.inputs import Reach, split_url
from pipeline.limits import Limits
from pipeline.masking import mask_url

_TARGET = re.compile(rb"#EXT-X-TARGETDURATION:\s*(\d{1,4})")
_PLAYLIST = b"#EXTM3U"
_PLAYED = (b"#EXTINF", b"#EXT-X-STREAM-INF")
_NAMING = (b"#EXT-X-STREAM-INF", b"#EXT-X-I-FRAME-STREAM-INF", b"#EXT-X-MEDIA:")


class Http:
    """Opens what one session reads over http(s).

    ``open`` raises; ``io_open`` is FFmpeg's way in and never does: a callback that raises twice makes PyAV
    print a traceback. What went wrong is in ``error`` (ends the session) or ``missed`` (one segment was not
    there), and FFmpeg finds an empty file. ``target_s`` is the longest segment that a playlist announces, in
    seconds."""

    def __init__(
        self,
        url: str,
        *,
        reach: Reach,
        deadline: Deadline,
        stop: threading.Event,
        tls_ca: str | None,
        tls_verify: bool,
        limits: Limits,
    ) -> None:
        self.url = url
        self.reach = reach
        self.deadline = deadline
        self.stop = stop
        self.limits = limits
        self.error: SourceError | None = None
        self.missed: SourceError | None = None
        self.target_s = 0
        self._playlists: set[str] = set()
        self._tls = (tls_ca, tls_verify)
        self._context: ssl.SSLContext | None = None
        self._first: HttpFile | None = None
        self.seekable = False
        self.files: set[HttpFile] = set()

    def open_first(self) -> "HttpFile":
        """Open the session's own URL; ``io_open`` gives this file again to whoever asks for it first.

        :raises SourceError: by what the server answered."""
        self._first = HttpFile(self, self.url)
        self._first.fill()
        self.seekable = self._first.ranges
        if self._first.is_playlist:
            self._first.check_named()
            self._admit_playlist(self._first, self._first.plain_url)
        return self._first

    def io_open(self, url: str, flags: int, options: dict[str, str]) -> "HttpFile | io.BytesIO":
        """What PyAV calls for every file that a demuxer opens."""
        if self.error is not None:
            return io.BytesIO()
        first, self._first = self._first, None
        if first is not None and url == first.plain_url:
            return first
        try:
            if url.startswith("crypto"):
                raise SourceUnsupported(
                    f"{mask_url(self.url)}: the playlist is encrypted (AES-128), which is not read; "
                    "give the address of the unencrypted stream"
                )
            self.reach.admit_next(self.url, url)
            file = HttpFile(self, url)
            file.fill()
            if file.is_playlist:
                self._admit_playlist(file, url)
        except (SourceNotFound, SourceRefused) as error:
            if isinstance(error, SourceNotFound):
                self.missed = error  # a segment that has just been removed: the next one may be there
            else:
                self.error = error
            return io.BytesIO()
        except SourceError as error:
            self.error = error
            return io.BytesIO()
        return file

    def _admit_playlist(self, file: "HttpFile", url: str) -> None:
        """Playlists may be named by the first one only, and only with a depth of 2.

        :raises SourceUnsupported: it is too deep, or one too many."""
        depth = self.limits.playlist_depth
        if file.names_playlists and (self._playlists - {url} or depth < 2):
            raise SourceUnsupported(
                f"{mask_url(self.url)}: playlists of playlists, deeper than limits.playlist_depth allows "
                f"({depth})"
            )
        self._playlists.add(url)
        if len(self._playlists) > self.limits.playlists:
            raise SourceUnsupported(
                f"{mask_url(self.url)}: names more playlists than limits.playlists allows "
                f"({self.limits.playlists})"
            )

    def close(self) -> None:
        """Close what FFmpeg left open."""
        for file in list(self.files):
            file.close()

    def admit_address(self, url: str, address: str) -> None:
        """:raises SourceRefused: ``url`` turned out to be at an address that may not be read."""
        self.reach.admit_address(self.url, url, address)

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            ca, verify = self._tls
            self._context = ssl.create_default_context(cafile=ca)
            if not verify:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        return self._context


class HttpFile:
    """One file on a server, read forward, sought by range request. Errors after ``fill`` end it early and are
    kept in ``http.error``."""

    def __init__(self, owner: Http, url: str) -> None:
        self._http = owner
        self._url = url
        self._connection: http.client.HTTPConnection | None = None
        self._body: http.client.HTTPResponse | None = None
        self._position = 0
        self._ahead = b""
        self.size: int | None = None
        self.content_type = ""
        self.ranges = False
        self.is_playlist = False

    @property
    def plain_url(self) -> str:
        """Where it was found, after redirects, without user info: what FFmpeg is told."""
        parts = urlsplit(self._url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def names_playlists(self) -> bool:
        """Whether this is a playlist of playlists, just filled."""
        return self.is_playlist and any(tag in self._ahead for tag in _NAMING)

    def check_named(self) -> None:
        """:raises SourceNoVideo: this playlist, just filled, names neither segments nor streams."""
        if not any(tag in self._ahead for tag in _PLAYED):
            raise SourceNoVideo(
                f"{mask_url(self._url)}: its playlist names no segment (#EXTINF) and no stream "
                "(#EXT-X-STREAM-INF) to play; give the address of one that does"
            )

    def fill(self) -> None:
        """Connect and read the first bytes.

        :raises SourceError: by what went wrong."""
        self._ahead = self._receive(1 << 14)
        self.is_playlist = self._ahead.lstrip(b"\xef\xbb\xbf").startswith(_PLAYLIST)
        while self.is_playlist and (more := self._receive(1 << 16)):  # judged as a whole
            self._ahead += more
            if len(self._ahead) > self._http.limits.playlist_bytes:
                raise SourceUnsupported(
                    f"{mask_url(self._url)}: a playlist of more bytes than limits.playlist_bytes allows "
                    f"({self._http.limits.playlist_bytes})"
                )
        check_index(io.BytesIO(self._ahead), len(self._ahead), mask_url(self._url), self._http.limits)
        if self.is_playlist and (found := _TARGET.search(self._ahead)):
            self._http.target_s = max(self._http.target_s, int(found[1]))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.ranges

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: self.size or 0}[whence]
        forward = base + offset - self._position
        if 0 <= forward <= len(self._ahead):
            self._ahead = self._ahead[forward:]
        else:
            self.close()
            self._ahead = b""
        self._position += forward
        return self._position

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end, and after an error."""
        try:
            data = self._ahead[:size] or self._receive(size)
            if not data and self.size is not None and self._position < self.size:
                raise SourceEnded(
                    f"{mask_url(self._url)}: the server hung up after {self._position} of {self.size} bytes"
                )
        except SourceError as error:
            self._http.error = self._http.error or error
            return b""
        self._ahead = self._ahead[len(data) :]
        self._position += len(data)
        return data

    def close(self) -> None:
        for part in (self._body, self._connection):
            if part is not None:
                part.close()
        self._connection = self._body = None
        self._http.files.discard(self)

    def _receive(self, size: int) -> bytes:
        if self.size is not None and self._position + len(self._ahead) >= self.size:
            return b""
        try:
            with map_network_errors(self._url, self._http):
                if self._body is None:
                    self._request()
                assert self._body is not None
                return self._body.read1(size)
        except SourceError:
            self.close()
            raise

    def _request(self) -> None:
        """Ask for the file from ``_position`` on, following redirects."""
        most = self._http.limits.redirects
        for _ in range(most + 1):
            self._http.files.add(self)
            response = self._body = self._ask()
            if response.status not in (301, 302, 303, 307, 308):
                break
            target = urljoin(self._url, response.headers.get("Location", ""))
            self.close()
            self._http.reach.admit_next(self._http.url, target)
            self._url = target
        else:
            raise SourceRefused(f"{mask_url(self._http.url)}: redirects more than {most} times")
        check_status(response, self._url)
        if self._position and response.status != 206:
            raise SourceUnsupported(
                f"{mask_url(self._url)}: the server ignored a request for a part of the file"
            )
        length = response.headers.get("Content-Length", "")
        self.size = self._position + int(length) if length.isdigit() else None
        self.content_type = response.headers.get_content_type()
        self.ranges = response.status == 206 or response.headers.get("Accept-Ranges") == "bytes"

    def _ask(self) -> http.client.HTTPResponse:
        parts = split_url(self._url)
        plain = urlsplit(self.plain_url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise SourceUnsupported(f"{mask_url(self._url)}: is not a valid http(s) URL")
        self._connection = Connection(self._http, self._url)
        headers = {"User-Agent": "framewarden", "Accept": "*/*", "Accept-Encoding": "identity"}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
        origin = split_url(self._http.url)
        same = (origin.host, origin.port) == (parts.host, parts.port)
        if origin.user is not None and same and (parts.scheme == "https" or origin.scheme == "http"):
            login = f"{origin.user}:{origin.password or ''}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(login).decode()
        path = (plain.path or "/") + (f"?{plain.query}" if plain.query else "")
        self._connection.request("GET", path.replace(" ", "%20"), headers=headers)
        return self._connection.getresponse()
