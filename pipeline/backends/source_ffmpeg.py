"""Sources by PyAV: files, RTSP, RTMP, HLS and progressive HTTP, as packets on one timeline."""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from types import TracebackType
from typing import Self

import av
from av.video.stream import VideoStream

from pipeline.backends.access_units import whole_pictures
from pipeline.backends.ffmpeg_errors import map_errors
from pipeline.backends.ffmpeg_open import open_container
from pipeline.backends.ffmpeg_remote import probe_protocols
from pipeline.backends.ffmpeg_settings import Opened, SourceSettings
from pipeline.backends.ffmpeg_video import video_stream
from pipeline.backends.file_index import named_keyframes
from pipeline.backends.realtime import paced
from pipeline.backends.ts_index import TsIndex
from pipeline.errors import SourceEnded, SourceError, SourceNoVideo, SourceTimeout, SourceUnsupported
from pipeline.flow.clock import MAX_RATE, StreamClock
from pipeline.flow.source import Kind, Packet, StreamInfo
from pipeline.inputs import local_path

__all__ = ["FfmpegSource", "SourceSettings", "open_source", "probe_protocols"]

_INDEXED = ("mov", "matroska", "avi")  # FFmpeg's names of containers that can be sought by keyframe
_WRAP_BITS = {"mpegts": 33, "mpeg": 33, "hls": 33, "rtsp": 32, "flv": 32, "live_flv": 32}


def open_source(
    settings: SourceSettings, *, stop: threading.Event, monotonic: Callable[[], float] = time.monotonic
) -> "FfmpegSource":
    """Connect and learn the video stream.

    :raises SourceError: of the class that says why not; the text names the source, masked, and the cure."""
    opened = open_container(settings, stop=stop, monotonic=monotonic)
    try:
        return FfmpegSource(settings, opened, stop, monotonic)
    except BaseException as error:
        opened.close()
        if isinstance(error, SourceNoVideo) and opened.http is not None and opened.http.error is not None:
            raise opened.http.error from error  # there is none because of what its playlist names
        raise


NAP_S, WAITED_S = 0.05, 0.002
"""A reader that had to wait for a packet for ``WAITED_S`` rests for ``NAP_S``, and reads in one go what has
come meanwhile: waking up for each of its 300 network packets a second is a quarter of what RTSP costs."""
PROBES = 8


