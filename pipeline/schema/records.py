"""What events are made of: the event itself and what a caller knows of stream, policy, clock and totals."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from pipeline.errors import ConfigError
from pipeline.flow.source import Kind
from pipeline.schema.models import SEGMENT, Clock

MAX_BYTES = 64 * 1024
_NAMED_BYTES = 20 * 1024  # id and tenant appear twice in an event; the rest of it is under 8 KiB


def new_id() -> str:
    """A UUIDv7: unique for good, and roughly in order of time."""
    return str(uuid_utils.uuid7())


def timestamp(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-11-23T10:00:00.120Z``."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Event:
    """An event ready to be stored and sent. ``body`` is the envelope's JSON; the rest is copied out of it."""

    id: str
    type: str
    source: str
    subject: str
    tenant: str
    stream: str
    category: str | None
    segment_id: str | None
    rev: int | None
    state: str | None
    body: str = field(repr=False)

    @property
    def topic(self) -> str:
        """Which Redis key it belongs to: ``segments`` or ``health``."""
        return "segments" if self.type == SEGMENT else "health"

    def fields(self) -> dict[str, str]:
        """The fields of the Redis entry: ``event`` and, for filtering without parsing, those that exist."""
        beside = {
            "id": self.id,
            "type": self.type,
            "rev": None if self.rev is None else str(self.rev),
            "state": self.state,
            "stream": self.stream,
            "category": self.category,
            "tenant": self.tenant,
        }
        return {"event": self.body} | {name: value for name, value in beside.items() if value is not None}

    @classmethod
    def from_json(cls, body: str) -> "Event":
        """Read an envelope back; keys of a later version are ignored.

        :raises ValueError: it is not an event of ours."""
        try:
            envelope = json.loads(body)
            data = envelope["data"]
            event = cls(
                id=envelope["id"],
                type=envelope["type"],
                source=envelope["source"],
                subject=envelope["subject"],
                tenant=data["tenant"],
                stream=data["stream"]["id"],
                category=data.get("category"),
                segment_id=data.get("segment_id"),
                rev=data.get("rev"),
                state=data.get("state"),
                body=body,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise ValueError("not a framewarden event: " + repr(body[:80])) from exc
        required = (event.id, event.type, event.source, event.subject, event.tenant, event.stream)
        optional = (event.category, event.segment_id, event.state)
        whole = event.rev is None or (isinstance(event.rev, int) and event.rev >= 1)
        if not (all(isinstance(value, str) for value in required) and whole) or not all(
            value is None or isinstance(value, str) for value in optional
        ):
            raise ValueError("not a framewarden event: " + repr(body[:80]))
        for value in (body, *required, *filter(None, optional)):
            value.encode()  # a lone surrogate raises a ValueError, too
        return event


@dataclass(frozen=True, slots=True)
class StreamContext:
    """Where events of one session come from. ``url`` is masked already; ``session`` is None before the first.

    :raises ConfigError: id, tenant, url and labels are more than 20 KiB together."""

    node: str
    tenant: str
    stream_id: str
    session: str | None
    kind: Kind
    url: str
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("node", "tenant", "stream_id", "url"):
            object.__setattr__(self, name, utf8(getattr(self, name)))
        object.__setattr__(self, "labels", {utf8(key): utf8(text) for key, text in self.labels.items()})
        size = len(json.dumps([self.node, self.tenant, self.block()], ensure_ascii=False).encode())
        if size > _NAMED_BYTES:
            raise ConfigError(
                f"stream {self.stream_id[:60]!r}: id, tenant, url and labels are {size} bytes together; "
                f"an event holds at most {_NAMED_BYTES}: shorten the labels"
            )

    def block(self) -> dict[str, Any]:
        """The ``stream`` block of an event."""
        return {
            "id": self.stream_id,
            "session": self.session,
            "kind": self.kind,
            "url": self.url,
            "labels": self.labels,
        }


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What an event says of the policy; ``sha256`` is of its canonical JSON."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class WallClock:
    """Unix time in seconds of media second 0, and by whose clock. ``none`` for files not in real time."""

    epoch_s: float | None
    clock: Clock

    def __post_init__(self) -> None:
        if (self.epoch_s is None) != (self.clock == "none"):
            raise ValueError(f"clock {self.clock!r} does not go with epoch {self.epoch_s!r}")

    def at(self, media_s: float) -> str | None:
        """The wall time of a media time."""
        return None if self.epoch_s is None else timestamp(self.epoch_s + media_s)


NO_CLOCK = WallClock(None, "none")


@dataclass(frozen=True, slots=True)
class Totals:
    """What a stream event says at the end: seconds by what became of them, and segments published."""

    duration_s: float | None
    screened_s: float
    late_s: float
    dropped_s: float
    lost_s: float
    segments: int


def utf8(text: str) -> str:
    """The text with what is not UTF-8 written as escapes: file names may hold such bytes, JSON may not."""
    return text.encode("utf-8", "backslashreplace").decode()
