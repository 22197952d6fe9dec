"""The command line: one file a command, each imported when it is used.

Machine output goes to stdout, everything for people to stderr. Exit codes, in order of precedence: 130
interrupted; 2 usage, config or model, before any input is opened; 1 an input or server could not be used; 3
something was flagged and ``--fail-on-flag`` was given; 0.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import click

from pipeline import log
from pipeline.errors import ConfigError, FramewardenError, ModelError
from pipeline.masking import mask_text

COMMANDS = (
    "run",
    "screen",
    "events",
    "queue",
    "status",
    "doctor",
    "engine",
    "bench",
    "plan",
    "config",
    "completion",
)
INTERRUPTED, REFUSED, FAILED, FLAGGED = 130, 2, 1, 3


def _version() -> str:
    try:
        return importlib.metadata.version("framewarden")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


class _Commands(click.Group):
    """Finds a command in the module of its name; its errors end as one line each, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, importlib.import_module(f"pipeline.cli.{cmd_name}").command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        self.commands = dict.fromkeys(COMMANDS, click.Command(None))  # click looks here for a near name
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FramewardenError as error:
            if ctx.params["debug"]:
                click.echo(log.traceback_of(error), err=True)
            complain(error)
            ctx.exit(REFUSED if isinstance(error, ConfigError | ModelError) else FAILED)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(_version(), prog_name="framewarden")
@click.option("--debug", is_flag=True, help="Show where in the code an error arose.")
def cli(debug: bool) -> None:
    """Screen many live and recorded video streams; flagged segments go to Redis, for people to review."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    sys.excepthook = log.crash
    try:
        code = cli.main(args, prog_name="framewarden", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def complain(error: FramewardenError | str) -> None:
    """One line on stderr for each line of an error."""
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"framewarden: error: {mask_text(line)}", err=True)
