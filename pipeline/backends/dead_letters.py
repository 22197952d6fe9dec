"""Dead letters: events that consumers could not handle, kept in ``<prefix>:dlq`` until somebody decides."""

import time
from dataclasses import dataclass
from typing import Any

from pipeline.backends.redis_connect import RedisDownError, RedisSettings, mapped
from pipeline.errors import ConfigError
from pipeline.events import Event, timestamp

DLQ = "dlq"
_PAGE = 1000
_EXTRA = ("topic", "redis_id", "group", "consumer", "attempts", "why", "died")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """``dlq_id`` is its own Redis id, ``redis_id`` the one that it had in its topic; ``fields`` are what it
    held there."""

    dlq_id: str
    topic: str
    redis_id: str
    group: str
    consumer: str
    attempts: int
    why: str
    died: str
    fields: dict[str, str]


def bury(
    client: Any,
    settings: RedisSettings,
    entry: tuple[str, str, dict[str, str]],
    who: tuple[str, str],
    attempts: int,
    why: str,
) -> None:
    """Write a dead letter; ``who`` is group and consumer."""
    topic, redis_id, fields = entry
    said = (topic, redis_id, *who, str(attempts), why[:1000], timestamp(time.time()))
    kept = {f"entry:{name}": text for name, text in fields.items()}
    with mapped(settings.shown):
        client.xadd(settings.key(DLQ), dict(zip(_EXTRA, said, strict=True)) | kept)


def dead_letters(client: Any, settings: RedisSettings, *, limit: int | None = None) -> list[DeadLetter]:
    """The dead letters, oldest first."""
    found: list[DeadLetter] = []
    low = "-"
    while limit is None or len(found) < limit:
        count = _PAGE if limit is None else min(_PAGE, limit - len(found))
        with mapped(settings.shown):
            page = client.xrange(settings.key(DLQ), low, "+", count=count)
        found += [_letter(str(dlq_id), fields or {}) for dlq_id, fields in page]
        if len(page) < count:
            break
        low = f"({page[-1][0]}"
    return found


def dead_letter(client: Any, settings: RedisSettings, dlq_id: str) -> DeadLetter:
    """One of them. :raises ConfigError: there is none of that id."""
    page = []
    if dlq_id.replace("-", "", 1).isdigit():
        with mapped(settings.shown):
            page = client.xrange(settings.key(DLQ), dlq_id, dlq_id)
    if not page:
        raise ConfigError(f"{dlq_id!r}: there is no such dead letter; see: framewarden queue dlq list")
    return _letter(dlq_id, page[0][1] or {})


def requeue(client: Any, settings: RedisSettings, letter: DeadLetter) -> str:
    """Put it back at the end of its topic, for all groups, and delete it here. Returns its new Redis id.

    It is written first: after a crash between the two it is in both.

    :raises ConfigError: it is no event, and would only come back."""
    try:
        fields = Event.from_json(letter.fields.get("event", "")).fields()
    except ValueError as exc:
        raise ConfigError(
            f"{letter.dlq_id}: is no event ({exc}); drop it: framewarden queue dlq drop {letter.dlq_id}"
        ) from exc
    with mapped(settings.shown):
        redis_id = client.xadd(settings.key(letter.topic), fields, nomkstream=True)
    if redis_id is None:
        raise RedisDownError(
            "emptied", f"Redis {settings.shown}: {settings.key(letter.topic)} is not there: start a run first"
        )
    drop(client, settings, letter)
    return str(redis_id)


def drop(client: Any, settings: RedisSettings, letter: DeadLetter) -> None:
    """Delete it."""
    with mapped(settings.shown):
        client.xdel(settings.key(DLQ), letter.dlq_id)


def _letter(dlq_id: str, fields: dict[str, str]) -> DeadLetter:
    said = {name: fields.get(name, "") for name in _EXTRA}
    kept = {name[6:]: text for name, text in fields.items() if name.startswith("entry:")}
    attempts = int(said["attempts"]) if said["attempts"].isdigit() else 0
    return DeadLetter(
        dlq_id, said["topic"], said["redis_id"], said["group"], said["consumer"], attempts, said["why"],
        said["died"], kept,
    )  # fmt: skip
