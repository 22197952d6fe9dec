"""Which GPUs there are, asked of the driver alone; and a process that is to see one of them only.

One worker has one GPU. It sees no other, so that its number is 0 for every library in it, whatever device a
thread would otherwise start with."""

import ctypes
import os
import uuid
from collections.abc import Iterable

from pipeline.errors import ConfigError


def gpus() -> tuple[str, ...]:
    """The UUID of every GPU that this process sees, in the driver's order; none without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for number in range(count.value):
        device, raw = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
        if driver.cuDeviceGet(ctypes.byref(device), number) or driver.cuDeviceGetUuid(raw, device):
            continue
        found.append(f"GPU-{uuid.UUID(bytes=bytes(raw))}")
    return tuple(found)


def chosen(wanted: Iterable[int] | str, found: tuple[str, ...]) -> tuple[str, ...]:
    """The config's ``gpus``: ``all``, or numbers of those that were found, each once. "" stands for the only
    one that there is: that may be a slice of a GPU, which has another sort of name.

    :raises ConfigError: there is none of that number."""
    names = found if len(found) > 1 else ("",) * len(found)
    if isinstance(wanted, str):
        return names
    numbers = tuple(dict.fromkeys(wanted))
    for number in numbers:
        if number >= len(found):
            there = f"0 to {len(found) - 1}" if found else "none"
            raise ConfigError(f"gpus: {number}: there is no such GPU; this process sees {there}")
    if not numbers:
        raise ConfigError("gpus: []: names none; write all, or the numbers of those to use")
    return tuple(names[number] for number in numbers)


def see_only(gpu: str) -> None:
    """From now on this process sees no other GPU. Call it before anything has asked the driver."""
    os.putenv("CUDA_VISIBLE_DEVICES", gpu)  # the driver reads the C library's copy
