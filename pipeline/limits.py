"""How much a source may ask for. What asks for more ends in a ``SourceUnsupported`` that names the limit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The config's ``limits``, as the source backend takes them; each has its meaning there."""

    picture_pixels: int = 8192 * 8192
    frame_rate: float = 2000
    probe_bytes: int = 5_000_000
    open_s: float = 60
    tracks: int = 256
    samples: int = 10_000_000
    index_bytes: int = 64_000_000
    packet_bytes: int = 64_000_000
    playlist_depth: int = 2
    playlists: int = 64
    playlist_bytes: int = 4_000_000
    redirects: int = 5
