"""The Redis sink: appends events to two streams and tells what became of them.

Not thread-safe: the publisher's thread owns it. A connection that breaks is never opened again behind the
caller's back: every call then raises, until ``connect`` has been called, so that the caller can first
compare what the server holds with what it wrote. (Cluster clients follow their nodes by themselves; there,
compare regularly.)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from pipeline.backends.redis_connect import RedisDownError, RedisSettings, mapped, open_client
from pipeline.errors import ConfigError
from pipeline.events import Event
from pipeline.outbox import split_id

TOPICS = ("segments", "health")
GROUP = "review"
ACL = (
    "ACL SETUSER {user} on >PASSWORD resetkeys ~{prefix}:* resetchannels -@all +ping +info +multi +exec"
    " +xadd +xrange +xtrim +xpending +xinfo|stream +xinfo|groups +xgroup|create +memory|usage"
    " +client|setname"
)
"""The rights that the sink needs, as a command for ``redis-cli``."""
OPERATOR_ACL = ACL + " +xlen +xdel"
"""The same for ``framewarden queue``."""
CLUSTER_ACL = " +cluster|slots +command"
"""What every client of a cluster asks besides; without it redis-py says that there is no cluster."""
_PAGE = 1000
_LAST = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Topic:
    """A stream as the server holds it. ``last_id`` is that of the newest entry ever added, ``added`` how many
    ever were (None: the server does not count, it is older than Redis 7)."""

    run_id: str
    last_id: str
    length: int
    added: int | None


class RedisSink:
    """Writes events to the streams ``<prefix>:segments`` and ``<prefix>:health``.

    Every method raises ``RedisDownError`` (a ``SinkError``) for whatever Redis or the network does.

    :raises ConfigError: the URL cannot be understood."""

    def __init__(self, settings: RedisSettings, *, wall: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.url = settings.shown
        self._wall = wall
        self._connecting = False
        self._client: Any = open_client(settings, self._on_connect)

    def connect(self) -> list[str]:
        """Connect, check the server, create what is missing. Returns what is unsafe, a sentence each.

        :raises RedisDownError: it is out of reach, or a right is missing.
        :raises ConfigError: it is unsafe, and ``on_unsafe`` is ``refuse``: nothing was written."""
        with mapped(self.url):
            self._connecting = True
            try:
                self._client.ping()
            finally:
                self._connecting = False
        unsafe = self._unsafe()
        if unsafe and self.settings.on_unsafe == "refuse":
            raise ConfigError(f"Redis {self.url}: redis.on_unsafe is refuse, and {'; '.join(unsafe)}")
        self.ensure_groups()
        self._check_rights()
        return unsafe

    def publish(self, topic: str, events: Sequence[Event]) -> list[str]:
        """Append events of one topic in order, all or none. Returns their Redis ids.

        A stream that has gone (FLUSHALL) is not made again here: what was lost with it has to come first.
        After an error they may or may not have been written."""
        with mapped(self.url):
            pipe = self._client.pipeline(transaction=True)
            for event in events:
                pipe.xadd(self.settings.key(topic), event.fields(), nomkstream=True)
            ids = pipe.execute()
        if None in ids:
            raise RedisDownError(
                "emptied", f"Redis {self.url}: emptied: {self.settings.key(topic)} has gone: writing it again"
            )
        return [str(redis_id) for redis_id in ids]

    def ensure_groups(self) -> None:
        """Create streams and consumer group where missing, from the first entry on."""
        for topic in TOPICS:
            if any(name == GROUP for name, _ in self._groups(topic)):
                continue  # a full server would refuse even to be asked
            with mapped(self.url):
                try:
                    self._client.xgroup_create(self.settings.key(topic), GROUP, id="0", mkstream=True)
                except redis.ResponseError as exc:
                    if "BUSYGROUP" not in str(exc):
                        raise

    def topic(self, topic: str) -> Topic | None:
        """The stream's state now; None when it does not exist."""
        with mapped(self.url):
            run_id = str(self._info("server").get("run_id", ""))
            try:
                found = self._client.xinfo_stream(self.settings.key(topic))
            except redis.ResponseError as exc:
                if "no such key" in str(exc):
                    return None
                raise
        added = found.get("entries-added")
        return Topic(
            run_id,
            str(found["last-generated-id"]),
            int(found["length"]),
            None if added is None else int(added),
        )

    def entries(self, topic: str, first: str, last: str) -> dict[str, str]:
        """Redis id → event id of the entries from ``first`` to ``last``, both included."""
        found: dict[str, str] = {}
        low = first
        while True:
            with mapped(self.url):
                page = self._client.xrange(self.settings.key(topic), low, last, count=_PAGE)
            found |= {str(redis_id): str((fields or {}).get("id", "")) for redis_id, fields in page}
            if len(page) < _PAGE:
                return found
            low = "(" + str(page[-1][0])

    def acknowledged(self, topic: str) -> str | None:
        """The Redis id up to which every group has acknowledged everything; None when there is no group."""
        bounds = []
        for name, last in self._groups(topic):
            with mapped(self.url):
                waiting = self._client.xpending(self.settings.key(topic), name)
            # The group's position was read first: what it was given since then is beyond `last`.
            bound = split_id(last)
            if waiting["pending"]:
                bound = min(bound, _before(split_id(str(waiting["min"]))))
            bounds.append(bound)
        return None if not bounds else "{}-{}".format(*min(bounds))

    def taken(self, topic: str, ids: Sequence[str]) -> set[str]:
        """Those of the Redis ids, of entries that have gone, that every group was given and has acknowledged,
        and that somebody may have deleted (``XDEL``) then. A server older than Redis 7 does not tell what was
        deleted from what was trimmed."""
        groups = self._groups(topic)
        taken = set(ids) if groups else set()
        if taken and (deleted := self._deleted(topic)) is not None:
            taken = {redis_id for redis_id in taken if split_id(redis_id) <= split_id(deleted)}
        for name, last in groups:
            taken = {redis_id for redis_id in taken if split_id(redis_id) <= split_id(last)}
            taken -= self._waiting(topic, name, sorted(taken, key=split_id))
        return taken

    def trim(
        self, topic: str, *, older_than_s: float, max_bytes: int | None = None, until: str | None = None
    ) -> int:
        """Delete, of what every group has acknowledged (or, known to be so, up to ``until``), what is this
        old, and the oldest until the stream has ``max_bytes``. Returns how many entries."""
        bound = self.acknowledged(topic) if until is None else until
        if bound is None:
            return 0
        ms, n = split_id(bound)
        beyond = (ms, n + 1) if n < _LAST else (ms + 1, 0)
        oldest = (max(0, int((self._wall() - older_than_s) * 1000)), 0)
        if max_bytes is not None:
            oldest = max(oldest, self._fitting(topic, max_bytes))
        key, low = self.settings.key(topic), "{}-{}".format(*min(beyond, oldest))
        with mapped(self.url):
            return int(self._client.xtrim(key, minid=low, approximate=False))

    def close(self) -> None:
        """Close the connection."""
        with mapped(self.url):
            self._client.close()

    def _fitting(self, topic: str, max_bytes: int) -> tuple[int, int]:
        """The first entry from which on the stream has about ``max_bytes``; at most a page further each
        time."""
        key = self.settings.key(topic)
        with mapped(self.url):
            try:
                size = int(self._client.memory_usage(key) or 0)
                length = int(self._client.xinfo_stream(key)["length"])
            except redis.exceptions.NoPermissionError:
                return (0, 0)
            if size <= max_bytes or length == 0:
                return (0, 0)
            excess = min(_PAGE, length * (size - max_bytes) // size + 1)
            page = self._client.xrange(key, "-", "+", count=excess + 1)
        return split_id(str(page[-1][0])) if page else (0, 0)

    def _on_connect(self, connection: Any) -> None:
        if not self._connecting:
            raise redis.ConnectionError("connection was lost")
        connection.on_connect()

    def _info(self, section: str) -> dict[str, Any]:
        found = self._client.info(section)
        values = list(found.values())
        # A cluster answers with one INFO a node; the joined run ids still change when any node restarts.
        if values and all(isinstance(value, dict) for value in values):
            return {"run_id": ",".join(sorted(str(value.get("run_id")) for value in values))} | {
                name: value for node in values for name, value in node.items() if name != "run_id"
            }
        return dict(found)

    def _groups(self, topic: str) -> list[tuple[str, str]]:
        with mapped(self.url):
            try:
                found = self._client.xinfo_groups(self.settings.key(topic))
            except redis.ResponseError as exc:
                if "no such key" in str(exc):
                    return []
                raise
        return [(str(group["name"]), str(group["last-delivered-id"])) for group in found]

    def _deleted(self, topic: str) -> str | None:
        """The greatest Redis id that was ever deleted; trimming does not count. None: the server does not
        say."""
        with mapped(self.url):
            found = self._client.xinfo_stream(self.settings.key(topic)).get("max-deleted-entry-id")
        return None if found is None else str(found)

    def _waiting(self, topic: str, group: str, ids: Sequence[str]) -> set[str]:
        """The ids between the first and the last of ``ids`` that a group was given and has not
        acknowledged."""
        found: set[str] = set()
        low = ids[0] if ids else None
        while low is not None:
            with mapped(self.url):
                page = self._client.xpending_range(
                    self.settings.key(topic), group, min=low, max=ids[-1], count=_PAGE
                )
            found |= {str(entry["message_id"]) for entry in page}
            low = "(" + str(page[-1]["message_id"]) if len(page) == _PAGE else None
        return found

    def _unsafe(self) -> list[str]:
        with mapped(self.url):
            try:
                persistence, memory = self._info("persistence"), self._info("memory")
            except redis.exceptions.NoPermissionError:
                return ["its safety cannot be checked: the user may not run INFO; allow +info"]
        unsafe = []
        if int(persistence.get("aof_enabled", 0)) == 0:
            unsafe.append(
                "appendonly is no: a crash of Redis loses what it acknowledged since its last snapshot; "
                "set 'appendonly yes'"
            )
        policy = str(memory.get("maxmemory_policy", "unknown"))
        if policy != "noeviction":
            unsafe.append(
                f"maxmemory-policy is {policy}: a full Redis deletes whole streams of unreviewed segments; "
                "set 'maxmemory-policy noeviction'"
            )
        return unsafe

    def _check_rights(self) -> None:
        """Ask for everything that will be done, in forms that change nothing, and name all that is
        refused."""
        refused = []
        for topic in TOPICS:
            key = self.settings.key(topic)
            for command in (
                ("XADD", key, "0-0", "id", "x"),  # an id that is never valid: the right is checked first
                ("XRANGE", key, "0", "0", "COUNT", "1"),
                ("XTRIM", key, "MINID", "0"),
                ("XPENDING", key, GROUP),
                ("XINFO", "STREAM", key),
                ("XINFO", "GROUPS", key),
            ):
                with mapped(self.url):
                    try:
                        self._client.execute_command(*command)
                    except redis.exceptions.NoPermissionError:
                        refused.append(
                            " ".join(command[:2]) if command[0] == "XINFO" else f"{command[0]} {key}"
                        )
                    except redis.ResponseError as exc:
                        if "WRONGTYPE" in str(exc):
                            raise
        if not refused:
            with mapped(self.url):
                try:
                    self._client.pipeline(transaction=True).xrange(key, "0", "0", count=1).execute()
                except redis.ResponseError as exc:  # what is in the transaction was allowed above
                    if "EXEC" not in str(exc) and "permission" not in str(exc):
                        raise
                    refused += ["MULTI", "EXEC"]
        if refused:
            rights = ACL.format(user="USER", prefix=self.settings.prefix)
            raise RedisDownError(
                "permission",
                f"Redis {self.url}: permission: may not {', '.join(refused)}; allow it: {rights}",
            )


def _before(redis_id: tuple[int, int]) -> tuple[int, int]:
    ms, n = redis_id
    return (ms, n - 1) if n > 0 else (max(ms - 1, 0), _LAST if ms > 0 else 0)
