"""``framewarden screen``: files, folders, globs and URLs to their end, without Redis."""

import sys
from pathlib import Path

import click

from pipeline import config as configs
from pipeline import log
from pipeline.cli import FAILED, FLAGGED, INTERRUPTED, complain
from pipeline.cli.stopper import Stopper
from pipeline.cli.view import COVERAGE, SEGMENT, STREAM, Bar, Silence, data_of, on_a_terminal, put
from pipeline.config import printable
from pipeline.events import Event

WIDEST_NAME = 60


@click.command("screen", short_help="Screen files, folders or URLs to their end.")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--policy", type=click.Path(path_type=Path), metavar="FILE", help="YAML with the keys of policy."
)
@click.option("--model", multiple=True, metavar="M", help="Model name or manifest; may be given again.")
@click.option("--max-gap", type=float, metavar="S", help="Most seconds between two screened pictures (2).")
@click.option("--json", "as_json", is_flag=True, help="Print events, one a line.")
@click.option("--fail-on-flag", is_flag=True, help="Exit code 3 when something was flagged.")
@click.pass_context
def command(
    ctx: click.Context,
    inputs: tuple[str, ...],
    policy: Path | None,
    model: tuple[str, ...],
    max_gap: float | None,
    as_json: bool,
    fail_on_flag: bool,
) -> None:
    """Screen each INPUT (a file, folder, glob or URL) to its end.

    Prints one line a segment: FILE CATEGORY START END PEAK, times in seconds. With --json: closed segments,
    every coverage gap, and for each input one stream event, ended or failed. Exit code: 130 interrupted; 2
    usage or config; 1 an input could not be screened; 3 flagged, with --fail-on-flag; 0."""
    settings = configs.screen_config(
        inputs, policy_file=policy, model=model, max_gap_s=max_gap, models=configs.categories_of
    )
    log.configure("console", "warning")
    printer = Printer(inputs, as_json=as_json)
    view = Bar() if on_a_terminal(as_json) else Silence()

    from pipeline.service.run import screen_inputs  # on use: it loads every decoder and engine

    with Stopper() as stopper, view:
        outcome = screen_inputs(
            settings, on_event=printer.on_event, on_status=view.on_status, stop=stopper.event
        )
    for name, why in outcome.failed:
        complain(why if why.startswith(name) else f"{name}: {why}")
    ctx.exit(exit_code(stopper.event.is_set(), bool(outcome.failed), fail_on_flag and outcome.flagged > 0))


def exit_code(interrupted: bool, failed: bool, flagged: bool) -> int:
    """The first that applies."""
    return INTERRUPTED if interrupted else FAILED if failed else FLAGGED if flagged else 0


class Printer:
    """Events to lines on stdout; columns are aligned on a terminal and divided by single spaces elsewhere."""

    def __init__(self, inputs: tuple[str, ...], *, as_json: bool) -> None:
        self._json = as_json
        self._width = min(WIDEST_NAME, max(map(len, inputs))) if sys.stdout.isatty() else 0

    def on_event(self, event: Event) -> None:
        if self._json:
            if _wanted(event):
                put(event.body)
        elif event.type == SEGMENT and event.state == "closed":
            put(self._line(event))
        elif event.type == COVERAGE:
            data = data_of(event)
            begin, end = (_seconds(data["media"][key]) for key in ("from_s", "to_s"))
            where = f"{printable(event.stream)}: {begin} to {end} s"
            click.echo(f"framewarden: not screened: {where}: {data['cause']}", err=True)

    def _line(self, event: Event) -> str:
        data = data_of(event)
        name, media = printable(event.stream), data["media"]
        cells = [
            data["category"],
            f"{media['start_s']:.2f}",
            f"{media['end_s']:.2f}",
            f"{data['score']['peak']:.2f}",
        ]
        if not self._width:
            return " ".join([name, *cells])
        category, start, end, peak = cells
        return f"{name:<{self._width}}  {category:<12}  {start:>9}  {end:>9}  {peak:>5}"


def _wanted(event: Event) -> bool:
    if event.type == SEGMENT:
        return event.state == "closed"
    return event.type == COVERAGE or (event.type == STREAM and event.state in ("ended", "failed"))


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
