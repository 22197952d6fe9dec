"""``framewarden engine``: models, their weights and their engines."""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from pipeline import engines
from pipeline.cli import FAILED
from pipeline.engines import Manifest
from pipeline.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from pipeline.engine_build import Built


@click.group("engine", short_help="Models, their weights and engines.")
def command() -> None:
    """List models, fetch and check their weights, build and verify their engines."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List the shipped models: licence, categories, whether the weights are here."""
    rows = [_row(engines.load_manifest(name)) for name in engines.shipped()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        categories = ", ".join(f"{name} ({'+'.join(labels)})" for name, labels in row["categories"].items())
        click.echo(f"{row['name']} {row['version']}: {categories}; {row['licence']}; {row['weights']}")


def _row(manifest: Manifest) -> dict[str, Any]:
    try:
        state = f"weights at {engines.weights(manifest)}"
    except ModelError as error:
        state = f"no weights: {error}"
    return {
        "name": manifest.name,
        "version": manifest.version,
        "licence": manifest.licence,
        "categories": {name: list(labels) for name, labels in manifest.categories.items()},
        "sha256": manifest.sha256,
        "homepage": manifest.homepage,
        "weights": state,
    }


@command.command("fetch")
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option("--quiet", is_flag=True, help="Say nothing when all is right.")
def fetch(models: Sequence[str], quiet: bool) -> None:
    """Check that the weights of MODEL (left out: of all shipped models) are here and are the right ones.

    They come with pinned packages; nothing is downloaded. The licence is shown."""
    for name in models or engines.shipped():
        manifest = engines.load_manifest(name)
        path = engines.weights(manifest)
        if not quiet:
            click.echo(f"{manifest.name}: right: {path} (sha256 {manifest.sha256}), {manifest.licence}")


_PICTURES = click.option(
    "--pictures",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Pictures to calibrate and verify with; left out: the samples' cards and photographs.",
)
_FRAMES = click.option(
    "--frames",
    type=click.IntRange(min=50),
    default=engines.FRAMES,
    show_default=True,
    metavar="N",
    help="Pictures to verify with, a quarter of them near a threshold.",
)

_PRECISION = click.option(
    "--precision", type=click.Choice(["int8", "fp16", "fp32"]), help="Left out: int8 of OpenVINO, else fp16."
)
_MAX_BATCH = click.option(
    "--max-batch", type=click.IntRange(min=1), default=16, show_default=True, metavar="N",
    help="Pictures that a plan takes at once.",
)  # fmt: skip


@command.command("build")
@click.argument("model")
@click.option("--engine", type=click.Choice(["openvino", "tensorrt", "tensorrt-rtx"]), default="openvino")
@_PRECISION
@click.option("--target", metavar="SM", help="GPU to build for, as sm_75 (a T4). Left out: the GPU here.")
@_MAX_BATCH
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where a plan is written."
)
@_PICTURES
@_FRAMES
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def build(
    ctx: click.Context,
    model: str,
    engine: str,
    precision: str | None,
    target: str | None,
    max_batch: int,
    out: Path | None,
    pictures: Path | None,
    frames: int,
    as_json: bool,
) -> None:
    """Build an engine of MODEL and verify it against the reference (ONNX Runtime, f32).

    OpenVINO's int8 is kept in the cache and used by itself once it is within the manifest's tolerance; a plan
    of TensorRT is written to --out. Exit code 1 when the engine is not within the tolerance."""
    manifest = engines.load_manifest(model)
    precision = precision or ("int8" if engine == "openvino" else "fp16")
    _refuse(engine, precision, target, out)
    made = _build(manifest, engine, precision, target, max_batch, out, pictures, frames)
    if as_json:
        more = {"place": str(made.place), "bytes": made.size, "seconds": made.seconds, "ok": made.report.ok}
        click.echo(json.dumps(dataclasses.asdict(made.report) | more))
    else:
        click.echo(_text(made.report))
        click.echo(f"{made.place}: {made.size / 1e6:.1f} MB, built in {made.seconds:.1f} s")
    ctx.exit(0 if made.report.ok else FAILED)


