"""``python -m tests.gpu.check.measure NAME [ARGUMENT…]``: its findings as JSON at the end."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pipeline.errors import ConfigError, FramewardenError
from tests.gpu.check.measure import Failed, NotRun, Row

PLACES = {
    "engines": "engines",
    "engine_time": "engines",
    "onnxruntime_cuda": "engines",
    "nvdec": "nvdec",
    "memory": "nvdec",
    "kernel": "kernel",
    "throughput": "service",
    "streams": "service",
}
"""Measurement → the module that has it."""


def answer(measure: Callable[..., list[Row]], *arguments: str) -> dict[str, Any]:
    """What a measurement found, or why there is nothing or not all of it."""
    found: dict[str, Any] = {"numbers": [], "not_run": "", "failed": ""}
    try:
        found["numbers"] = measure(*arguments)
    except Failed as error:
        found |= {"failed": str(error), "numbers": error.rows}
    except (NotRun, ConfigError) as error:
        found["not_run"] = str(error)
    except FramewardenError as error:
        found["failed"] = f"{type(error).__name__}: {error}"
    return found


def main() -> None:
    name, *arguments = sys.argv[1:]
    module = import_module(f"{__package__}.{PLACES[name]}")
    sys.stdout.write(json.dumps(answer(getattr(module, name), *arguments)) + "\n")


if __name__ == "__main__":
    main()
