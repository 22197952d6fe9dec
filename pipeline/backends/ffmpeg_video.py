"""Which of a container's streams is read."""

from typing import Any

from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from pipeline.backends.ffmpeg_settings import Opened, SourceSettings
from pipeline.errors import SourceNoVideo, SourceUnsupported

_NO_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def video_stream(opened: Opened, settings: SourceSettings) -> VideoStream:
    """The one stream to read; the demuxer is told to skip all others."""
    shown, limits, container = settings.shown, settings.limits, opened.container
    candidates = [stream for stream in container.streams.video if has_pictures(stream)]
    if not candidates:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceNoVideo(f"{shown}: holds no video (found: {kinds})")
    readable = [stream for stream in candidates if context_of(stream) is not None]
    if not readable:
        raise SourceUnsupported(f"{shown}: its video codec is unknown to this FFmpeg")
    chosen = max(readable, key=_pixels)
    pixels, size = _pixels(chosen), f"{chosen.codec_context.width}x{chosen.codec_context.height}"
    if pixels > limits.picture_pixels or (pixels == 0 and opened.oversized):
        raise SourceUnsupported(
            f"{shown}: pictures of {size if pixels else opened.oversized}; "
            f"limits.picture_pixels allows {limits.picture_pixels}"
        )
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    return chosen


def _pixels(stream: VideoStream) -> int:
    return stream.codec_context.width * stream.codec_context.height


def has_pictures(stream: VideoStream) -> bool:
    """A stream of moving pictures, not a cover or thumbnails."""
    return not stream.disposition & _NO_PICTURES


def context_of(stream: VideoStream) -> Any:
    return stream.codec_context  # None for a codec without a decoder, whatever the type says
