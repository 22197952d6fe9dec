"""``framewarden status``: what a run says of itself."""

import json
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from pipeline import config as configs
from pipeline import status
from pipeline.cli import FAILED

DEFAULT_STATE = Path("state")


@click.command("status", short_help="Show the streams of a run.")
@click.argument("config", metavar="[CONFIG.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the snapshot as JSON.")
@click.option("--check", is_flag=True, help="Only exit 1, and say why, when the run is stale or unhealthy.")
@click.pass_context
def command(ctx: click.Context, config: Path | None, as_json: bool, check: bool) -> None:
    """Show the streams of the run on CONFIG.yaml (left out: the run whose state_dir is ./state)."""
    state_dir = configs.load(config).state_dir if config else DEFAULT_STATE
    snapshot = status.read(state_dir)
    found = status.problems(snapshot, time.time())
    if as_json:
        click.echo(json.dumps(snapshot, indent=None if check else 2))
    elif not check:
        _show(snapshot)
    for problem in found:
        click.echo(f"framewarden: {'unhealthy' if check else 'note'}: {problem}", err=True)
    ctx.exit(FAILED if check and found else 0)


def _show(snapshot: status.Snapshot) -> None:
    if sys.stdout.isatty():
        Console().print(status.render(snapshot))
        return
    for line in status.lines(snapshot):
        click.echo(line)
