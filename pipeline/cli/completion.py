"""``framewarden completion``: the script that teaches a shell to complete our commands."""

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print a completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL; for bash: eval "$(framewarden completion bash)"."""
    from pipeline.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the three above come with click
    click.echo(kind(cli, {}, "framewarden", "_FRAMEWARDEN_COMPLETE").source())
