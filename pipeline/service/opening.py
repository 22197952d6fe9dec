"""Opening a stream's sources: in turn with the others of their host, and again while a server is away."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from pipeline import inputs
from pipeline.backends.registry import open_source
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.config import Config, Stream
from pipeline.errors import SourceError
from pipeline.flow.source import Kind, Source
from pipeline.service.retry import Backoff, HostGate

AWAY = ("refused", "timeout", "ended")
"""What the server of a recording is waited for; what it says of the recording is final."""


class Opener:
    """Opens what a stream consists of.

    ``wait``: a recording on a server that is away is asked for again, for ten minutes, with ``backoff``'s
    waits, and ``tell`` is told why, "" in the end. (To a live source the reader itself comes back for ever.)
    """

    def __init__(
        self,
        stream: Stream,
        config: Config,
        kind: Kind,
        *,
        stop: threading.Event,
        gate: HostGate,
        backoff: Backoff,
        wait: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._stream = stream
        self._limits = config.source_limits()
        self._reach = config.reach()
        self._kind = kind
        self._stop = stop
        self._gate = gate
        self._backoff = backoff
        self._wait = wait and kind == "file"
        self._tell = tell

    def open(self, url: str) -> Source:
        """:raises SourceError: it cannot be opened."""
        while True:
            try:
                with self._turn(url) as answered:
                    source = open_source(self._settings(url, answered), stop=self._stop)
            except SourceError as error:
                now = time.monotonic()
                if not self._is_awaited(url, error) or self._backoff.is_outage(now):
                    raise
                self._tell(str(error))
                self.pause(url)
                if self._stop.is_set():
                    raise
            else:
                self._tell("")
                return source

    def pause(self, url: str) -> None:
        """Wait before the next attempt at ``url``."""
        wait_s = self._backoff.next_wait(time.monotonic())
        if inputs.is_remote(url):
            self._gate.pause(inputs.split_url(url).server, wait_s, self._stop)
        else:
            self._stop.wait(wait_s)

    def _is_awaited(self, url: str, error: SourceError) -> bool:
        return self._wait and error.reason in AWAY and inputs.is_remote(url)

    def _turn(self, url: str) -> AbstractContextManager[Callable[[], None]]:
        """A place among those that connect to this host, until the server answers."""
        if not inputs.is_remote(url):
            return nullcontext(lambda: None)
        return self._gate.connecting(inputs.split_url(url).server, self._stop)

    def _settings(self, url: str, answered: Callable[[], None]) -> SourceSettings:
        stream = self._stream
        return SourceSettings(
            url=url,
            kind=self._kind,
            transport=stream.transport,
            open_timeout_s=stream.open_timeout_s,
            read_timeout_s=stream.read_timeout_s,
            pace=stream.pace,
            reach=self._reach,
            tls_ca=str(stream.tls.ca) if stream.tls.ca else None,
            tls_verify=stream.tls.verify,
            limits=self._limits,
            answered=answered,
        )
