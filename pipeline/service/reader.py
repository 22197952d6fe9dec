"""One thread a stream: opens, reads, decodes into slots, and calls again until it is told to stop."""

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

import structlog

from pipeline import events, inputs
from pipeline.config import Config, Stream
from pipeline.errors import SourceCorrupt, SourceEnded, SourceError, SourceNotFound, SourceUnsupported
from pipeline.flow.coverage import Cause
from pipeline.flow.decode import Decoder
from pipeline.flow.sample import Sampler
from pipeline.flow.segment import EndReason
from pipeline.flow.source import Source
from pipeline.masking import mask_text
from pipeline.outbox import Outbox
from pipeline.service.crew import contained
from pipeline.service.messages import Begin, End, Gone, Item, Message, Trouble
from pipeline.service.opening import Opener
from pipeline.service.retry import Backoff, HostGate
from pipeline.service.session import Desk, Session
from pipeline.service.skim import Skim, by_index

CAUSES: dict[str, Cause] = {
    "timeout": "stalled",
    "unsupported": "unsupported",
    "no_video": "unsupported",
    "corrupt": "corrupt",
    "no_room": "overload",
}
"""Coverage cause of a source error's ``reason``; all others are ``disconnected``."""
WATCH_S = 0.5


class Reader:
    """The thread of one stream. Sends ``Message`` in order; ends when its files have ended or ``stop`` is
    set. ``once``: a recording whose server is away has failed; else it is tried again for ten minutes."""

    def __init__(
        self,
        stream: Stream,
        config: Config,
        desk: Desk,
        *,
        gate: HostGate,
        outbox: Outbox,
        open_at_s: float,
        once: bool = False,
    ) -> None:
        self._stream = stream
        self._config = config
        self._desk = desk
        self._live = desk.live
        self._stop = desk.stop
        self._reach = config.reach()
        self._outbox = outbox
        self._open_at_s = open_at_s
        self._rng = random.Random()
        self._backoff = Backoff(self._rng)
        self._opener = Opener(
            stream,
            config,
            "live" if desk.live else "file",
            stop=desk.stop,
            gate=gate,
            backoff=self._backoff,
            wait=not once,
            tell=partial(setattr, desk.position, "trouble"),
        )
        self._connected = False

    def run(self) -> None:
        """Read the stream to its end, then say goodbye."""
        failed: str | None = None
        self._stop.wait(max(0.0, self._open_at_s - time.monotonic()))
        try:
            if inputs.is_remote(self._stream.url):
                failed = self._run_url()
            elif self._stream.watch:
                self._run_watch()
            else:
                failed = self._run_files()
        finally:
            self._outbox.release()
            reason: EndReason = "shutdown" if self._stop.is_set() else "end_of_stream"
            self._send(Gone(time.monotonic(), reason, failed))

    def _send(self, message: Message) -> None:
        self._desk.send(message)

    # ---- what there is to read ----------------------------------------------------------------------------

    def _run_url(self) -> str | None:
        """Connect, and again whenever a live source is away; a recording is read once, when its server is
        there."""
        while not self._stop.is_set():
            failed = self._contained(lambda: self._item(Item(), self._stream.url), Item())
            if not self._live and not self._stream.loop:
                return failed
            self._opener.pause(self._stream.url)
        return None

    def _run_files(self) -> str | None:
        """Every file of the entry, pass by pass; the first failure in words."""
        failed: str | None = None
        while not self._stop.is_set():
            paths = self._paths()
            if isinstance(paths, str):
                failures: list[str | None] = [paths]
            else:
                failures = [self._file(path) for path in paths if not self._stop.is_set()]
            bad = [failure for failure in failures if failure is not None]
            failed = failed or (bad[0] if bad else None)
            if not self._stream.loop:
                return failed
            if len(bad) == len(failures):
                self._opener.pause(self._stream.url)
        return None

    def _run_watch(self) -> None:
        """Files of a folder or glob, those that are there and those that appear."""
        watch = inputs.Watch(self._stream.url, self._reach)
        while not self._stop.is_set():
            try:
                paths = watch.poll(time.monotonic())
            except SourceError as error:  # not mounted yet, or gone for a while
                paths, trouble = [], str(error)
            else:
                trouble = ""
            self._desk.position.trouble = trouble
            for path in paths:
                if not self._stop.is_set():
                    self._file(path)
            self._stop.wait(WATCH_S)

    def _paths(self) -> list[Path] | str:
        """The files of the entry, or why there are none."""
        try:
            return inputs.expand(self._stream.url, self._reach)
        except SourceError as error:
            return self._away(Item(self._stream.url), error)

    def _file(self, path: Path) -> str | None:
        """Screen one file unless that was done before; why it failed, if it did."""
        return self._contained(lambda: self._one_file(path), Item(str(path)))

    def _contained(self, run: Callable[[], str | None], item: Item) -> str | None:
        """A surprise costs this stream its session, and nobody else anything; it is logged with its
        traceback."""
        outcome = contained(run)
        if not isinstance(outcome, Exception):
            return outcome
        return self._away(item, self._surprise(outcome, item))

    def _surprise(self, error: Exception, item: Item) -> SourceCorrupt:
        structlog.get_logger().error("stream.surprise", stream=self._stream.id, exc_info=error)
        text = f"{type(error).__name__}: {mask_text(str(error))}"
        return SourceCorrupt(f"{item.path or self._stream.id}: cannot be screened: {text}")

    def _one_file(self, path: Path) -> str | None:
        try:
            stat = path.stat()
        except OSError as exc:
            error = SourceNotFound(f"{path}: cannot be read: {exc.strerror}")
            return self._away(Item(str(path)), error)
        item = Item(str(path), stat.st_size, stat.st_mtime)
        if item in self._desk.left_out:
            return f"{path}: left out: it crashed its worker"
        once = not self._live and not self._stream.loop
        if once and self._outbox.is_finished(self._stream.id, item.path, item.size, item.mtime):
            self._desk.position.skipped += 1
            return None
        return self._item(item, item.path)

    # ---- one session --------------------------------------------------------------------------------------

    def _item(self, item: Item, url: str) -> str | None:
        """One session, from opening to end; why it gave no picture, if it gave none."""
        self._desk.reads(item)
        try:
            source = self._opener.open(url)
        except SourceError as error:
            return None if self._stop.is_set() else self._away(item, error)
        self._connected = True
        with source:
            try:
                begin = self._begin(source, item)
            except SourceError as error:
                return self._away(item, error)
            self._desk.lead.forget()
            self._send(begin)
            end, sampled = self._session(source, begin)
        self._send(end)
        if sampled or end.reason == "shutdown":
            self._backoff.succeeded()
            return None
        return end.text or f"{item.path or self._stream.id}: gave no picture"

    def _session(self, source: Source, begin: Begin) -> tuple[End, int]:
        """Read an open source; how it ended, and how many pictures were sampled."""
        sampler = Sampler(self._config.sampling_of(self._stream), kind=source.kind, rng=self._rng)
        sampled = 0

        def read() -> End:
            nonlocal sampled
            with (
                self._desk.admission.decoder(source.info) as decoder,
                self._skim(source, sampler, decoder, begin.item) as skim,
            ):
                session = Session(source, decoder, sampler, self._desk, begin.resumed_s, skim)
                try:
                    return session.read()
                finally:
                    sampled = session.sampled

        outcome = contained(read)
        if isinstance(outcome, SourceError):
            return self._broken(outcome), sampled
        if isinstance(outcome, Exception):
            return self._broken(self._surprise(outcome, begin.item)), sampled
        return outcome, sampled

    def _skim(
        self, source: Source, sampler: Sampler, decoder: Decoder, item: Item
    ) -> AbstractContextManager[Skim | None]:
        """The way over a local file by its index, if it has one."""
        if self._live or not item.path or not source.info.has_index:
            return nullcontext()
        return by_index(source, sampler, decoder, self._desk.admission, self._desk.ahead)

    def _away(self, item: Item, error: SourceError) -> str:
        """It could not be opened: a live stream goes on trying, a file has failed."""
        now = time.monotonic()
        cause: Cause = CAUSES.get(error.reason, "disconnected")
        if cause == "disconnected" and not self._connected:
            cause = "not_started"
        if self._live:
            self._send(Trouble(cause, now, error.reason, str(error)))
        else:
            self._send(End("stream_lost", 0.0, now, cause, error.reason, str(error), item=item))
        return str(error)

    def _begin(self, source: Source, item: Item) -> Begin:
        """The session's opening; an interrupted file goes on behind its last scored sample."""
        now = time.monotonic()
        position = self._desk.position
        position.time_s, position.sender_s, position.decoder = 0.0, None, ""
        progress = self._outbox.progress(self._stream.id, item.path) if item.path and not self._live else None
        if progress is None or (progress.size, progress.mtime) != (item.size, item.mtime):
            return Begin(events.new_id(), item, source.info, now)
        if progress.last_scored_s is not None:
            with suppress(SourceUnsupported):  # read from its start: what was screened is passed over
                source.seek(progress.last_scored_s)
        return Begin(
            progress.session,
            item,
            source.info,
            now,
            progress.last_scored_s,
            progress.ledger,
            progress.segments,
            progress.previous,
        )

    def _broken(self, error: SourceError) -> End:
        """The session broke off. Where nothing is live, a sender that hangs up has come to its end."""
        now, at = time.monotonic(), self._desk.position.time_s
        if self._stop.is_set():
            return End("shutdown", at, now)
        if isinstance(error, SourceEnded) and not self._live:
            return End("end_of_stream", at, now)
        return End("stream_lost", at, now, CAUSES.get(error.reason, "disconnected"), error.reason, str(error))
