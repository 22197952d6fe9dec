"""Compilers that come as wheels, for tests that need no GPU and no system compiler."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.cpu_kernel import CpuKernel

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMPILERS = ["zig", *(["g++"] if shutil.which("g++") else [])]
"""``zig`` is the ``ziglang`` wheel's, always; ``g++`` is the system's, an extra where there is one."""

Play = Callable[..., Any]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What is proved without a GPU is proved on every machine: a test here that skips has failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy gives it to a wrapper
    if report.skipped and item.get_closest_marker("needs_gpu") is None:
        report.outcome, report.longrepr = "failed", f"skipped, which no proof may: {report.longrepr}"


def compiler(name: str) -> list[str]:
    """The start of a command that compiles C++ without its standard library."""
    if name == "g++":
        return ["g++"]
    return [sys.executable, "-m", "ziglang", "cc", "-x", "c++", "-nostdlib++"]


def build(command: list[str | Path]) -> None:
    """Run a compiler; what it says is the test's failure."""
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(ROOT / ".cache" / "zig")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def build_kernel(name: str, folder: Path) -> CpuKernel:
    """``convert.cu`` for this CPU, by one of ``COMPILERS``."""
    library = folder / "convert.so"
    flags = ["-std=c++17", "-shared", "-fPIC", "-O2", "-fno-exceptions", "-fno-rtti", "-Wall", "-Werror"]
    flags += ["-Wno-unknown-pragmas", "-I", str(ROOT / "pipeline" / "backends"), "-o", str(library)]
    build([*compiler(name), *flags, HERE / "convert_on_cpu.cpp"])
    return CpuKernel(library)


@pytest.fixture(scope="session", params=COMPILERS)
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CpuKernel:
    """The kernels as each compiler makes them."""
    return build_kernel(request.param, tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def zig_kernel(tmp_path_factory: pytest.TempPathFactory) -> CpuKernel:
    """The kernels as the compiler makes them that is always there."""
    return build_kernel("zig", tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fake libcuda, libnvcuvid and libnvidia-encode: a child process's LD_LIBRARY_PATH."""
    folder = tmp_path_factory.mktemp("fake-driver")
    for name, source, libraries in [
        ("libcuda.so.1", "cuda.c", []),
        ("libnvcuvid.so.1", "cuvid.c", [f"-L{folder}", "-l:libcuda.so.1"]),
        ("libnvidia-encode.so.1", "nvenc.c", []),
    ]:
        flags = ["-std=gnu11", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        build([sys.executable, "-m", "ziglang", "cc", *flags, HERE / "fake_driver" / source, *libraries])
    return folder


@pytest.fixture
def play(fake_driver: Path) -> Play:
    """``play(scenario, **arguments)`` gives what the child found."""

    def run(scenario: str, **arguments: Any) -> Any:
        given = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        done = subprocess.run(
            [sys.executable, "-m", "tests.gpu.fake_driver.child", scenario, json.dumps(given)],
            env={**os.environ, "LD_LIBRARY_PATH": str(fake_driver)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