class FfmpegSource:
    """One session; see ``flow.source.Source``. Used by one thread."""

    def __init__(
        self,
        settings: SourceSettings,
        opened: Opened,
        stop: threading.Event,
        monotonic: Callable[[], float],
    ) -> None:
        self.kind: Kind = settings.kind
        self._settings = settings
        self._opened = opened
        self._stop = stop
        self._monotonic = monotonic
        self._remote = local_path(settings.url) is None
        self._rests = self._remote and settings.kind == "live" and settings.transport != "udp"
        self._stream = video_stream(opened, settings)
        self._format = opened.container.format.name.split(",")[0]
        self._index = self._own_index()
        self.info = self._describe()
        self._time_base = self._stream.time_base or Fraction(1, 90000)
        self._clock = StreamClock(
            self._time_base,
            self.info.frame_rate,
            _WRAP_BITS.get(self._format, 0),
            # Segments of a playlist may each have a clock of their own, recorded or not.
            bridge=self._remote and (settings.kind == "live" or self._format == "hls"),
        )
        self._packets = self._read()
        self._epoch_pts: int | None = None
        self._started: float | None = None
        self._tag = 0
        self._second, self._in_second = -1, 0

    def __repr__(self) -> str:
        return f"FfmpegSource({self._settings.shown}, {self.info})"

    def __iter__(self) -> Iterator[Packet]:
        while True:
            packet = next(self._packets, None)
            if packet is None or self._stop.is_set():
                return
            yield packet

    def seek(self, time_s: float) -> None:
        """Go on from the last keyframe at or before ``time_s``.

        :raises SourceUnsupported: the source cannot be sought."""
        if not self._can_seek:
            raise SourceUnsupported(f"{self._settings.shown}: cannot be sought; read it from the start")
        if self._epoch_pts is None and next(self._packets, None) is None:  # time 0 is the first keyframe's
            return
        ticks = self._clock.pts_at(time_s)
        with self._mapped():
            if self._index is None:
                self._opened.container.seek(ticks, stream=self._stream)
            else:
                self._opened.container.seek(self._index.place(ticks), unsupported_byte_offset=True)
        self._clock.sought()
        self._packets = self._read()
        self._started = None
        self._second = -1

    def keyframes(self) -> tuple[float, ...]:
        """See ``flow.source.Source``."""
        if self.kind == "live" or self._remote or not self._can_seek:
            return ()
        self.seek(0.0)  # some formats read their index only then
        if self._index is None:
            ticks = named_keyframes(self._stream, self._opened.container.size)
        else:
            ticks = self._index.keyframes.ticks
        times = tuple(float((tick - ticks[0]) * self._time_base) for tick in ticks)
        probes = times[:: max(1, len(times) // PROBES)]
        honest = len(times) > 1 and all(self._begins_at(time_s) for time_s in probes)
        self.seek(0.0)
        return times if honest else ()

    @property
    def _can_seek(self) -> bool:
        return self.info.has_index and (self._index is None or bool(self._index.keyframes.ticks))

    def _begins_at(self, time_s: float) -> bool:
        """Whether there is a keyframe at just this time."""
        self.seek(time_s)
        packet = next(iter(self), None)
        return packet is not None and packet.keyframe and abs(packet.time_s - time_s) < 1e-3

    def again(self) -> "FfmpegSource":
        """See ``flow.source.Source``."""
        other = open_source(self._settings, stop=self._stop, monotonic=self._monotonic)
        other._index = self._index
        return other

    def sender_time(self) -> float | None:
        """Unix time in seconds of stream time 0 by the sender's clock (RTCP), or None."""
        known = self._opened.container.start_time_realtime
        if not known or known < 0 or self._epoch_pts is None or self._format != "rtsp":
            return None
        return known / 1e6 + float(self._epoch_pts * self._time_base)

    def close(self) -> None:
        """Hang up. Harmless to repeat."""
        self._packets.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _describe(self) -> StreamInfo:
        stream, context = self._stream, self._stream.codec_context
        rate = stream.average_rate or stream.guessed_rate
        container = self._opened.container
        duration: float | None = None
        if self.kind == "file" or not self._remote:
            if stream.duration and stream.time_base:
                duration = float(stream.duration * stream.time_base)
            elif container.duration:
                duration = container.duration / 1e6
        http = self._opened.http
        seekable = not self._remote or (http is not None and self._format != "hls" and http.seekable)
        return StreamInfo(
            codec=context.codec.canonical_name,
            width=context.width,
            height=context.height,
            rotation=self._opened.rotation,
            frame_rate=rate if rate and 0 < rate <= MAX_RATE else None,
            duration_s=duration,
            max_pixels=self._settings.limits.picture_pixels,
            pictures=stream.frames or None if self._format == "mov" and not self._remote else None,
            has_index=seekable and (self._format in _INDEXED or self._index is not None),
            codec_parameters=context,
        )

    def _own_index(self) -> TsIndex | None:
        """One of our making, for a local file whose container has none."""
        path = local_path(self._settings.url)
        if path is None or self._format != "mpegts":
            return None
        return TsIndex(path, self._stream.id, self._stop)

    def _read(self) -> Generator[Packet, None, None]:
        """Packets on the timeline, when they are due."""
        if self._settings.pace == "asap":
            return self._timed()
        return paced(self._timed(), self._stop, self._monotonic, local=not self._remote)

    def _timed(self) -> Generator[Packet, None, None]:
        """Packets on the timeline, as fast as they can be read."""
        packets = self._demux()
        if self._parsed():
            packets = whole_pictures(packets, self.info.codec, self._settings.limits.packet_bytes)
        for packet in packets:
            pts, dts, keyframe, size = packet.pts, packet.dts, packet.is_keyframe, packet.size
            time_s = self._clock.time_s(pts, dts, keyframe)
            if time_s is None:
                continue
            if self._epoch_pts is None:
                self._epoch_pts = pts if pts is not None else dts or 0
            decode_s = self._clock.decode_s
            self._bound(size, decode_s)
            self._tag += 1
            yield Packet(
                time_s,
                keyframe,
                size,
                self._arrival(decode_s),
                self._tag,
                packet.is_disposable,
                packet.is_corrupt,
                packet,
                packet.has_sidedata("new_extradata"),
            )

    def _parsed(self) -> bool:
        """Whether FFmpeg had to find out itself where each picture begins: units are not framed by
        lengths."""
        extradata = bytes(self._stream.codec_context.extradata or b"")
        return self.info.codec in ("h264", "hevc") and extradata[:1] != b"\1"

    def _bound(self, size: int, decode_s: float) -> None:
        """Judge the packet just read, which is to be decoded at ``decode_s``.

        :raises SourceUnsupported: it is too large, or one too many in its second."""
        limits, second = self._settings.limits, math.floor(decode_s)
        self._in_second = self._in_second + 1 if second == self._second else 1
        self._second = second
        if size > limits.packet_bytes:
            raise SourceUnsupported(
                f"{self._settings.shown}: a picture of {size} encoded bytes; "
                f"limits.packet_bytes allows {limits.packet_bytes}"
            )
        if self._in_second > limits.frame_rate:
            raise SourceUnsupported(
                f"{self._settings.shown}: more pictures in a second than limits.frame_rate allows "
                f"({limits.frame_rate:g})"
            )

    def _arrival(self, decode_s: float) -> float:
        """When the packet just read, to be decoded at ``decode_s``, counts as arrived: now, or when it is
        due."""
        now = self._monotonic()
        if self._settings.pace == "asap":
            return now
        if self._started is None:
            self._started = now - decode_s
        return self._started + decode_s

    def _typed(self, error: Exception) -> SourceError:
        """A vendor's error as ours."""
        try:
            with self._mapped():
                raise error
        except SourceError as typed:
            return typed

    def _demux(self) -> "Iterator[av.Packet[VideoStream]]":
        """The stream's packets, every wait bounded, every error mapped."""
        shown, opened = self._settings.shown, self._opened
        packets = opened.container.demux(self._stream)
        while not self._stop.is_set():
            opened.deadline.restart(self._patience())
            try:
                packet = next(packets, None)  # no context manager here: it would cost more than the packet
            except (av.FFmpegError, MemoryError, UnicodeError) as error:
                raise self._first_cause() or self._typed(error) from error
            if packet is None and (cause := self._first_cause()):
                raise cause
            if packet is None:
                break
            if packet.size:  # the last, empty one tells a decoder to flush; ours is told by its caller
                waited = self._rests and opened.deadline.seconds - opened.deadline.left() > WAITED_S
                yield packet
                if waited:
                    self._stop.wait(NAP_S)
            elif self._remote and self.kind == "live" and opened.deadline.left() <= 0:
                # Some demuxers take an interrupted wait for the end.
                late = SourceTimeout(f"{shown}: no answer within {opened.deadline.seconds:g} s")
                raise self._first_cause() or late
        if not self._stop.is_set() and self._remote and self.kind == "live":
            raise SourceEnded(f"{shown}: the server hung up")

    def _first_cause(self) -> SourceError | None:
        """What FFmpeg was not told: it finds an empty file instead."""
        return self._opened.http.error if self._opened.http else None

    def _mapped(self) -> AbstractContextManager[object]:
        settings = self._settings
        return map_errors(settings.shown, self._opened.deadline, remote=self._remote, limits=settings.limits)

    def _patience(self) -> float:
        """Seconds to wait for a packet: HLS hands them out a segment at a time, however long it says that
        is."""
        if not self._remote:
            return self._settings.limits.open_s
        segment_s = self._opened.http.target_s if self._opened.http else 0
        return max(self._settings.read_timeout_s, min(3.0 * segment_s, self._settings.limits.open_s))
