"""``make gpu-check`` where there is no GPU: it says so of every part, and passes for nothing."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends import registry
from pipeline.bench import judge
from pipeline.errors import ConfigError, ModelError
from tests.fixtures.media import Clips
from tests.fixtures.service import film
from tests.gpu.check.__main__ import exit_code, run_all
from tests.gpu.check.facts import Facts, Gpu, label
from tests.gpu.check.measure import Failed, NotRun, Row, service
from tests.gpu.check.measure.__main__ import answer
from tests.gpu.check.measure.engines import BATCHES, timed
from tests.gpu.check.parts import PARTS, ROOT, Part, run, selecting
from tests.gpu.check.report import Number, Outcome, Report, earlier

T4 = Gpu("Tesla T4", "sm_75", 15360, "550.54", "12.4", "1590 MHz")
WITH_A_GPU = Facts(T4, {}, {"python": "3.11.7"})
WITHOUT = Facts(None, {"gpu": "none: no driver"}, {"python": "3.11.7"})
PASSED = Outcome("a", "A", "passed", tests={"passed": 2, "failed": 0, "skipped": 0})
MEASURED = Outcome("b", "B", "measured", numbers=(Number("kernel", 12.345, "µs"), Number("n", 38, "streams")))
FAILED = Outcome("c", "C", "failed", "one | two", failures=("tests.x::test_y",))
NOT_RUN = Outcome("d", "D", "not run", "TensorRT: not installed")


def check(*arguments: str, out: Path, python: str = sys.executable) -> tuple[int, str, dict[str, Any]]:
    """Run it with every GPU hidden; exit code, Markdown and JSON."""
    done = subprocess.run(
        [python, "-m", "tests.gpu.check", "--out", str(out), *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    (text,), (data,) = (list(out.glob(f"gpu-check-no-gpu-*.{suffix}")) for suffix in ("md", "json"))
    return done.returncode, text.read_text(), json.loads(data.read_text())


def test_without_a_gpu_it_fails_unless_that_is_allowed_and_reports_either_way(tmp_path: Path) -> None:
    for arguments, expected in [((), 1), (("--allow-no-gpu",), 0)]:
        code, text, data = check(*arguments, out=tmp_path / str(expected))
        assert code == expected
        assert list(data["parts"]) == [part.name for part in PARTS]
        assert data["gpu"]["missing"].startswith("none: ")
        for part in PARTS:
            found = data["parts"][part.name]
            assert found["status"] == "not run"
            assert found["why"].startswith("GPU: none: ")
            assert found["numbers"] == []
            assert f"| {part.title} | not run: GPU: none: " in text
        assert data["versions"]["numpy"]
        assert data["machine"]["processor"]
        assert data["date"].endswith("+00:00")


def test_an_interpreter_with_nothing_installed_names_all_that_each_part_lacks(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare")
    code, _, data = check(out=tmp_path / "out", python=str(tmp_path / "bare" / "bin" / "python"))
    assert code == 1
    assert list(data["versions"]) == ["python"]
    for part in PARTS:
        gpu, _, absent = data["parts"][part.name]["why"].partition("; not installed: ")
        assert gpu.startswith("GPU: none: ")
        needs = [" or ".join(label(name) for name in need.split("|")) for need in part.needs]
        assert absent.split(", ") == [name for name in dict.fromkeys(needs) if name != "GPU"]


def test_a_part_that_nobody_knows_is_answered_with_those_there_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu.check", "--out", str(tmp_path), "--only", "kernel,kernle"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "no such part: kernle; there are decoder, frame-pool, " in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("facts", "outcomes", "allowed", "code"),
    [
        (WITH_A_GPU, [PASSED, MEASURED, NOT_RUN], False, 0),
        (WITH_A_GPU, [PASSED, FAILED], False, 1),
        (WITH_A_GPU, [PASSED, FAILED], True, 1),
        (WITH_A_GPU, [NOT_RUN], False, 1),
        (WITH_A_GPU, [NOT_RUN], True, 1),
        (WITHOUT, [NOT_RUN], False, 1),
        (WITHOUT, [NOT_RUN], True, 0),
    ],
)
def test_it_passes_only_when_something_ran_and_nothing_failed(
    facts: Facts, outcomes: list[Outcome], allowed: bool, code: int
) -> None:
    assert exit_code(facts, outcomes, allow_no_gpu=allowed) == code


def test_of_two_packages_that_do_the_same_one_is_enough() -> None:
    either = ("tensorrt|tensorrt_rtx",)
    one = replace(WITH_A_GPU, missing={"tensorrt": "not installed"})
    both = replace(WITH_A_GPU, missing={"tensorrt": "not installed", "tensorrt_rtx": "too old"})
    none = replace(WITH_A_GPU, missing={"tensorrt": "not installed", "tensorrt_rtx": "not installed"})
    assert one.lacks(either) == []
    assert both.lacks(either) == ["tensorrt: not installed and tensorrt_rtx: too old"]
    assert none.lacks(either) == ["not installed: tensorrt or tensorrt_rtx"]


def test_the_report_says_what_ran_on_which_gpu_and_what_did_not(tmp_path: Path) -> None:
    notes = ["TensorRT is missing, but this ONNX Runtime has CUDA"]
    facts = replace(WITH_A_GPU, missing={"tensorrt": "not installed"}, notes=notes)
    outcomes = (PASSED, replace(MEASURED, date="2026-11-24T11:59:59+00:00"), FAILED, NOT_RUN)
    report = Report("2026-11-24T12:00:00+00:00", "make gpu-check", {"cores": 16}, facts, outcomes)
    text, data = (path.read_text() for path in report.write(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gpu-check-tesla-t4-2026-11-24.json",
        "gpu-check-tesla-t4-2026-11-24.md",
    ]
    for line in (
        "# GPU check: Tesla T4, 2026-11-24",
        "TensorRT is missing, but this ONNX Runtime has CUDA.",
        "| A | passed (2 passed) |  |",
        "| B | measured | 2026-11-24 11:59 |",
        "| C | failed: one \\| two |  |",
        "| D | not run: TensorRT: not installed |  |",
        "| kernel | 12.3 | µs |",
        "| n | 38 | streams |",
        "- failed: `tests.x::test_y`",
        "| GPU | Tesla T4, sm_75, 15360 MiB |",
        "| driver | 550.54, CUDA up to 12.4 |",
        "| tensorrt | not installed | tensorrt-cu12 |",
    ):
        assert line in text.splitlines(), line
    found = json.loads(data)
    assert found["gpu"]["driver"] == "550.54"
    assert found["parts"]["b"]["numbers"][0] == {"what": "kernel", "value": 12.345, "unit": "µs"}
    assert found["parts"]["d"]["why"] == "TensorRT: not installed"
    assert found["notes"] == notes


def test_parts_are_taken_from_an_earlier_report_of_the_same_gpu_and_driver(tmp_path: Path) -> None:
    outcomes = (PASSED, MEASURED, FAILED, NOT_RUN)
    report = Report("2026-11-24T12:00:00+00:00", "make gpu-check", {"cores": 16}, WITH_A_GPU, outcomes)
    written = next(path for path in report.write(tmp_path) if path.suffix == ".json")
    assert earlier(written, WITH_A_GPU) == {one.name: one for one in outcomes}
    assert WITH_A_GPU.gpu is not None
    other = replace(WITH_A_GPU, gpu=replace(WITH_A_GPU.gpu, driver="580.1"))
    with pytest.raises(
        ValueError, match=r"is of Tesla T4 with driver 550\.54, and here is Tesla T4 with 580"
    ):
        earlier(written, other)
    written.write_text("{}")
    with pytest.raises(ValueError, match="is no report of a check"):
        earlier(written, WITH_A_GPU)


def test_a_part_waits_for_the_one_whose_engines_it_needs(tmp_path: Path) -> None:
    broken = Part("first", "First", "measure", ("no-such-measurement",), ())
    second = Part("second", "Second", "measure", ("no-such-measurement",), (), after="first")
    first, after = run_all([broken, second], WITH_A_GPU, {}).values()
    assert first.status == "failed"
    assert "no-such-measurement" in first.why
    assert (after.status, after.why) == ("not run", "it needs what 'First' makes, which was failed")


GPU_TESTS = {
    "passes": ("def test_it(clips): pass", "passed", {"passed": 1, "failed": 0, "skipped": 0}),
    "fails": ("def test_it(): assert False", "failed", {"passed": 0, "failed": 1, "skipped": 0}),
    "skips": ("def test_it(): pytest.skip('no')", "failed", {"passed": 0, "failed": 0, "skipped": 1}),
    "breaks": ("import no_such_module", "failed", {"passed": 0, "failed": 1, "skipped": 0}),
}


@pytest.mark.parametrize("case", GPU_TESTS)
def test_of_the_tests_for_a_gpu_none_may_fail_and_none_may_skip(tmp_path: Path, case: str) -> None:
    code, status, counts = GPU_TESTS[case]
    file = tmp_path / f"test_{case}.py"
    lines = ["import pytest", "pytestmark = pytest.mark.needs_gpu", code]
    file.write_text("\n".join(lines) + "\n")
    found = run(Part("x", "X", "tests", (str(file),), ()), WITH_A_GPU, {})
    assert (found.status, found.tests) == (status, counts)
    assert bool(found.failures) == (status == "failed")


@pytest.mark.parametrize("required", ["1", ""])
def test_a_contract_test_for_a_gpu_skips_loudly_without_one_and_fails_where_one_is_required(
    required: str,
) -> None:
    """The project's own suite, as ``make test`` runs it, with every GPU hidden."""
    file = "tests/contract/test_frame_pool.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", file, "-k", "carries", "-m", "needs_gpu", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "REQUIRE_GPU": required},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    last = done.stdout.splitlines()[-1]
    assert (done.returncode, "skipped" in last, "failed" in last) == (
        bool(required),
        not required,
        bool(required),
    )
    assert required or "no usable GPU (" in done.stdout
    assert required or "REQUIRE_GPU=1 makes this a failure" in done.stdout


