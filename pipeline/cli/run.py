"""``framewarden run``: the service."""

from pathlib import Path
from typing import Any

import click
import structlog
from rich.console import Console

from pipeline import config as configs
from pipeline import log, status
from pipeline.cli import FAILED, INTERRUPTED, complain
from pipeline.cli.stopper import Stopper, on_hangup
from pipeline.cli.view import Lines, LiveTable, on_a_terminal, put
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.events import Event


@click.command("run", short_help="Screen the streams of a config until stopped.")
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.option(
    "--for",
    "for_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop after this long.",
)
@click.option("--exit-at-end", is_flag=True, help="Stop when all files that do not loop have been screened.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print every event, one a line, as the outbox accepts it."
)
@click.pass_context
def command(ctx: click.Context, config: Path, for_s: float | None, exit_at_end: bool, as_json: bool) -> None:
    """Screen the streams of CONFIG.yaml until stopped, and deliver what is flagged to Redis.

    SIGTERM or Ctrl-C closes open segments and ends within shutdown_s; a second Ctrl-C ends at once. SIGHUP
    reads CONFIG.yaml again: streams come, go and change, the others are not touched. Exit code: 0 after
    --for or SIGTERM; 1 if a file failed, with --exit-at-end; 2 wrong config; 130 Ctrl-C."""
    settings = configs.load(config, models=configs.categories_of)
    if exit_at_end and for_s is None and not any(stream.ends for stream in settings.streams):
        raise ConfigError(
            f"{config}: --exit-at-end: no stream comes to an end (a file, folder or glob without loop and "
            "watch); add one, or say --for SECONDS"
        )
    terminal = on_a_terminal(as_json)
    settings = _logging(settings, terminal)
    view = LiveTable() if terminal else Lines()

    def on_event(event: Event) -> None:
        if as_json:
            put(event.body)
        view.on_event(event)

    from pipeline.service.reload import Reloader
    from pipeline.service.run import run_service  # on use: it loads every decoder and engine

    def load() -> Config:
        return _logging(configs.load(config, models=configs.categories_of), terminal)

    reloader = Reloader(config, load)
    with Stopper() as stopper, on_hangup(reloader.ask), view:
        outcome = run_service(
            settings,
            for_s=for_s,
            exit_at_end=exit_at_end,
            on_event=on_event,
            on_status=view.on_status,
            stop=stopper.event,
            reloader=reloader,
        )
    _sum_up(outcome.summary, terminal)
    for name, why in outcome.failed:
        complain(f"{name}: {why}")
    ctx.exit(INTERRUPTED if stopper.interrupted else FAILED if exit_at_end and outcome.failed else 0)


def _logging(config: Config, terminal: bool) -> Config:
    """Set up the log; under a live table only warnings are shown, unless the config names a level."""
    level = config.log.level
    if terminal and "level" not in config.log.model_fields_set:
        level = "warning"
    rules = config.log.model_copy(update={"level": level})
    log.configure(rules.format, rules.level)
    return config.model_copy(update={"log": rules})


def _sum_up(snapshot: dict[str, Any], terminal: bool) -> None:
    if not snapshot:
        return
    if terminal:
        Console(stderr=True).print(status.summary(snapshot))
        return
    logger = structlog.get_logger()
    for stream in snapshot["streams"]:
        logger.info("summary.stream", stream=stream["id"], **stream["coverage"], segments=stream["segments"])
    redis = snapshot["redis"]
    logger.info("summary", redis=redis["state"], delivered=redis["delivered"], pending=redis["pending"])
