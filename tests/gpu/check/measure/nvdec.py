"""What NVDEC does with nothing else around it, and what a stream on it costs in memory.

The vendor's module is called directly, not through our decoder: it is the limit that ours is held against."""

import importlib
import os
import resource
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from pipeline.backends.decode_nvdec import first_card
from pipeline.backends.nvdec_session import load_vendor
from pipeline.backends.registry import open_decoder
from tests.gpu.check.measure import Failed, Row
from tests.gpu.check.measure.film import annex_b, packets

DECODERS = (1, 2, 4, 8, 16)
WINDOW_S = 8.0
WARM_S = 2.0
STREAMS = 8
"""Streams opened to learn what one costs."""


def nvdec() -> list[Row]:
    """Pictures a second over all decoders, each in its own thread on its own stream, from memory."""
    info, found = packets()
    data = annex_b(info, found)
    vendor = load_vendor()
    caps = vendor.GetDecoderCaps(
        0, vendor.cudaVideoCodec.H264, vendor.cudaVideoChromaFormat.__members__["420"], 8
    )
    rows: list[Row] = [("NVDEC engines", int(caps["num_decoder_engines"]), "")]
    rates = {}
    for count in DECODERS:
        rates[count] = rate(data, count, copied=True)
        rows.append((f"H.264 1080p, {count} decoders, every picture copied out", rates[count], "pictures/s"))
    best = max(rates, key=lambda count: rates[count])
    bare = rate(data, best, copied=False)
    rows.append((f"H.264 1080p, {best} decoders, no picture copied out", bare, "pictures/s"))
    rows.append(("H.264 1080p, the limit", max(bare, rates[best]), "pictures/s"))
    rows.append(("H.264 1080p30 streams at the limit (derived)", max(bare, rates[best]) / 30, "streams"))
    return rows


@dataclass
class Window:
    """``counts`` of pictures by decoder; they run until ``stop`` and note what they ran into."""

    counts: list[int]
    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[str] = field(default_factory=list)


def rate(data: list[bytes], decoders: int, *, copied: bool) -> float:
    """Packets (of one picture each) that all decoders take in a second."""
    held = [av.Packet(one) for one in data]  # padded, and kept until all have ended
    window = Window([0] * decoders)
    threads = [
        threading.Thread(target=_decode, args=(held, window, number, copied), daemon=True)
        for number in range(decoders)
    ]
    for thread in threads:
        thread.start()
    window.stop.wait(WARM_S)
    before, begun = sum(window.counts), time.monotonic()
    window.stop.wait(WINDOW_S)
    after, seconds = sum(window.counts), time.monotonic() - begun
    window.stop.set()
    for thread in threads:
        thread.join(30)
    if window.errors:
        raise Failed(f"{decoders} decoders: {window.errors[0]}", [])
    return (after - before) / seconds


def _decode(held: list[Any], window: Window, number: int, copied: bool) -> None:
    cupy, vendor = importlib.import_module("cupy"), load_vendor()
    try:
        with cupy.cuda.Device(0):
            stream = cupy.cuda.Stream(non_blocking=True)
            decoder = vendor.CreateDecoder(
                gpuid=0,
                codec=vendor.cudaVideoCodec.H264,
                cudacontext=0,
                cudastream=stream.ptr,
                usedevicememory=True,
            )
            while not window.stop.is_set():
                for packet in held:
                    to = vendor.PacketData()
                    to.bsl, to.bsl_data, to.pts = packet.buffer_size, packet.buffer_ptr, 0
                    to.discardable = int(not copied)
                    decoder.Decode(to)
                    window.counts[number] += 1
                    if window.stop.is_set():
                        break
            stream.synchronize()
            del decoder
    except (vendor.PyNvVCException, RuntimeError) as error:
        window.errors.append(str(error).splitlines()[0])
        window.stop.set()


def memory() -> list[Row]:
    """What one more 1080p stream takes, on our decoder: after keyframes alone, and after all of a GOP."""
    cupy = importlib.import_module("cupy")
    info, found = packets()
    first = open_decoder(info, device="gpu")  # what all of them share is not counted
    first.still(found[0])
    gpu, host = _used(cupy)
    decoders = [open_decoder(info, device="gpu") for _ in range(STREAMS)]
    for decoder in decoders:
        decoder.still(found[0])
    still_gpu, still_host = _used(cupy)
    for decoder in decoders:
        for packet in found[:60]:
            list(decoder.decode(packet))
    full_gpu, full_host = _used(cupy)
    admitted, measured = first_card().memory.need(info.codec, info.width, info.height)
    for decoder in (first, *decoders):
        decoder.close()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        ("GPU memory a 1080p stream, keyframes alone", (still_gpu - gpu) / STREAMS, "MiB"),
        ("GPU memory a 1080p stream, everything decoded", (full_gpu - gpu) / STREAMS, "MiB"),
        ("GPU memory that admission counts with", admitted, f"MB, {'measured' if measured else 'assumed'}"),
        ("host memory a 1080p stream, keyframes alone", (still_host - host) / STREAMS, "MiB"),
        ("host memory a 1080p stream, everything decoded", (full_host - host) / STREAMS, "MiB"),
        ("GPU memory in use with all of them", full_gpu, "MiB"),
        ("host memory of the process, at most", most, "MiB"),
    ]


def _used(cupy: Any) -> tuple[float, float]:
    """MiB in use on the GPU (by anybody) and by this process on the host."""
    cupy.cuda.Device(0).synchronize()
    free, total = cupy.cuda.runtime.memGetInfo()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (total - free) / 2**20, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
