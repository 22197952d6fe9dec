"""``convert.cu`` through NVRTC, which CuPy uses, and ``ptxas``: no GPU and no driver is needed."""

import ctypes
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.backends.convert_cuda import KERNELS, SOURCE
from pipeline.backends.cuda_device import OPTIONS

MOST_REGISTERS = 64
"""At 256 threads a block, 64 registers still let a Turing SM (65,536 registers, 1,024 threads) run full."""

TARGETS = {"sm_75": "T4", "sm_86": "A10", "sm_90": "H100"}


def wheel(package: str, inside: str) -> Path:
    """A file of one of NVIDIA's wheels."""
    found = importlib.util.find_spec(package)
    assert found is not None, f"{package} is not installed"
    assert found.submodule_search_locations
    return next(Path(found.submodule_search_locations[0]).glob(inside))


def ptx(source: str, target: str) -> bytes:
    """Compile as CuPy does, with its options and ours.

    :raises SyntaxError: it does not compile; the log is the message."""
    nvrtc = ctypes.CDLL(str(wheel("nvidia.cuda_nvrtc", "lib/libnvrtc.so.*")))
    program = ctypes.c_void_p()
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"convert.cu", 0, None, None)
    assert made == 0
    options = [option.encode() for option in (f"--gpu-architecture={target}", *OPTIONS)]
    result = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = fetch(nvrtc, "ProgramLog", program)
    if result != 0:
        raise SyntaxError(log.decode())
    assert log.strip(b"\0") == b"", f"warnings: {log.decode()}"
    return fetch(nvrtc, "PTX", program)


def fetch(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    room = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, room) == 0
    return room.raw


def resources(code: bytes, target: str, folder: Path) -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes of each kernel, as ``ptxas -v`` counts them."""
    (folder / "convert.ptx").write_bytes(code.rstrip(b"\0"))
    ptxas = wheel("nvidia.cuda_nvcc", "bin/ptxas")
    command = [
        str(ptxas),
        "-v",
        f"-arch={target}",
        "-o",
        str(folder / "convert.cubin"),
        str(folder / "convert.ptx"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (folder / "convert.cubin").stat().st_size > 1000
    found = re.findall(
        r"Compiling entry function '(\w+)' for '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        done.stderr,
        re.DOTALL,
    )
    assert {architecture for _, architecture, *_ in found} == {target}
    return {name: (int(used), int(frame) + int(out) + int(back)) for name, _, frame, out, back, used in found}


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_within_its_registers_and_spills_nothing(target: str, tmp_path: Path) -> None:
    used = resources(ptx(SOURCE.read_text(encoding="utf-8"), target), target, tmp_path)
    assert sorted(used) == sorted(KERNELS)
    for name, (registers, spilled) in used.items():
        assert registers <= MOST_REGISTERS, f"{name} on {target}: {registers} registers"
        assert spilled == 0, f"{name} on {target}: {spilled} bytes of stack"


def test_the_bar_can_be_missed(tmp_path: Path) -> None:
    """An array that is indexed by a value only known when it runs lies on the stack."""
    source = """extern "C" __global__ void greedy(float *out, int at) {
        float table[32] = {};
        for (int i = 0; i < 32; ++i) table[out[i] > 0 ? i * at & 31 : i] += out[i + at];
        for (int i = 0; i < 32; ++i) out[i] = table[i * at & 31];
    }"""
    assert resources(ptx(source, "sm_75"), "sm_75", tmp_path)["greedy"][1] > 0


def test_a_kernel_that_does_not_compile_says_so() -> None:
    with pytest.raises(SyntaxError, match="undefined"):
        ptx(SOURCE.read_text(encoding="utf-8").replace("span.first", "spam.first"), "sm_75")
