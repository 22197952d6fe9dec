"""An HTTP connection whose every wait ends with a deadline or a stop event; its errors are mapped."""

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pipeline.errors import (
    SourceAuth,
    SourceError,
    SourceNotFound,
    SourceRefused,
    SourceTimeout,
    SourceTls,
)
from pipeline.inputs import split_url
from pipeline.masking import mask_url

_POLL_S = 0.25  # how long a read may sleep before it looks at the stop event
TLS_CURE = "; give the authority that signed the server's certificate, or check the host name and the date"


class Deadline:
    """Seconds left of a blocking step. PyAV asks for its timeouts as numbers, so this is one, always up to
    date."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self.seconds = seconds
        self._monotonic = monotonic
        self._until = 0.0
        self.restart()

    def restart(self, seconds: float | None = None) -> None:
        self.seconds = self.seconds if seconds is None else seconds
        self._until = self._monotonic() + self.seconds

    def left(self) -> float:
        return self._until - self._monotonic()

    def __float__(self) -> float:
        return max(self.left(), 0.001)


class Rules(Protocol):
    """What a connection must know of its session."""

    @property
    def deadline(self) -> Deadline: ...

    @property
    def stop(self) -> threading.Event: ...

    def context(self) -> ssl.SSLContext: ...

    def admit_address(self, url: str, address: str) -> None:
        """:raises SourceRefused: ``url`` turned out to be at an address that may not be read."""


class Connection(http.client.HTTPConnection):
    """A connection whose every wait ends with the session's deadline or its stop event."""

    def __init__(self, owner: Rules, url: str) -> None:
        self._owner = owner
        self._url = url
        parts = split_url(url)
        self._secure = parts.scheme == "https"
        super().__init__(parts.host, parts.port or (443 if self._secure else 80))

    def connect(self) -> None:
        self.sock = connect(self._owner, self._url, self.host, self.port, secure=self._secure)


def connect(owner: Rules, url: str, host: str, port: int, *, secure: bool) -> "TimedSocket":
    """A connection to ``host``, which ``url`` names, if its address may be read.

    :raises OSError: it cannot be had. :raises SourceRefused: it may not."""
    plain = socket.create_connection((host, port), timeout=max(owner.deadline.left(), 0.001))
    try:
        owner.admit_address(url, plain.getpeername()[0])
        if secure:
            plain = owner.context().wrap_socket(plain, server_hostname=host)
    except (OSError, SourceError):
        plain.close()
        raise
    return TimedSocket(plain, owner)


class TimedSocket:
    """The part of a socket that ``http.client`` uses, its reads cut into short waits."""

    def __init__(self, plain: socket.socket, owner: Rules) -> None:
        self._plain = plain
        self._owner = owner
        self._read = False

    def sendall(self, data: bytes) -> None:
        self._plain.settimeout(max(self._owner.deadline.left(), 0.001))
        self._plain.sendall(data)

    def makefile(self, mode: str, buffering: int = -1) -> io.BufferedReader:
        self._read = True
        return io.BufferedReader(_TimedReader(self._plain, self._owner), 1 << 16)

    def close(self) -> None:
        """Hang up, unless there is a reader: then the socket is the response's."""
        if not self._read:
            self._plain.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, plain: socket.socket, owner: Rules) -> None:
        self._plain = plain
        self._owner = owner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            left = self._owner.deadline.left()
            if left <= 0 or self._owner.stop.is_set():
                raise TimeoutError("deadline")
            self._plain.settimeout(min(left, _POLL_S))
            try:
                return self._plain.recv_into(buffer)
            except TimeoutError:
                continue

    def close(self) -> None:
        if not self.closed:
            self._plain.close()
        super().close()


@contextmanager
def map_network_errors(url: str, owner: Rules) -> Iterator[None]:
    """Turns what sockets, TLS and ``http.client`` raise into the tree of ``pipeline.errors``."""
    shown = mask_url(url)
    try:
        yield
    except TimeoutError as error:
        raise SourceTimeout(f"{shown}: no answer within {owner.deadline.seconds:g} s") from error
    except ssl.SSLEOFError as error:
        raise SourceRefused(f"{shown}: the server closed the connection") from error
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
        raise SourceTls(f"{shown}: TLS failed: {reason}{TLS_CURE}") from error
    except socket.gaierror as error:
        raise SourceRefused(f"{shown}: the host name does not resolve") from error
    except OSError as error:
        raise SourceRefused(f"{shown}: {error.strerror or 'the server closed the connection'}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise SourceRefused(f"{shown}: the server does not speak HTTP as expected") from error


def check_status(response: http.client.HTTPResponse, url: str) -> None:
    """:raises SourceError: of the class that the status stands for, unless it is good."""
    status, shown = response.status, mask_url(url)
    if status in (200, 206):
        return
    if status in (401, 403, 407):
        wanted = response.headers.get("WWW-Authenticate", "").partition(" ")[0]
        cure = (
            "only Basic is supported" if wanted not in ("", "Basic") else "check user and password in the URL"
        )
        raise SourceAuth(f"{shown}: the server answered {status} {_reason(response)}; {cure}")
    if status in (404, 410):
        raise SourceNotFound(f"{shown}: the server answered {status} {_reason(response)}")
    raise SourceRefused(f"{shown}: the server answered {status} {_reason(response)}")


def _reason(response: http.client.HTTPResponse) -> str:
    """The server's own words, short and without control characters: they end up on a terminal."""
    return "".join(letter for letter in response.reason if letter.isprintable())[:60]
