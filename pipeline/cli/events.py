"""``framewarden events``: what is in Redis."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pipeline import config as configs
from pipeline import log
from pipeline.cli import INTERRUPTED
from pipeline.cli.stopper import Stopper
from pipeline.cli.view import COVERAGE, SEGMENT, put
from pipeline.config import Config, printable
from pipeline.errors import ConfigError
from pipeline.events import Event

DEFAULT_STATE = Path("state")


@click.command("events", short_help="Print the events in Redis.")
@click.argument("config", metavar="[CONFIG.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--redis", "url", metavar="URL", help="Server to read, in place of the one in CONFIG.yaml.")
@click.option("--group", metavar="G", help="Consume as a member of this group: print, then acknowledge.")
@click.option("--from", "from_id", metavar="ID", help="First entry to read (default: the first there is).")
@click.option("--follow", is_flag=True, help="Wait for more instead of ending.")
@click.option("--json", "as_json", is_flag=True, help="Print the envelopes, one a line.")
@click.pass_context
def command(
    ctx: click.Context,
    config: Path | None,
    url: str | None,
    group: str | None,
    from_id: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the events in Redis: of CONFIG.yaml's server, of --redis URL, or of the embedded one in ./state.

    Without --group it only looks and acknowledges nothing."""
    if group is not None and from_id is not None:
        raise click.UsageError("--group and --from do not go together: a group remembers where it is.")
    if config is not None and url is not None:
        raise click.UsageError("CONFIG.yaml and --redis do not go together: name one server.")
    log.configure("console", "warning")
    with Stopper() as stopper, server(config, url) as where:
        for event in _events(where, group, from_id, follow, stopper):
            put(event.body if as_json else line(event))
    ctx.exit(INTERRUPTED if stopper.interrupted else 0)


def _events(
    where: dict[str, Any], group: str | None, from_id: str | None, follow: bool, stopper: Stopper
) -> Iterator[Event]:
    """Events; one that came by a group is acknowledged once the caller asks for the next."""
    from pipeline.client import Consumer, read

    if group is None:
        for _, event in read(from_id=from_id, follow=follow, stop=stopper.event, **where):
            yield event
        return
    with Consumer(group=group, **where) as consumer:
        for delivery in consumer.deliveries(follow=follow, stop=stopper.event):
            yield delivery.event
            consumer.ack(delivery)


@contextlib.contextmanager
def server(config: Path | None, url: str | None) -> Iterator[dict[str, Any]]:
    """URL, prefix and certificates of the server to read; the embedded one is started if it does not run."""
    if url is not None:
        yield {"url": url}
        return
    settings = configs.load(config) if config else None
    known = _named(settings) if settings else {}
    if settings and settings.redis.url:
        yield known | {"url": settings.redis.url}
        return
    from pipeline.backends import redis_embedded

    folder = settings.redis_dir() if settings else DEFAULT_STATE
    if not (folder / "redis").is_dir():
        raise ConfigError(f"{folder}: no run has kept events here; name its config, or a server: --redis URL")
    server = redis_embedded.start(folder, port=settings.redis.embedded.port if settings else 0)
    try:
        yield known | {"url": server.url}
    finally:
        server.stop()


def _named(config: Config) -> dict[str, Any]:
    ca = config.redis.tls.ca
    return {"prefix": config.redis.prefix, "ca": str(ca) if ca else None}


def line(event: Event) -> str:
    """An event for people: TIME KIND STATE STREAM, then what there is to say."""
    envelope = json.loads(event.body)
    data = envelope["data"]
    media = data.get("media") or {}
    if event.type == SEGMENT:
        kind, state = "segment", event.state
        rest = [
            data["category"],
            _seconds(media["start_s"]),
            _seconds(media["end_s"]),
            f"{data['score']['peak']:.2f}",
        ]
    elif event.type == COVERAGE:
        kind, state = "coverage", data["cause"]
        rest = [_seconds(media["from_s"]), _seconds(media["to_s"]), f"({data['seconds']:.2f} s)"]
    else:
        kind, state, rest = "stream", event.state, [data.get("reason") or ""]
    return " ".join([envelope["time"], kind, str(state), printable(event.stream), *rest]).rstrip()


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
