"""Every error that framewarden raises on purpose, in one tree.

    FramewardenError
    ├── ConfigError          refuse to start: names the place, the value and what is allowed   exit code 2
    ├── ModelError           refuse to start: weights, manifest or engine cannot be used       exit code 2
    ├── DiskError            a folder of ours cannot be written now: later it may go well      exit code 1
    ├── BackendError         stop: a library or device failed in a way that a retry will not mend
    ├── SourceError          retry (live) or fail this input (file); costs its own stream only
    │   ├── SourceNotFound       no such file, 404, no such RTSP path
    │   ├── SourceRefused        the host refused, is unreachable or does not resolve
    │   ├── SourceAuth           401, 403, wrong user or password
    │   ├── SourceTls            certificate or TLS handshake
    │   ├── SourceTimeout        no answer, or no packet, within the deadline
    │   ├── SourceNoVideo        opened, but holds no video
    │   ├── SourceUnsupported    scheme, protocol, container or codec that this build cannot read
    │   ├── SourceNoRoom         this machine has no memory for one more
    │   ├── SourceCorrupt        is not a video, or is damaged beyond reading
    │   └── SourceEnded          a live source hung up
    ├── DecodeError          this picture or packet is lost; the stream goes on at the next keyframe
    │   └── NoTurn               it was not decoded at all: the machine is behind
    ├── SinkError            retry for ever; the outbox holds what could not be delivered
    └── Closed               the other end of a channel has gone: the way a thread learns to end

A vendor's exception never leaves ``backends/``: it is mapped there with ``raise X from exc``.
"""


class FramewardenError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown to a user (no credentials)."""


class ConfigError(FramewardenError):
    """A config, command line or environment value is wrong."""


class ModelError(FramewardenError):
    """Weights, manifest or engine cannot be used."""


class DiskError(FramewardenError):
    """The disk of a folder of ours is full, read-only or failing: the same may go well later."""


class BackendError(FramewardenError):
    """A library or device failed in a way that a retry will not mend."""


class SourceError(FramewardenError):
    """A source could not be opened or read. ``reason`` is the short, stable word used in events."""

    reason = "failed"


class SourceNotFound(SourceError):
    """No such file, HTTP 404 or no such RTSP path."""

    reason = "not_found"


class SourceRefused(SourceError):
    """The host refused the connection, is unreachable or does not resolve."""

    reason = "refused"


class SourceAuth(SourceError):
    """The source wants other credentials."""

    reason = "auth"


class SourceTls(SourceError):
    """The TLS handshake or the certificate failed."""

    reason = "tls"


class SourceTimeout(SourceError):
    """No answer, or no packet, within the deadline."""

    reason = "timeout"


class SourceNoVideo(SourceError):
    """The source opened but holds no video."""

    reason = "no_video"


class SourceUnsupported(SourceError):
    """Scheme, protocol, container or codec that this build cannot read."""

    reason = "unsupported"


class SourceNoRoom(SourceError):
    """The device has no memory for the decoder of one more stream."""

    reason = "no_room"


class SourceCorrupt(SourceError):
    """Not a video, or damaged beyond reading."""

    reason = "corrupt"


class SourceEnded(SourceError):
    """A live source hung up."""

    reason = "ended"


class DecodeError(FramewardenError):
    """A packet could not be decoded; the decoder resynchronises at the next keyframe."""


class NoTurn(DecodeError):
    """A live picture was not decoded: by the time it could have been scored it would have been too old."""


class SinkError(FramewardenError):
    """An event could not be delivered now; it stays in the outbox. ``reason`` is a short, stable word."""

    reason = "failed"


class Closed(FramewardenError):
    """The other end of a channel has gone."""
