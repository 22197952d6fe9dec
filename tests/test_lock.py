"""Every dependency is pinned by hash, and the script that says so can say no."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HASH = "--hash=sha256:" + "a" * 64


def problems(text: str) -> list[str]:
    spec = importlib.util.spec_from_file_location("check_lock", ROOT / ".ci" / "check_lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[str] = module.problems(text)
    return found


def test_every_requirement_of_the_lock_is_pinned_by_hash() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert text.count("==") > 30
    assert problems(text) == []


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.0",
        f"numpy {HASH}",
        f"numpy>=2.0 {HASH}",
        f"numpy==2.* {HASH}",
        f"numpy==2.0 {HASH[:-1]}",
        "numpy==2.0 --hash=md5:" + "a" * 32,
        f"numpy @ https://host.example/numpy.whl {HASH}",
        f"https://host.example/numpy.whl {HASH}",
        "-e .",
        "-r other.txt",
        "--index-url https://host.example/simple",
        "--trusted-host host.example",
    ],
)
def test_anything_else_is_a_problem(line: str) -> None:
    good = f"click==8.0 \\\n    {HASH} \\\n    {HASH}\nav==18.1 ; sys_platform == 'linux' \\\n    {HASH}\n"
    assert problems(good) == []
    assert len(problems(good + line + "\n")) == 1
