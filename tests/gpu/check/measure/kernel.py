"""What a conversion from a 1080p surface to a slot takes on the GPU, and on the host to queue it."""

import importlib
import time
from typing import Any

import numpy as np

from pipeline.backends.convert_cuda import BLOCK, KERNELS, arguments, grid_of, kernel_of
from pipeline.backends.cuda_device import CupyDevice, open_device, open_stream
from pipeline.backends.device_surface import DeviceSurface, semi_planar
from pipeline.flow.frames import InputSpec
from pipeline.flow.resize import Colour
from tests.gpu.check.measure import Row

HEIGHT, WIDTH = 1080, 1920
SPECS = {
    "open-nsfw": InputSpec(224, 224, "nhwc", "bgr", mean=(104, 117, 123), crop="center", resize=(256, 256)),
    "image-safety-s": InputSpec(224, 224),
}
SLOTS, LAUNCHES, TURNS = 16, 64, 20


def kernel() -> list[Row]:
    """Each kernel for each shipped model's form of input."""
    cupy, device = importlib.import_module("cupy"), open_device()
    rows: list[Row] = []
    for model, spec in SPECS.items():
        for name in KERNELS:
            surface, half = noise(cupy, deep="_16_" in name), name.endswith("f16")
            assert kernel_of(surface, half) == name
            on_gpu, to_queue = timed(cupy, device, surface, spec, half=half)
            rows.append((f"{model} {name} on the GPU", on_gpu, "µs/picture"))
            rows.append((f"{model} {name} to queue", to_queue, "µs/picture"))
    return rows


def noise(cupy: Any, *, deep: bool) -> DeviceSurface:
    """NV12 or P016 of random values, in GPU memory."""
    kind, top = (np.uint16, 1 << 16) if deep else (np.uint8, 256)
    values = cupy.asarray(np.random.default_rng(1).integers(0, top, (HEIGHT * 3 // 2, WIDTH), kind))
    cupy.cuda.Device().synchronize()  # it is read on another stream
    colour = Colour("bt709", bits=10 if deep else 8)
    return semi_planar(int(values.data.ptr), HEIGHT, WIDTH, WIDTH, colour, deep=deep, keep=values)


def timed(
    cupy: Any, device: CupyDevice, surface: DeviceSurface, spec: InputSpec, *, half: bool
) -> tuple[float, float]:
    """µs a picture: on the GPU, from a CUDA graph, which the host cannot slow down; and to queue it."""
    stream = open_stream()
    slots = device.empty((SLOTS, *spec.slot_shape()), half=half)
    given = [arguments(surface, spec, 0, device.address(slots[number])) for number in range(SLOTS)]

    def queue() -> None:
        for number in range(LAUNCHES):
            device.launch(kernel_of(surface, half), grid_of(spec), BLOCK, given[number % SLOTS], stream)

    queue()
    stream.synchronize()
    began = time.perf_counter()
    queue()
    to_queue = time.perf_counter() - began
    stream.synchronize()
    with stream:
        stream.begin_capture()
        queue()
        graph = stream.end_capture()
        graph.launch(stream)
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        for _ in range(TURNS):
            graph.launch(stream)
        end.record(stream)
        end.synchronize()
    on_gpu_ms = cupy.cuda.get_elapsed_time(start, end)
    return 1e3 * on_gpu_ms / (TURNS * LAUNCHES), 1e6 * to_queue / LAUNCHES