def test_a_file_without_tests_for_a_gpu_has_not_passed(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("def test_it(): pass\n")
    found = run(Part("x", "X", "tests", (str(tmp_path / "test_none.py"),), ()), WITH_A_GPU, {})
    assert found.status == "failed"
    assert "deselected" in found.why


def test_every_contract_that_has_a_gpu_variant_is_part_of_the_check() -> None:
    listed = {name for part in PARTS if part.kind == "tests" for name in part.arguments}
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"mark\.needs_gpu|\bOpenPool\b", path.read_text()) and path != Path(__file__)
    }
    assert listed == marked


@pytest.mark.parametrize("part", [part for part in PARTS if part.kind == "tests"], ids=lambda part: part.name)
def test_the_checks_own_command_finds_the_tests_of_a_part_and_all_their_fixtures(part: Part) -> None:
    """It runs without the suite's ``conftest.py``; a plan of the set-up runs nothing."""
    command = [*selecting(part), "--setup-plan", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout
    planned = re.findall(r"^ +(tests/contract/\S+\.py)::.*\(fixtures used: ", done.stdout, re.MULTILINE)
    assert set(planned) == set(part.arguments)


def raising(error: Exception) -> Any:
    def measure() -> list[Row]:
        raise error

    return measure


def test_what_a_measurement_says_becomes_its_result() -> None:
    rows: list[Row] = [("x", 1.5, "ms")]
    assert answer(lambda: rows) == {"numbers": rows, "not_run": "", "failed": ""}
    for missing in (NotRun("no CUDA"), ConfigError("no CUDA")):
        assert answer(raising(missing)) == {"numbers": [], "not_run": "no CUDA", "failed": ""}
    assert answer(raising(ModelError("bad"))) == {"numbers": [], "not_run": "", "failed": "ModelError: bad"}
    assert answer(raising(Failed("half", rows))) == {"numbers": rows, "not_run": "", "failed": "half"}


def test_an_engine_is_timed_at_every_batch_size() -> None:
    seen: list[int] = []
    rows = timed("model", lambda pixels: seen.append(len(pixels)), list(range(BATCHES[-1])))
    assert sorted(set(seen)) == list(BATCHES)
    assert [unit for _, _, unit in rows] == ["ms", "ms", "pictures/s"] * len(BATCHES)


def test_the_nvdec_measurements_end_and_free_what_they_took_on_the_fake_driver(
    fake_driver: Path, clips: Clips
) -> None:
    """The real PyNvVideoCodec; its speed here says nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.fake_driver.measured", str(clips(suffix=".ts"))],
        env={**os.environ, "LD_LIBRARY_PATH": str(fake_driver)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(value > 0 for what, value, _ in found["nvdec"]), found["nvdec"]
    assert any(what == "H.264 1080p, the limit" for what, _, _ in found["nvdec"])
    assert found["live"]["decoders"] == 0
    assert len(found["memory"]) == 7


SPEED = ("every gap", "nothing dropped", "99 %")
"""What the promises are called that a busy machine may break: how fast this one is, is not tested."""


def test_streams_are_counted_on_the_real_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, with a small film: what a GPU will run, but for the device."""
    clip = film(tmp_path / "film.mp4", 20, size=(320, 180), rate=10)
    monkeypatch.setattr(service, "longer", lambda _: clip)
    for name, value in {"WARM_S": 0.5, "WINDOW_S": 2.5, "TRIES": 1}.items():
        monkeypatch.setattr(service, name, value)
    judged, tried = judge.judge, list[judge.Finding]()

    def noted(*window: Any, **about: Any) -> judge.Finding:
        tried.append(judged(*window, **about))
        return tried[-1]

    monkeypatch.setattr(judge, "judge", noted)
    try:
        rows = service.streams("keyframes", "cpu", "2")
    except Failed as short:
        rows = short.rows
    (found,) = tried
    assert (found.streams, found.samples_a_second > 0) == (2, True)
    assert [p for p in found.promises if not p.kept and not p.name.startswith(SPEED)] == []
    if found.kept:
        assert rows[0] == ("1080p30 streams carried, plan keyframes", 2, "streams")
        assert rows[-1] == ("more than that", "not tried: 1 runs were", "")
    else:
        assert rows == [("2 streams", f"not carried: {found.broken}", "")]


def test_where_tensorrt_is_missing_onnx_runtime_for_cuda_is_named_as_what_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.util.find_spec
    gone = ("tensorrt", "tensorrt_rtx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else installed(name))
    [piece] = [piece for piece in registry.gpu_pieces() if piece.name == "TensorRT"]
    assert (piece.available, "ONNX Runtime" in piece.reason) == (False, False)
    metadata = tmp_path / "onnxruntime_gpu-1.22.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.22.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    [piece] = [piece for piece in registry.gpu_pieces() if piece.name == "TensorRT"]
    assert not piece.available
    assert piece.reason.endswith("ONNX Runtime for CUDA, which is installed: engine: onnxruntime-cuda")
    [piece] = [one for one in registry.gpu_pieces("onnxruntime-cuda") if "ONNX Runtime" in one.name]
    assert piece.available
