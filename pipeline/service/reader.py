"""One thread a stream: opens, reads, decodes into slots, and calls again until it is told to stop."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline import events, inputs
from pipeline.backends.registry import open_source
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.config import Config, Stream
from pipeline.errors import DecodeError, SourceEnded, SourceError, SourceNotFound
from pipeline.flow.coverage import Cause
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.frames import FramePool
from pipeline.flow.sample import Sampler, pictures
from pipeline.flow.segment import EndReason
from pipeline.flow.source import Kind, Source
from pipeline.outbox import Outbox
from pipeline.service.admission import Admission
from pipeline.service.messages import Begin, End, Gone, Item, Message, Sample, Trouble
from pipeline.service.retry import Backoff, HostGate

T = TypeVar("T")

CAUSES: dict[str, Cause] = {
    "timeout": "stalled",
    "unsupported": "unsupported",
    "no_video": "unsupported",
    "corrupt": "corrupt",
}
"""Coverage cause of a source error's ``reason``; all others are ``disconnected``."""
WATCH_S = 0.5
CLOCK_PACKETS = 64
"""The sender's clock is asked for once in so many packets: it comes with a report every few seconds."""


def with_last(items: Iterator[T]) -> Iterator[tuple[T, bool]]:
    """Each item, and whether it is the last one."""
    try:
        held = next(items)
    except StopIteration:
        return
    for item in items:
        yield held, False
        held = item
    yield held, True


@dataclass(slots=True)
class Position:
    """How far a stream has been read: written by its reader, read by everybody.

    ``skipped`` counts files that were screened before; ``sender_s`` is the Unix time of media second 0 by the
    sender's clock, where it tells."""

    time_s: float = 0.0
    packets: int = 0
    plan: str = ""
    why: str = ""
    gop_s: float | None = None
    damaged: int = 0
    skipped: int = 0
    sender_s: float | None = None


