"""``framewarden queue``: what waits in Redis and for whom, retention by hand, dead letters, rights."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline import log
from pipeline.cli.events import server
from pipeline.config import printable

if TYPE_CHECKING:
    from pipeline.backends.dead_letters import DeadLetter
    from pipeline.backends.queue_redis import Queue, TopicState

F = TypeVar("F", bound=Callable[..., Any])
LIST = 50


def _where(function: F) -> F:
    """Which server: a config, a URL, or the embedded one in ./state."""
    for option in (
        click.option("--prefix", metavar="P", help="Start of the keys, with --redis (default: framewarden)."),
        click.option("--redis", "url", metavar="URL", help="Server, in place of the one in the config."),
        click.option(
            "--config",
            "-c",
            metavar="CONFIG.yaml",
            type=click.Path(path_type=Path),
            help="Config of the run.",
        ),
    ):
        function = option(function)
    return function


@click.group("queue", short_help="See and tend the queue in Redis.")
def command() -> None:
    """See and tend the queue in Redis: what waits for whom, what can go, what no consumer could handle."""
    log.configure("console", "warning")


@command.command("status", short_help="What waits, and for whom.")
@_where
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(config: Path | None, url: str | None, prefix: str | None, as_json: bool) -> None:
    """Say of each topic and group how much was given to nobody, how much is not acknowledged, and how old."""
    with _queue(config, url, prefix) as queue:
        topics, dead = queue.topics(), queue.dead_count()
    if as_json:
        rows = [dataclasses.asdict(topic) for topic in topics]
        click.echo(json.dumps({"topics": rows, "dead_letters": dead}, indent=2))
        return
    for topic in topics:
        for line in _lines(topic):
            click.echo(line)
    if not topics:
        click.echo("nothing: no run has published here")
    click.echo(f"dead letters: {dead}" + (" (framewarden queue dlq list)" if dead else ""))


@command.command("trim", short_help="Delete what every group has acknowledged.")
@_where
@click.option("--older-than", type=click.FloatRange(min=0), metavar="SECONDS", help="All this old.")
@click.option("--max-bytes", type=click.IntRange(min=0), metavar="N", help="The oldest, down to this size.")
def trim(
    config: Path | None, url: str | None, prefix: str | None, older_than: float | None, max_bytes: int | None
) -> None:
    """Delete from Redis what every group has acknowledged, by age or size. (A run does so by itself, by
    outbox.keep_s and outbox.max_bytes.) What anybody still has to acknowledge stays, whatever is asked."""
    if older_than is None and max_bytes is None:
        raise click.UsageError("say what may go: --older-than SECONDS, --max-bytes N, or both.")
    with _queue(config, url, prefix) as queue:
        gone = queue.trim(older_than_s=1e10 if older_than is None else older_than, max_bytes=max_bytes)
    for key, count in gone.items():
        click.echo(f"{key}: {count} deleted")


@command.group("dlq", short_help="Dead letters: what no consumer could handle.")
def dlq() -> None:
    """Dead letters: events that consumers were given too often in vain, or that failed for good."""


@dlq.command("list", short_help="The oldest dead letters.")
@_where
@click.option("--limit", type=click.IntRange(min=1), default=LIST, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one a line.")
def list_(config: Path | None, url: str | None, prefix: str | None, limit: int, as_json: bool) -> None:
    """One line a dead letter, oldest first: its id, when and in which group it died, its event, and why."""
    with _queue(config, url, prefix) as queue:
        letters = queue.dead(limit)
    for letter in letters:
        click.echo(json.dumps(dataclasses.asdict(letter)) if as_json else _line(letter))


@dlq.command("show", short_help="All of one dead letter.")
@click.argument("dlq_id", metavar="ID")
@_where
def show(dlq_id: str, config: Path | None, url: str | None, prefix: str | None) -> None:
    """Print all of one dead letter, as JSON."""
    with _queue(config, url, prefix) as queue:
        click.echo(json.dumps(dataclasses.asdict(queue.letter(dlq_id)), indent=2))


@dlq.command("requeue", short_help="Give dead letters out again.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@_where
def requeue(
    ids: tuple[str, ...], every: bool, config: Path | None, url: str | None, prefix: str | None
) -> None:
    """Put dead letters back at the end of their topic. Every group gets them; those that have handled them
    drop them as repeats."""
    for letter, redis_id in _each(ids, every, (config, url, prefix), lambda queue, one: queue.requeue(one)):
        click.echo(f"{letter.dlq_id} is {redis_id} in {letter.topic}")


@dlq.command("drop", short_help="Delete dead letters.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@_where
def drop(ids: tuple[str, ...], every: bool, config: Path | None, url: str | None, prefix: str | None) -> None:
    """Delete dead letters for good."""
    for letter, _ in _each(ids, every, (config, url, prefix), lambda queue, one: queue.drop(one)):
        click.echo(f"{letter.dlq_id} is deleted")


@command.command("acl", short_help="The rights that each part needs in Redis.")
@click.option("--prefix", default="framewarden", show_default=True, metavar="P", help="Start of the keys.")
@click.option("--cluster", is_flag=True, help="What clients of a cluster need besides.")
def acl(prefix: str, cluster: bool) -> None:
    """Print, as commands for redis-cli, users with the rights that the service, a consumer and these commands
    need, and no others."""
    from pipeline.backends import client_redis, sink_redis

    for user, rights in (
        ("framewarden", sink_redis.ACL),
        ("reviewer", client_redis.ACL),
        ("operator", sink_redis.OPERATOR_ACL),
    ):
        click.echo(rights.format(user=user, prefix=prefix) + (sink_redis.CLUSTER_ACL if cluster else ""))


def _each(
    ids: tuple[str, ...],
    every: bool,
    where: tuple[Path | None, str | None, str | None],
    do: "Callable[[Queue, DeadLetter], Any]",
) -> "Iterator[tuple[DeadLetter, Any]]":
    if bool(ids) == every:
        raise click.UsageError("name dead letters by their ids, or all of them: --all.")
    with _queue(*where) as queue:
        letters = queue.dead() if every else [queue.letter(one) for one in ids]
        for letter in letters:
            yield letter, do(queue, letter)


@contextlib.contextmanager
def _queue(config: Path | None, url: str | None, prefix: str | None) -> "Iterator[Queue]":
    from pipeline.backends.queue_redis import Queue
    from pipeline.backends.redis_connect import RedisSettings

    if config is not None and url is not None:
        raise click.UsageError("--config and --redis do not go together: name one server.")
    if prefix is not None and url is None:
        raise click.UsageError("--prefix goes with --redis; a config names its own.")
    with server(config, url) as known:
        settings = RedisSettings(**(known | ({"prefix": prefix} if prefix else {})))
        queue = Queue(settings)
        try:
            yield queue
        finally:
            queue.close()


def _lines(topic: "TopicState") -> Iterator[str]:
    from pipeline.backends.queue_redis import COUNTED

    size = "" if topic.bytes is None else f", {topic.bytes / 1e6:.1f} MB"
    yield f"{printable(topic.key)}: {topic.entries} entries{size}, oldest {_age(topic.oldest_s)}"
    for group in topic.groups:
        more = "or more " if group.unread >= COUNTED else ""
        yield (
            f"  group {printable(group.name)}: {group.unread} {more}unread, {group.pending} not acknowledged"
            f" (oldest {_age(group.oldest_s)}), {group.members} members"
        )
    if not topic.groups:
        yield "  no group: nothing of it is ever trimmed"


def _line(letter: "DeadLetter") -> str:
    about = letter.fields.get("id") or f"{letter.topic} {letter.redis_id}"
    return printable(
        f"{letter.dlq_id} {letter.died} {letter.group} {about} attempts={letter.attempts}: {letter.why}"
    )


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
