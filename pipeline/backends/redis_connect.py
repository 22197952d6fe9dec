"""Connections to Redis by URL, and its errors in our words; shared by the sink and the consumer kit.

    redis://user:password@host:6379/0               one server
    rediss://user:password@host:6379/0              the same over TLS
    redis+sentinel://user:password@h1:26379,h2:26379/service/0     the master that Sentinel names
    redis+cluster://user:password@h1:6379,h2:6379   a cluster
    rediss+sentinel://..., rediss+cluster://...     the same over TLS

redis-py's own retries are switched off: they sleep where nobody can wake them, and they would hide a
reconnect after which the server may no longer hold what was written.
"""

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from pipeline.errors import ConfigError, SinkError

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
CONNECT_S = 3.0
ANSWER_S = 5.0


class RedisDownError(SinkError):
    """Redis did not do what was asked. ``reason`` is a short, stable word; the text names the cure."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Where Redis is. ``prefix`` begins the keys; ``ca`` is a file of certificates to trust, not the
    system's.

    ``on_unsafe`` says what unsafe server settings mean: a warning, or that nothing is written to it."""

    url: str
    prefix: str = "framewarden"
    ca: str | None = None
    on_unsafe: str = "warn"

    def __repr__(self) -> str:
        return f"RedisSettings(url={self.shown!r}, prefix={self.prefix!r}, on_unsafe={self.on_unsafe!r})"

    @property
    def shown(self) -> str:
        """The URL without its credentials."""
        return shown_url(self.url)

    def key(self, topic: str) -> str:
        """The Redis key of a topic, ``segments`` or ``health``."""
        return f"{self.prefix}:{topic}"


def shown_url(url: str) -> str:
    """A Redis URL without credentials: a password may hold any character, so all up to the last @ goes."""
    return re.sub(r"=[^&]*", "=***", re.sub(r"//.*@", "//***@", url))


def open_client(settings: RedisSettings, on_connect: Callable[[Any], None] | None = None) -> Any:
    """A redis-py client for a URL, not yet connected; ``on_connect`` is called with each new connection.

    :raises ConfigError: the URL is not one of those above."""
    url, scheme = settings.url, settings.url.partition("://")[0]
    if scheme not in SCHEMES:
        raise ConfigError(f"redis.url: {settings.shown!r}: scheme is to be one of {', '.join(SCHEMES)}")
    options: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,  # the same replies from every server since 6.2
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": ANSWER_S,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "framewarden",
        "driver_info": None,  # two answers fewer to wait for: one that loads its data gives few
    }
    if scheme.startswith("rediss"):
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if settings.ca is not None:
            options["ssl_ca_certs"] = _certificates(settings.ca)
    try:
        if "+" not in scheme:
            return redis.Redis.from_url(url, **options, redis_connect_func=on_connect)
        hosts, path, login = _several(url)
        if scheme.startswith("rediss"):
            options["ssl"] = True
        if scheme.endswith("+cluster"):
            nodes = [ClusterNode(host, port) for host, port in hosts]  # type: ignore[no-untyped-call]
            return _Lazy(lambda: RedisCluster(startup_nodes=nodes, **(options | login)))
        service, _, db = path.partition("/")
        watchers = {name: options[name] for name in options if name.startswith(("socket", "ssl", "protocol"))}
        watchers["decode_responses"] = True
        sentinel = Sentinel(hosts, sentinel_kwargs=watchers)  # type: ignore[no-untyped-call]
        master = options | login | {"db": int(db or 0)}
        master["redis_connect_func"] = on_connect
        return sentinel.master_for(service or "mymaster", _Named, **master)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"redis.url: {settings.shown!r}: is not a Redis URL: {exc}") from exc


def _certificates(path: str) -> str:
    """The path, once the file was seen to hold certificates: redis-py would only say "no such file"."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"redis.tls.ca: {path!r}: holds no certificates that can be read: {exc}") from exc
    return path


class _Named(redis.Redis):
    """The master that Sentinel names. Closing it closes the connections to the sentinels that were asked for
    its name, too: redis-py leaves those to the garbage collector, one more with every reconnect."""

    def close(self) -> None:
        super().close()
        pool: Any = self.connection_pool
        for watcher in pool.sentinel_manager.sentinels:
            watcher.close()


class _Lazy:
    """A client whose constructor connects, made on first use, so that opening never waits."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if name == "close" and self._client is None:
            return lambda: None
        if self._client is None:
            self._client = self._make()
        return getattr(self._client, name)


