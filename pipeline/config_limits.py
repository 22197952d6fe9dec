"""The config's keys about sources that mean harm: ``limits`` and ``tls``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.config_part import Part
from pipeline.config_types import Number, Whole
from pipeline.limits import Limits

_LIMITS = Limits()


class LimitRules(Part):
    """How much a source may ask for. A source that asks for more fails with an error that names the limit."""

    picture_pixels: Annotated[Whole, Field(ge=4096, le=2**28)] = _LIMITS.picture_pixels
    """Largest picture, width times height."""
    frame_rate: Annotated[Number, Field(gt=0, le=100_000)] = _LIMITS.frame_rate
    """Most pictures in a second of stream time."""
    probe_bytes: Annotated[Whole, Field(ge=4096, le=1_000_000_000)] = _LIMITS.probe_bytes
    """Most bytes that are read ahead to learn what a source holds."""
    open_s: Annotated[Number, Field(gt=0, le=3600)] = _LIMITS.open_s
    """Longest that opening a source may take, and longest wait for the next packet of a local file, or of HLS
    with long segments."""
    tracks: Annotated[Whole, Field(ge=1, le=10_000)] = _LIMITS.tracks
    """Most tracks of a file or stream: video, sound, subtitles."""
    samples: Annotated[Whole, Field(ge=1)] = _LIMITS.samples
    """Most entries that the index of an MP4 or MOV file may announce; each costs 24 bytes of memory."""
    index_bytes: Annotated[Whole, Field(ge=4096, le=2_000_000_000)] = _LIMITS.index_bytes
    """Largest index of an MP4 or MOV file."""
    packet_bytes: Annotated[Whole, Field(ge=4096, le=2_000_000_000)] = _LIMITS.packet_bytes
    """Largest encoded picture."""
    playlist_depth: Annotated[Whole, Field(ge=1, le=2)] = _LIMITS.playlist_depth
    """HLS: 2 allows a playlist of playlists, 1 only one of segments; never more."""
    playlists: Annotated[Whole, Field(ge=1, le=10_000)] = _LIMITS.playlists
    """HLS: most playlists that one source may name."""
    playlist_bytes: Annotated[Whole, Field(ge=4096)] = _LIMITS.playlist_bytes
    """HLS: largest playlist."""
    redirects: Annotated[Whole, Field(ge=0, le=100)] = _LIMITS.redirects
    """HTTP: most redirects in a row."""
    streams: Annotated[Whole, Field(ge=1)] = 4096
    """Most entries under streams."""


class SourceTls(Part):
    """How rtsps://, rtmps:// and https:// are verified."""

    ca: Path | None = None
    """File of the certificate authorities to trust (PEM), in place of the system's."""
    verify: bool = True
    """false: any certificate will do. Whoever is on the way can then read and replace the stream."""
