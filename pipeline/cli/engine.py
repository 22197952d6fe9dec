"""``framewarden engine``: models, their weights and their engines."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pipeline import engines
from pipeline.cli import FAILED
from pipeline.engines import Manifest
from pipeline.errors import ModelError
from pipeline.flow.frames import InputSpec

PICTURES = 32
SCALES = (2, 4, 8, 16, 32)


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


@command.command("build")
@click.argument("model")
def build(model: str) -> None:
    """Build the engine of MODEL for this machine's device and say how long it took."""
    from pipeline.backends import registry

    manifest = engines.load_manifest(model)
    engines.weights(manifest)
    device, why = registry.choose_device("auto")
    if device == "cpu":
        click.echo(f"{manifest.name}: nothing to build: on a CPU engines read the weights ({why})")
        return
    begun = time.monotonic()
    classifier = registry.open_classifier(manifest, threads=1, max_batch=16, device=device)
    classifier.close()
    click.echo(f"{manifest.name}: {classifier.info.engine} built in {time.monotonic() - begun:.0f} s")


@command.command("verify")
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--engine", default="auto", metavar="E", help="Engine to check; auto is the one that run takes."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(ctx: click.Context, models: Sequence[str], engine: str, as_json: bool) -> None:
    """Compare an engine's scores of generated pictures with the reference's (ONNX Runtime, f32).

    Exit code 1 when a difference is above what the model's manifest accepts."""
    bad = False
    for name in models or engines.shipped():
        report = _verify(engines.load_manifest(name), engine)
        bad |= not report.ok
        click.echo(json.dumps(dataclasses.asdict(report) | {"ok": report.ok}) if as_json else _text(report))
    ctx.exit(FAILED if bad else 0)


def _verify(manifest: Manifest, engine: str) -> engines.Verification:
    from pipeline.backends import registry

    device, _ = registry.choose_device("auto")
    threads = len(os.sched_getaffinity(0))
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"verifying {manifest.name}"):
        reference = registry.open_classifier(manifest, engine="onnxruntime", threads=threads, max_batch=8)
        classifier = registry.open_classifier(
            manifest, engine=engine, threads=threads, max_batch=8, device=device
        )
        try:
            return engines.verify(manifest, classifier, reference, pictures(manifest.spec, PICTURES))
        finally:
            classifier.close()
            reference.close()


def _text(report: engines.Verification) -> str:
    if report.tolerance is None:
        verdict = "FAILED: the manifest accepts no tolerance for this precision"
    else:
        verdict = f"{'right' if report.ok else 'FAILED'} (accepted: {report.tolerance:g})"
    return (
        f"{report.model}: {report.engine} against {report.reference}, {report.frames} pictures: "
        f"differences mean {report.mean:.5f}, worst {report.worst:.5f}, "
        f"same decision {100 * report.agreement:.1f} %: {verdict}"
    )


def pictures(spec: InputSpec, count: int) -> NDArray[np.float32]:
    """Coloured noise at several scales as a batch tensor of ``spec``; the same pictures every time."""
    rng = np.random.default_rng(20260101)
    made = np.empty((count, spec.height, spec.width, 3), np.float32)
    for number in range(count):
        size = SCALES[number % len(SCALES)]
        grid = rng.uniform(0, 255, (size, size, 3)).astype(np.float32)
        rows = np.arange(spec.height) * size // spec.height
        columns = np.arange(spec.width) * size // spec.width
        made[number] = np.round(grid[rows][:, columns])
    scaled = (made - np.asarray(spec.mean, np.float32)) * np.asarray(spec.scale, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)) if spec.layout == "nchw" else scaled
