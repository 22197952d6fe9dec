"""What ``make gpu-check`` runs, and with which interpreter: the real Makefile, on programs that only write
down that they were called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = "-m tests.gpu.check"
CALLED = f"""#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
[ "$*" != "{CHECK}" ] || exit "$CODE"
"""


def program(path: Path) -> Path:
    """One that writes down its name and what it was given; the check ends with ``CODE``."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(CALLED)
    path.chmod(0o755)
    return path


def make(folder: Path, *words: str, code: int = 0, **environment: str) -> tuple[int, list[str]]:
    """``make gpu-check WORDS`` where all is set up and the check ends with ``code``; make's own exit code,
    and what was called."""
    for name in ("python", "framewarden"):
        program(folder / "bin" / name)
    (folder / ".installed").touch()
    outer = {"PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}  # of the make that runs the tests
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    calls = folder / "calls"
    done = subprocess.run(
        ["make", "gpu-check", f"VENV={folder}", *words],
        cwd=ROOT,
        env={**kept, "CALLS": str(calls), "CODE": str(code), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize("given", ["on the command line", "in the environment"])
def test_with_an_interpreter_of_ones_own_gpu_check_runs_in_that_and_installs_nothing(
    tmp_path: Path, given: str
) -> None:
    own = str(program(tmp_path / "own" / "python3.12"))
    if given == "in the environment":
        assert make(tmp_path, PYTHON=own) == (0, [f"python3.12 {CHECK}"])
    else:
        assert make(tmp_path, f"PYTHON={own}") == (0, [f"python3.12 {CHECK}"])


def test_without_one_gpu_check_sets_up_the_project_s_own_and_runs_in_that(tmp_path: Path) -> None:
    assert make(tmp_path) == (0, ["framewarden engine fetch --quiet", f"python {CHECK}"])


@pytest.mark.parametrize("own", [True, False])
def test_a_gpu_check_that_fails_fails_make(tmp_path: Path, own: bool) -> None:
    words = [f"PYTHON={program(tmp_path / 'own' / 'python')}"] if own else []
    assert make(tmp_path, *words, code=1)[0] == 2