def _several(url: str) -> tuple[list[tuple[str, int]], str, dict[str, str]]:
    """The hosts, path and credentials of ``scheme://user:password@h1:p,h2:p/path``."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    found = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit():
            raise ValueError(f"{host!r} is not HOST:PORT")
        found.append((name.strip("[]"), int(port)))
    named = {"username": unquote(user), "password": unquote(password)}
    return found, parts.path.strip("/"), {name: text for name, text in named.items() if text}


@contextlib.contextmanager
def mapped(shown: str) -> Iterator[None]:
    """Turn redis-py's errors into ``RedisDownError``; ``shown`` is the masked URL to name."""
    try:
        yield
    except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as exc:
        reason, cure = _explain(exc)
        text = re.sub(r"//[^/\s]*@", "//***@", str(exc)).strip()
        raise RedisDownError(
            reason, f"Redis {shown}: {reason}: {text or type(exc).__name__}: {cure}"
        ) from exc


_KINDS: tuple[tuple[type[Exception], str, str], ...] = (
    (redis.BusyLoadingError, "loading", "it is reading its data from disk; it comes back by itself"),
    (redis.AuthenticationError, "auth", "check user and password in redis.url"),
    (redis.exceptions.AuthorizationError, "auth", "check user and password in redis.url"),
    (redis.exceptions.NoPermissionError, "permission", "give the user the rights that docs name for it"),
    (redis.ReadOnlyError, "readonly", "it is a replica now; name the master, or use redis+sentinel://"),
    (
        redis.OutOfMemoryError,
        "oom",
        "its memory is full: raise maxmemory or let consumers acknowledge and trim",
    ),
    (MasterNotFoundError, "no_master", "Sentinel knows no healthy master of that name"),
    (redis.exceptions.MasterDownError, "no_master", "the replica has lost its master"),
    (redis.exceptions.ClusterDownError, "cluster_down", "the cluster does not serve all its slots"),
    (redis.exceptions.RedisClusterException, "cluster_down", "no node of the cluster answers"),
    (
        redis.TimeoutError,
        "timeout",
        "it did not answer in time; is this the right port, with or without TLS?",
    ),
)
_WORDS: tuple[tuple[str, str, str], ...] = (
    ("NOAUTH", "auth", "put user and password into redis.url"),
    ("WRONGPASS", "auth", "check user and password in redis.url"),
    ("invalid username-password", "auth", "check user and password in redis.url"),
    ("OOM", "oom", "its memory is full: raise maxmemory or let consumers acknowledge and trim"),
    ("LOADING", "loading", "it is reading its data from disk; it comes back by itself"),
    ("READONLY", "readonly", "it is a replica now; name the master, or use redis+sentinel://"),
    ("MISCONF", "disk", "it cannot write its data to disk"),
    ("WRONGTYPE", "wrongtype", "another program uses this key: choose another redis.prefix"),
    ("NOGROUP", "nogroup", "the consumer group has gone"),
    ("connection was lost", "lost", "connecting again"),
    ("certificate", "tls", "check redis.tls.ca, the host name and the certificate's dates"),
    ("SSL", "tls", "is this port really TLS (rediss://)?"),
    ("Connection closed by server", "lost", "connecting again"),
)


def _explain(exc: BaseException) -> tuple[str, str]:
    """The short word for an error and its cure."""
    for kind, reason, cure in _KINDS:
        if isinstance(exc, kind):
            return reason, cure
    text = str(exc)
    for word, reason, cure in _WORDS:
        if word in text:
            return reason, cure
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return "tls", "check redis.tls.ca and the port"
        seen = seen.__cause__ or seen.__context__
    if isinstance(exc, (redis.ConnectionError, OSError)):
        return "refused", "is it running there, and reachable?"
    return "failed", "see the server's log"