def _refuse(engine: str, precision: str, target: str | None, out: Path | None) -> None:
    from pipeline.backends import build_tensorrt, registry

    if engine == "openvino":
        if precision != "int8":
            raise ConfigError(
                f"--precision {precision}: nothing to build: OpenVINO reads the weights for bf16 and f32"
            )
        if target or out:
            raise ConfigError(
                "--target and --out: OpenVINO's engines are for this machine and kept in its cache"
            )
        return
    here = registry.gpu_target()
    build_tensorrt.refuse(engine, precision, target, here)
    if out is None:
        raise ConfigError(f"--out: is missing; name the file that the {engine} plan is to be written to")
    build_tensorrt.check(engine, target, here)


def _build(
    manifest: Manifest,
    engine: str,
    precision: str,
    target: str | None,
    max_batch: int,
    out: Path | None,
    pictures: Path | None,
    frames: int,
) -> "Built":
    from pipeline import engine_build

    threads = len(os.sched_getaffinity(0))
    paths = engine_build.find_pictures(pictures)
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"building {manifest.name}") as status:
        say = status.update
        judge = engine_build.open_judge(manifest, paths, frames, threads, say)
        if engine == "openvino":
            return engine_build.build_int8(judge, threads, say)
        return engine_build.build_plan(
            judge,
            engine=engine,
            precision=precision,
            target=target,
            max_batch=max_batch,
            out=Path(str(out)),
            threads=threads,
            say=say,
        )


@command.command("verify")
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--engine", default="auto", metavar="E", help="Engine to check; auto is the one that run takes."
)
@click.option(
    "--plan",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A plan that was built elsewhere; run uses it once it is found right on the GPU here.",
)
@_PRECISION
@_MAX_BATCH
@_PICTURES
@_FRAMES
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(
    ctx: click.Context,
    models: Sequence[str],
    engine: str,
    plan: Path | None,
    precision: str | None,
    max_batch: int,
    pictures: Path | None,
    frames: int,
    as_json: bool,
) -> None:
    """Compare an engine's scores with the reference's (ONNX Runtime, f32), on pictures of which a
    quarter score near a threshold.

    --precision (left out: fp16) and --max-batch are those that --plan was built with.

    Exit code 1 when a difference is above what the model's manifest accepts."""
    bad = False
    if plan is not None and (len(models) != 1 or not engine.startswith("tensorrt")):
        raise ConfigError("--plan: belongs to one MODEL and one --engine: tensorrt or tensorrt-rtx")
    given = None if plan is None else (plan, (precision or "fp16").replace("fp", "f"), max_batch)
    for name in models or engines.shipped():
        report = _verify(engines.load_manifest(name), engine, given, pictures, frames)
        bad |= not report.ok
        click.echo(json.dumps(dataclasses.asdict(report) | {"ok": report.ok}) if as_json else _text(report))
    ctx.exit(FAILED if bad else 0)


def _verify(
    manifest: Manifest,
    engine: str,
    plan: tuple[Path, str, int] | None,
    pictures: Path | None,
    frames: int,
) -> engines.Verification:
    from pipeline import engine_build
    from pipeline.backends import registry

    device, _ = registry.choose_device("auto", engine)
    threads = len(os.sched_getaffinity(0))
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"verifying {manifest.name}") as status:
        paths = engine_build.find_pictures(pictures)
        judge = engine_build.open_judge(manifest, paths, frames, threads, status.update)
        if plan is not None:
            return engine_build.keep_plan(judge, engine, *plan)
        classifier = registry.open_classifier(
            manifest, engine=engine, threads=threads, max_batch=engine_build.BATCH, device=device
        )
        try:
            return judge.verify(classifier)
        finally:
            classifier.close()


def _text(report: engines.Verification) -> str:
    verdict = "right" if report.ok else f"FAILED: {'; '.join(report.faults)}"
    return (
        f"{report.model}: {report.engine} against {report.reference}, {report.frames} pictures "
        f"({100 * report.near:.0f} % near a threshold): same decision {100 * report.agreement:.2f} %, "
        f"differences mean {report.mean:.5f}, worst {report.worst:.5f}: {verdict}"
    )
