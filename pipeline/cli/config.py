"""``framewarden config``: validation, and the schema for editors."""

import json
from pathlib import Path

import click

from pipeline import config as configs


@click.group("config", short_help="Check a config; print its schema.")
def command() -> None:
    """Check a config file, or print the JSON Schema of all keys."""


@command.command("check")
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
def check(config: Path) -> None:
    """Validate CONFIG.yaml; each mistake is one line: file, line, key, value and what is allowed."""
    settings = configs.load(config, models=configs.categories_of)
    count = len(settings.streams)
    click.echo(f"{config}: right: {count} stream{'s' if count != 1 else ''}", err=True)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema: every key, what it means, its default."""
    click.echo(json.dumps(configs.schema(), indent=2, ensure_ascii=False))
