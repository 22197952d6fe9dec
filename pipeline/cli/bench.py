"""``framewarden bench``: what it costs, against what others would use, in one run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline import engines
from pipeline.bench import engine as engine_bench
from pipeline.bench import files as files_bench
from pipeline.bench import films, flash_report, growth
from pipeline.bench import flash as flash_bench
from pipeline.bench import streams as streams_bench
from pipeline.bench.machine import this_machine
from pipeline.bench.material import Material
from pipeline.cli.bench_view import finish, given, say

F = TypeVar("F", bound=Callable[..., Any])

FILM_S, QUICK_FILM_S = 600.0, 60.0
LONGER_S = 120.0
"""By so much a film is longer than the streams are measured: cameras do not begin anew, all of them in a
minute."""
STREAMS, STREAMS_S, QUICK_STREAMS_S = 38, 300.0, 60.0
QUICK_BATCHES = (1, 4, 16)
DEFAULT_MODEL = "open-nsfw"


def _writable(ctx: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Minutes of measuring must not end in a folder that is not there."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"{path}: there is no folder {path.parent}", ctx, option)
    return path


def _known(ctx: click.Context, option: click.Parameter, name: Any) -> Any:
    """A model's name, or the full path of its manifest, as the processes that measure find it.

    :raises ModelError: there is none, or its weights are not here."""
    if isinstance(name, tuple):
        return tuple(_known(ctx, option, one) for one in name)
    engines.weights(engines.load_manifest(name))
    return name if name in engines.shipped() else str(Path(name).expanduser().resolve())


def output_options(function: F) -> F:
    """Where the result goes."""
    function = click.option(
        "--report", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
        help="Write the report there: JSON, Markdown, and one HTML page.",
    )(function)  # fmt: skip
    return click.option(
        "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        metavar="FILE", callback=_writable,
        help="Write all numbers to FILE (-: to stdout, instead of the tables).",
    )(function)  # fmt: skip


def model_option(function: F) -> F:
    """Which model scores."""
    return click.option(
        "--model", default=DEFAULT_MODEL, show_default=True, metavar="M", callback=_known,
        help="Model to screen with.",
    )(function)  # fmt: skip


def folder_option(function: F) -> F:
    """Where films are."""
    return click.option(
        "--folder", default=Path("bench-out"), show_default=True, metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False), help="Where films are made and kept.",
    )(function)  # fmt: skip


def film_options(function: F) -> F:
    """What is screened."""
    for option in (
        model_option,
        folder_option,
        click.option(
            "--file", "own_file", type=click.Path(path_type=Path), metavar="FILE",
            help="A video file of your own instead of a film.",
        ),
        click.option(
            "--film", type=click.Choice(films.NAMES), default=films.NAMES[0], show_default=True,
            help="The film, made from fixed seeds.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def film_seconds_option(seconds: float | None) -> Callable[[F], F]:
    """How long the film is; None: ``LONGER_S`` more than streams are measured, ``FILM_S`` at least."""
    left_out = f"; left out: {FILM_S:g}, or {LONGER_S:g} more than --seconds" if seconds is None else ""
    return click.option(
        "--film-seconds", type=click.FloatRange(min=1), default=seconds, show_default=True, metavar="S",
        help=f"Length of the film{left_out}.",
    )  # fmt: skip


def streams_options(seconds: float) -> Callable[[F], F]:
    """How many live streams, and how long."""

    def decorate(function: F) -> F:
        function = click.option(
            "--seconds", type=click.FloatRange(min=1), default=seconds, show_default=True, metavar="S",
            help="How long streams are measured, once all are up.",
        )(function)  # fmt: skip
        return click.option(
            "--streams", "count", type=click.IntRange(min=1), default=STREAMS, show_default=True, metavar="N",
            help="Live streams.",
        )(function)  # fmt: skip

    return decorate


@click.group("bench", invoke_without_command=True, short_help="Measure speed against other ways to do it.")
@film_options
@streams_options(QUICK_STREAMS_S)
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    film: str,
    own_file: Path | None,
    folder: Path,
    model: str,
    count: int,
    seconds: float,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """Measure what screening costs, against what others would use, in the same run.

    Without a command: files, 38 streams and engines in their short forms, in a few minutes. CPU is what the
    kernel charged the processes, start-up included. Let nothing else run meanwhile."""
    if ctx.invoked_subcommand is not None:
        for option in given(ctx):
            raise click.UsageError(f"{option.opts[0]} goes behind {ctx.invoked_subcommand}", ctx)
        return
    machine = this_machine()
    material = _film(film, own_file, folder, QUICK_FILM_S)
    options = streams_bench.Options(count, seconds, "realtime", False, model)
    sections = [
        files_bench.bench(material, model=model, repeat=1, say=say),
        streams_bench.bench(material, options, say),
        engine_bench.bench([model], batches=QUICK_BATCHES, threads=None, say=say),
    ]
    finish(ctx, machine, material, sections, json_file, report)


@command.command("files", short_help="CPU of screening a file, beside its peers.")
@film_options
@film_seconds_option(FILM_S)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
    help="Measure ours so often; the median counts.",
)  # fmt: skip
@output_options
@click.pass_context
def files(
    ctx: click.Context,
    film: str,
    own_file: Path | None,
    folder: Path,
    model: str,
    film_seconds: float,
    repeat: int,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """CPU of screening a file, start-up included, against an OpenCV loop, libavcodec and GStreamer."""
    machine = this_machine()
    material = _film(film, own_file, folder, film_seconds)
    section = files_bench.bench(material, model=model, repeat=repeat, say=say)
    finish(ctx, machine, material, [section], json_file, report, f"{material.seconds:.0f}s-{material.name}")


@command.command("streams", short_help="Many live streams on the real service.")
@film_options
@film_seconds_option(None)
@streams_options(STREAMS_S)
@click.option(
    "--kind", type=click.Choice(["realtime", "rtsp"]), default="realtime", show_default=True,
    help="Files at the pace of a clock, or a real RTSP server.",
)  # fmt: skip
@click.option(
    "--find-limit", is_flag=True, help="From --streams on, find the number at which a promise breaks."
)
@click.option(
    "--flagged", type=click.FloatRange(0, 1), default=0.0, show_default=True, metavar="SHARE",
    help="Share of the streams (0.05: one of twenty) that show something to flag, 10 s of each minute.",
)  # fmt: skip
@click.option(
    "--priorities", "spread", is_flag=True,
    help="Give the streams priorities 0 to 9 in turn, to see whom an overload cuts first.",
)  # fmt: skip
@output_options
@click.pass_context
def streams(
    ctx: click.Context,
    film: str,
    own_file: Path | None,
    folder: Path,
    model: str,
    film_seconds: float | None,
    count: int,
    seconds: float,
    kind: streams_bench.Kind,
    find_limit: bool,
    flagged: float,
    spread: bool,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """Many live streams on the real service: gaps, latency, drops, cores and memory, next to the limit.

    The start and a warm-up (a quarter of --seconds, 15 s at most) are not counted; the report says how long
    they were."""
    if flagged and own_file is not None:
        raise click.UsageError("--flagged needs a film of ours: leave out --file", ctx)
    machine = this_machine()
    length_s = film_seconds or max(FILM_S, seconds + LONGER_S)
    material = _film(film, own_file, folder, length_s)
    bad = films.flagged(film, folder, length_s, model) if flagged else None
    options = streams_bench.Options(count, seconds, kind, find_limit, model, flagged, spread)
    section = streams_bench.bench(material, options, say, bad)
    finish(ctx, machine, material, [section], json_file, report, options.label(material))


@command.command("engine", short_help="CPU of every engine, precision and batch.")
@click.option(
    "--model", "models", multiple=True, metavar="M", callback=_known,
    help="Model; may be given again. Left out: every shipped one.",
)  # fmt: skip
@click.option(
    "--batch", "batches", type=click.IntRange(1, 256), multiple=True, default=engine_bench.BATCHES,
    show_default=True, metavar="N", help="Batch size; may be given again.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads of the engine (one a core)."
)
@output_options
@click.pass_context
def engine(
    ctx: click.Context,
    models: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int | None,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """CPU and pictures a second of every engine, precision and batch size."""
    machine = this_machine()
    section = engine_bench.bench(models or engines.shipped(), batches=batches, threads=threads, say=say)
    finish(ctx, machine, None, [section], json_file, report)


@command.command("flash", short_help="How likely a short flash is seen.")
@click.option(
    "--gap", "gaps", type=click.FloatRange(min=0.1, max=10.0), multiple=True, default=flash_bench.GAPS_S,
    show_default=True, metavar="S", help="Promised gap (max_gap_s); may be given again.",
)  # fmt: skip
@click.option(
    "--runs", type=click.IntRange(min=2), default=flash_bench.RUNS, show_default=True, metavar="N",
    help="Screen each film so often, each time with other luck.",
)  # fmt: skip
@folder_option
@output_options
@click.pass_context
def flash(
    ctx: click.Context,
    gaps: tuple[float, ...],
    runs: int,
    folder: Path,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """Recall against the length of a flash, 40 ms to 5 s, by plan and gap: real sampler and decoder, numbered
    pictures. Measures no time."""
    machine = this_machine()
    found = flash_bench.bench(gaps, runs=runs, folder=folder, say=say)
    finish(ctx, machine, None, [flash_report.section(found, runs=runs)], json_file, report)


@command.command("cost", short_help="How cost grows with GOP, bitrate, resolution and gap.")
@model_option
@folder_option
@output_options
@click.pass_context
def cost(ctx: click.Context, model: str, folder: Path, json_file: Path | None, report: Path | None) -> None:
    """CPU of a stream-second by part, as GOP, bitrate, resolution and promised gap change, one at a time."""
    machine = this_machine()
    finish(ctx, machine, None, [growth.bench(model, folder=folder, say=say)], json_file, report)


def _film(name: str, own_file: Path | None, folder: Path, seconds: float) -> Material:
    if own_file is not None:
        return films.own(own_file)
    say(f"making the film {name} ({seconds:g} s) in {folder}, unless it is there")
    return films.made(name, folder, seconds)
