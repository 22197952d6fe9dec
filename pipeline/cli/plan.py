"""``framewarden plan``: how many streams fit, and which bound is hit first, before anything is bought."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from pipeline import config as configs
from pipeline.bench.report import Table
from pipeline.capacity.cards import CARDS, CardName
from pipeline.capacity.money import DEFAULT, Prices
from pipeline.capacity.options import GPU_SERVER_CORES, GPU_SERVER_GB, NETWORK_MBIT, Options
from pipeline.cli import FAILED, INTERRUPTED
from pipeline.cli.stopper import Stopper

METER_S = 20.0
"""CPU seconds for measuring pictures, over all streams; the rest of them are estimated from those."""
PLAIN_WIDTH = 180
NARROW = (
    "decoded/s",
    "scored/s",
    "NVDEC",
    "CPU decode",
    "engine",
    "GPU MB",
    "memory MB",
    "Mbit/s",
    "used",
    "a stream",
    "watts",
    "cost a month",
)
"""Columns that are never broken."""

_AT_LEAST_0 = click.FloatRange(min=0)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)


@click.command("plan", short_help="Say how many streams fit, and what is full first.")
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.option("--gpu", type=click.Choice(list(CARDS)), help="Plan for a server with one such card.")
@click.option("--cpu", is_flag=True, help="Plan for cores like this machine's, without a card.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--probe-seconds",
    type=click.FloatRange(1, 120),
    default=6.0,
    show_default=True,
    metavar="S",
    help="How long each live source is watched.",
)
@click.option(
    "--usable",
    type=click.FloatRange(0.1, 1.0),
    default=0.75,
    show_default=True,
    metavar="SHARE",
    help="Share of every resource to plan with; the rest is for peaks.",
)
@click.option(
    "--cores",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Cores of the server [default: this machine's; with --gpu {GPU_SERVER_CORES}].",
)
@click.option(
    "--memory-gb",
    type=_ABOVE_0,
    metavar="GB",
    help=f"Its memory [default: this machine's; with --gpu {GPU_SERVER_GB:g}].",
)
@click.option(
    "--network-mbit", type=_ABOVE_0, metavar="MBIT", help=f"Its network [default: {NETWORK_MBIT:g}]."
)
@click.option(
    "--video-clock",
    type=_ABOVE_0,
    metavar="MHZ",
    help="The card's highest video clock (nvidia-smi -q -d CLOCK), where you know it better.",
)
@click.option(
    "--engine-rate",
    type=_ABOVE_0,
    metavar="N",
    help="Pictures a second that the card's engine scores, where you measured it.",
)
@click.option(
    "--streams",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many such streams the bill is for.",
)
@click.option(
    "--core-price",
    type=_AT_LEAST_0,
    default=DEFAULT.core_hour,
    show_default=True,
    metavar="P",
    help="Price of a core an hour (assumed; give your own).",
)
@click.option(
    "--card-price",
    type=_AT_LEAST_0,
    metavar="P",
    help="Price of a card an hour, its server not included [assumed by card: "
    + ", ".join(f"{name} {card.price_hour:.2f}" for name, card in CARDS.items())
    + "].",
)
@click.option(
    "--core-watts",
    type=_AT_LEAST_0,
    default=DEFAULT.core_watts,
    show_default=True,
    metavar="W",
    help="Watts of a server by core, without cards (assumed; give your own).",
)
@click.pass_context
def command(ctx: click.Context, /, config: Path, as_json: bool, **given: Any) -> None:  # fmt: skip
    """Open every source of CONFIG.yaml for a few seconds and say which sampling plan it gets, what share of
    the decoders, engine, memory and network it takes, how many more such streams fit, and which bound is hit
    first; then servers, watts and cost, beside one CPU core a stream.

    Every number says whether it was measured here, given, derived from a vendor's figure, or assumed. A
    source that cannot be opened is listed as unknown. Exit code 1: nothing could be seen of any."""
    options = _options(ctx, **given)
    settings = configs.load(config, models=configs.categories_of)
    from pipeline.capacity import run, words  # on use: it loads decoders

    seconds = given["probe_seconds"]
    with Stopper() as stopper:
        plan = run.make(settings, options, seconds=seconds, meter_s=METER_S, stop=stopper.event, say=_say)
    if plan is None:
        ctx.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps(words.as_json(plan), indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        for sentence in words.says(plan):
            console.print(sentence, highlight=False, markup=False)
        for table in words.tables(plan):
            console.print(_drawn(table))
    ctx.exit(0 if plan.rows else FAILED)


def _options(ctx: click.Context, *, gpu: CardName | None, cpu: bool, **given: Any) -> Options:
    """:raises click.UsageError: not exactly one target."""
    if cpu == (gpu is not None):
        raise click.UsageError(f"say what to plan for: --cpu, or --gpu {'|'.join(CARDS)}", ctx)
    for name in ("video_clock", "engine_rate", "card_price"):
        if cpu and given[name] is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --gpu", ctx)
    card = CARDS[gpu] if gpu else None
    price = given["card_price"] if given["card_price"] is not None else card.price_hour if card else 0.0
    return Options(
        target=gpu or "cpu",
        usable=given["usable"],
        cores=given["cores"],
        memory_gb=given["memory_gb"],
        network_mbit=given["network_mbit"],
        video_mhz=given["video_clock"],
        engine_rate=given["engine_rate"],
        streams=given["streams"],
        prices=Prices(given["core_price"], given["core_watts"], price, card.watts if card else 0.0),
    )


def _say(text: str) -> None:
    click.echo(click.style(text, dim=True) if sys.stderr.isatty() else text, err=True)


def _drawn(table: Table) -> RichTable:
    drawn = RichTable(
        title=f"\n{table.title}", title_justify="left", title_style="bold", box=None, header_style="dim"
    )
    for at, title in enumerate(table.titles):
        drawn.add_column(
            title, justify="right" if table.numeric(at) else "left", overflow="fold", no_wrap=title in NARROW
        )
    for row in table.rows:
        drawn.add_row(*("–" if cell is None else escape(str(cell)) for cell in row))
    return drawn