class Reader:
    """The thread of one stream. Sends ``Message`` in order; ends when its files have ended or ``stop`` is
    set."""

    def __init__(
        self,
        stream: Stream,
        kind: Kind,
        config: Config,
        *,
        number: int,
        send: Callable[[int, Message], None],
        pools: dict[str, FramePool],
        admission: Admission,
        gate: HostGate,
        outbox: Outbox,
        stop: threading.Event,
    ) -> None:
        self._stream = stream
        self._live = kind == "live"
        self._config = config
        self._reach = config.reach()
        self._number = number
        self._send_to = send
        self._pools = pools
        self._admission = admission
        self._gate = gate
        self._outbox = outbox
        self._stop = stop
        self._rng = random.Random()
        self._backoff = Backoff(self._rng)
        self._samples = 0
        self._connected = False
        self.position = Position()

    def run(self) -> None:
        """Read the stream to its end, then say goodbye."""
        failed: str | None = None
        try:
            if inputs.is_remote(self._stream.url):
                failed = self._run_url()
            elif self._stream.watch:
                self._run_watch()
            else:
                failed = self._run_files()
        finally:
            reason: EndReason = "shutdown" if self._stop.is_set() else "end_of_stream"
            self._send(Gone(time.monotonic(), reason, failed))

    def _send(self, message: Message) -> None:
        self._send_to(self._number, message)

    # ---- what there is to read ----------------------------------------------------------------------------

    def _run_url(self) -> str | None:
        """Connect, and again whenever a live source is away; a recording is read once."""
        while not self._stop.is_set():
            with self._gate.connecting(inputs.split_url(self._stream.url).host, self._stop):
                failed = self._item(Item(), self._stream.url)
            if not self._live and not self._stream.loop:
                return failed
            self._stop.wait(self._backoff.next_wait(time.monotonic()))
        return None

    def _run_files(self) -> str | None:
        """Every file of the entry, pass by pass; the first failure in words."""
        failed: str | None = None
        while not self._stop.is_set():
            failures = [self._file(path) for path in self._paths() if not self._stop.is_set()]
            bad = [failure for failure in failures if failure is not None]
            failed = failed or (bad[0] if bad else None)
            if not self._stream.loop:
                return failed
            if len(bad) == len(failures):
                self._stop.wait(self._backoff.next_wait(time.monotonic()))
        return None

    def _run_watch(self) -> None:
        """Files of a folder or glob, those that are there and those that appear."""
        watch = inputs.Watch(self._stream.url, self._reach)
        while not self._stop.is_set():
            for path in watch.poll(time.monotonic()):
                if not self._stop.is_set():
                    self._file(path)
            self._stop.wait(WATCH_S)

    def _paths(self) -> list[Path]:
        try:
            return inputs.expand(self._stream.url, self._reach)
        except SourceError as error:
            self._away(Item(self._stream.url), error)
            return [Path(self._stream.url)] if isinstance(error, SourceNotFound) else []

    def _file(self, path: Path) -> str | None:
        """Screen one file unless that was done before; why it failed, if it did."""
        try:
            stat = path.stat()
        except OSError as exc:
            error = SourceNotFound(f"{path}: cannot be read: {exc.strerror}")
            return self._away(Item(str(path)), error)
        item = Item(str(path), stat.st_size, stat.st_mtime)
        once = not self._live and not self._stream.loop
        if once and self._outbox.is_finished(self._stream.id, item.path, item.size, item.mtime):
            self.position.skipped += 1
            return None
        return self._item(item, item.path)

    # ---- one session --------------------------------------------------------------------------------------

    def _item(self, item: Item, url: str) -> str | None:
        """One session, from opening to end; why it gave no picture, if it gave none."""
        try:
            source = open_source(self._settings(url), stop=self._stop)
        except SourceError as error:
            return self._away(item, error)
        self._connected = True
        before = self._samples
        begin = self._begin(source, item)
        self._send(begin)
        end = End("stream_lost", 0.0, time.monotonic(), "disconnected")
        try:
            with source, self._admission.decoder(source.info) as decoder:
                end = self._read(source, decoder, begin)
        except SourceError as error:
            end = self._broken(error)
        finally:
            self._send(end)
        if self._samples > before or end.reason == "shutdown":
            self._backoff.succeeded()
            return None
        return end.text or f"{item.path or self._stream.id}: gave no picture"

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

    def _settings(self, url: str) -> SourceSettings:
        stream = self._stream
        return SourceSettings(
            url=url,
            kind="live" if self._live else "file",
            transport=stream.transport,
            open_timeout_s=stream.open_timeout_s,
            read_timeout_s=stream.read_timeout_s,
            pace=stream.pace,
            reach=self._reach,
        )

    def _begin(self, source: Source, item: Item) -> Begin:
        """The session's opening; an interrupted file goes on behind its last scored sample."""
        now = time.monotonic()
        self.position.time_s, self.position.sender_s = 0.0, None
        progress = self._outbox.progress(self._stream.id, item.path) if item.path and not self._live else None
        if progress is None or (progress.size, progress.mtime) != (item.size, item.mtime):
            return Begin(events.new_id(), item, source.info, now)
        if source.info.has_index and progress.last_scored_s is not None:
            source.seek(progress.last_scored_s)
        return Begin(
            progress.session,
            item,
            source.info,
            now,
            progress.last_scored_s,
            progress.ledger,
            progress.segments,
        )

    def _read(self, source: Source, decoder: Decoder, begin: Begin) -> End:
        """Every packet of the session through sampler and decoder."""
        position = self.position
        sampler = Sampler(self._config.sampling_of(self._stream), kind=source.kind, rng=self._rng)
        packets = ((p, False) for p in source) if self._live else with_last(iter(source))
        for packet, last in packets:
            if self._stop.is_set():
                return End("shutdown", position.time_s, time.monotonic())
            position.time_s = max(position.time_s, packet.time_s)
            position.packets += 1
            if self._live and position.packets % CLOCK_PACKETS == 0:
                position.sender_s = source.sender_time()
            try:
                for picture in pictures(packet, sampler, decoder, last=last):
                    if begin.resumed_s is None or picture.time_s > begin.resumed_s:
                        self._store(picture)
            except DecodeError as error:
                clock = packet.arrived if self._live else packet.time_s
                self._send(Trouble("corrupt", clock, "corrupt", str(error)))
            position.plan, position.why, position.gop_s = sampler.plan, sampler.why, sampler.gop_s
            position.damaged = decoder.damaged
        return End("shutdown" if self._stop.is_set() else "end_of_stream", position.time_s, time.monotonic())

    def _broken(self, error: SourceError) -> End:
        """The session broke off. Where nothing is live, a sender that hangs up has come to its end."""
        now, at = time.monotonic(), self.position.time_s
        if self._stop.is_set():
            return End("shutdown", at, now)
        if isinstance(error, SourceEnded) and not self._live:
            return End("end_of_stream", at, now)
        return End("stream_lost", at, now, CAUSES.get(error.reason, "disconnected"), error.reason, str(error))

    def _store(self, picture: Picture) -> None:
        """Convert the picture for each of the stream's models and hand it on."""
        self._samples += 1
        frames = {
            model: pool.store(
                picture,
                stream=self._number,
                sample=self._samples,
                live=self._live,
                timeout=0 if self._live else None,
            )
            for model, pool in self._pools.items()
        }
        self._send(Sample(self._samples, picture.time_s, picture.arrived, frames))
