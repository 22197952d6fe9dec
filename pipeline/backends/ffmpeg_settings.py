"""What a source is opened with, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, SupportsFloat, cast

from av.container import InputContainer

from pipeline.backends.http_socket import Deadline
from pipeline.backends.source_http import Http
from pipeline.flow.source import Kind
from pipeline.inputs import Reach
from pipeline.limits import Limits
from pipeline.masking import mask_url

Transport = Literal["tcp", "udp"]
Pace = Literal["asap", "realtime"]

# Containers of pictures and sound. Playlists of local files and descriptions of devices and networks (concat,
# sdp, hls …) are not among them: an upload must not name what else is read.
CONTAINERS = ",".join(
    (
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,live_flv,asf,asf_o,ogg,mxf,mxf_opatom",
        "h264,hevc,vvc,av1,obu,ivf,m4v,mpegvideo,dv,nut,rm,wtv,gxf,vc1,vc1test,gif,apng,mjpeg,mjpeg_2000",
        "yuv4mpegpipe,nsv,3dostr,swf,dirac,evc,cavsvideo,h261,h263,mp3,aac,wav,flac,w64,aiff,ac3,eac3",
    )
)


@dataclass(frozen=True)
class SourceSettings:
    """What to open and how. ``url`` may hold credentials, so it is in no ``repr``.

    ``kind`` ``live`` on the network means that an end is a lost connection. ``open_timeout_s`` bounds
    everything up to the first packet, ``read_timeout_s`` the wait for each one (for HLS: at least three
    segments); of a local file each is bounded by ``limits.open_s``. ``pace`` ``realtime`` gives packets when
    they are due. ``tls_ca`` is a file of authorities, in place of the system's own. ``answered`` is called
    when an RTSP or RTMP server plays: what is waited for from then on is pictures."""

    url: str = field(repr=False)
    kind: Kind
    transport: Transport = "tcp"
    open_timeout_s: float = 5.0
    read_timeout_s: float = 5.0
    pace: Pace = "asap"
    reach: Reach = field(default_factory=Reach)
    tls_ca: str | None = None
    tls_verify: bool = True
    limits: Limits = field(default_factory=Limits)
    answered: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """The URL as it may be shown. A file's name may be any bytes."""
        return mask_url(self.url).encode("utf-8", "backslashreplace").decode()


@dataclass
class Opened:
    """An open container and what bounds its waits; ``rotation`` is in degrees clockwise, ``oversized`` the
    size of a picture that was too large to learn anything from it."""

    container: InputContainer
    deadline: Deadline
    http: Http | None = None
    rotation: int = 0
    oversized: str | None = None

    def close(self) -> None:
        """Hang up. Harmless to repeat."""
        self.container.close()
        if self.http is not None:
            self.http.close()


def bounds(limits: Limits) -> dict[str, str]:
    """What FFmpeg enforces itself, while it opens and while it looks at the first pictures."""
    return {
        "max_streams": str(limits.tracks),
        "max_pixels": str(limits.picture_pixels),
        "probesize": str(limits.probe_bytes),
    }


def timeouts(deadline: Deadline, opening: SupportsFloat | None = None) -> tuple[float, float]:
    """PyAV reads its two timeouts anew for each step, as numbers: so one deadline bounds connecting, probing
    and, restarted, every read. ``opening`` is read in its place until the container is open."""
    return cast(float, opening or deadline), cast(float, deadline)
