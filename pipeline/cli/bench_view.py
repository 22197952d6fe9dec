"""What a person sees of ``bench``: what is being done, then tables; and the files that were asked for."""

import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from pipeline.bench import films
from pipeline.bench.machine import Machine, versions
from pipeline.bench.material import Material
from pipeline.bench.report import Report, Section, Table, shown


def say(text: str) -> None:
    """What is being done, for a person."""
    stamp = datetime.now().astimezone().strftime("%H:%M:%S")
    click.echo(click.style(f"{stamp} {text}", dim=True) if sys.stderr.isatty() else text, err=True)


def finish(
    ctx: click.Context,
    machine: Machine,
    material: Material | None,
    sections: list[Section],
    json_file: Path | None,
    folder: Path | None,
    label: str = "",
) -> None:
    """Show the result and write what was asked for; ``label`` becomes part of the report's name."""
    report = Report(
        name=ctx.command_path.removeprefix("framewarden "),
        command=_command_line(ctx),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine,
        versions=versions(),
        material=films.facts(material) if material else {},
        sections=sections,
        label=label,
    )
    text = json.dumps(report.as_json(), indent=2)
    if json_file is not None and str(json_file) == "-":
        click.echo(text)
    else:
        _show(report)
        if json_file is not None:
            json_file.write_text(text + "\n", encoding="utf-8")
    for path in report.write(folder) if folder is not None else []:
        say(f"wrote {path}")


def given(ctx: click.Context) -> list[click.Parameter]:
    """The options that stand on the command line."""
    return [
        option
        for option in ctx.command.params
        if ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]


def _command_line(ctx: click.Context) -> str:
    """The command with the options that were given."""
    words = ctx.command_path.split()
    for option in given(ctx):
        value = ctx.params[str(option.name)]
        if isinstance(value, bool):
            words.append(option.opts[0])
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [option.opts[0], str(one)]
    return shlex.join(words)


def _show(report: Report) -> None:
    """Tables on a terminal, Markdown elsewhere."""
    if not sys.stdout.isatty():
        click.echo(report.markdown(), nl=False)
        return
    console = Console()
    for section in report.sections:
        console.print(f"[bold]{escape(section.title)}[/]")
        for sentence in section.says:
            console.print(sentence, highlight=False, markup=False)
        for table in section.tables:
            console.print(_rich(table))
    for table in report.facts():
        console.print(_rich(table))


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=table.title or None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for at, title in enumerate(table.titles):
        drawn.add_column(title, justify="right" if table.numeric(at) else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(escape(shown(cell)) for cell in row))
    return drawn
