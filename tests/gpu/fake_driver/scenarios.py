"""Scenarios in which all goes well."""

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import PacketSideData

from pipeline.backends import cuda_driver
from pipeline.backends.annexb import Framing, is_needed
from pipeline.backends.nvdec_session import close_idle
from pipeline.errors import DecodeError
from pipeline.flow.frames import InputSpec
from pipeline.flow.source import Packet
from tests.fixtures.media import demux
from tests.gpu.cpu_kernel import CpuKernel
from tests.gpu.fake_driver.harness import (
    CUDA,
    feed,
    live,
    log,
    luma,
    marks,
    opened,
    prepare,
    scenario,
    seen,
    setting,
)
from tests.gpu.surfaces import HostCopies, from_memory

NEW_EXTRADATA = 1  # FFmpeg's AV_PKT_DATA_NEW_EXTRADATA


@scenario
def everything(path: str, reorder: int = 0, delay: int = 0) -> Any:
    info, packets = prepare(path, reorder=reorder, delay=delay)
    decoder = opened(info)
    found, errors = feed(decoder, packets)
    calls = log()
    decoder.close()
    close_idle()
    del decoder
    expected = marks(info, packets)
    return {
        "found": found,
        "expected": sorted(expected.items()),
        "errors": errors,
        "log": calls,
        "live": live(),
    }


@scenario
def one_packet(path: str) -> Any:
    info, packets = prepare(path)
    decoder = opened(info)
    list(decoder.decode(packets[0]))
    first = log()
    pictures = list(decoder.decode(packets[1]))
    stream = pictures[0].surface.stream.ptr
    planes = [(p.address, p.height, p.width, p.pitch, p.step) for p in pictures[0].surface.planes]
    return {"first": first, "second": log(), "stream": hex(stream), "planes": planes}


@scenario
def stale(path: str) -> Any:
    info, packets = prepare(path)
    decoder, expected = opened(info), marks(info, packets)
    (first,) = decoder.decode(packets[0])
    in_time = luma(first)
    (second,) = decoder.decode(packets[1])
    addresses = [p.surface.planes[0].address for p in (first, second)]
    too_late, wanted = luma(first), [expected[p.time_s] for p in packets[:2]]
    decoder.close()
    close_idle()
    return {"in_time": in_time, "too_late": too_late, "wanted": wanted, "same": addresses[0] == addresses[1]}


@scenario
def several_at_once(path: str) -> Any:
    info, packets = prepare(path, delay=4)
    decoder = opened(info)
    for packet in packets[:4]:
        list(decoder.decode(packet))
    pictures = list(decoder.flush())
    return {
        "addresses": len({p.surface.planes[0].address for p in pictures}),
        "found": seen(pictures),
        "expected": sorted(marks(info, packets[:4]).items()),
    }


@scenario
def stills(path: str, delay: int, progressive: int = 1) -> Any:
    info, packets = prepare(path, delay=delay, progressive=progressive)
    decoder, found = opened(info), []
    keyframes = [packet for packet in packets if packet.keyframe]
    for packet in keyframes:
        picture = decoder.still(packet)
        assert picture is not None
        found.append((picture.time_s, luma(picture)))
    calls = log()
    return {"found": found, "expected": list(marks(info, keyframes).items()), "log": calls}


@scenario
def still_between_fed_packets(path: str) -> Any:
    info, packets = prepare(path, delay=2)
    decoder, found, extra = opened(info), [], []
    for number, packet in enumerate(packets):
        found += seen(decoder.decode(packet))
        if packet.keyframe and number < 30:
            picture = decoder.still(packet)
            assert picture is not None
            extra.append((picture.time_s, luma(picture)))
    found += seen(decoder.flush())
    list(decoder.flush())
    decoder.close()
    close_idle()
    del decoder, picture
    return {"found": found, "extra": extra, "expected": list(marks(info, packets).items()), "live": live()}


@scenario
def unwanted(path: str) -> Any:
    info, packets = prepare(path, reorder=1)
    decoder, found = opened(info), []
    for number, packet in enumerate(packets):
        found += seen(decoder.decode(packet, wanted=number % 3 == 0))
    found += seen(decoder.flush())
    calls = log()
    kept = [packet for number, packet in enumerate(packets) if number % 3 == 0]
    framing = Framing.of(info.codec, bytes(info.codec_parameters.extradata or b""))

    def annex_b(packet: Packet) -> bytes:
        return framing.annex_b(bytes(packet.data), packet.keyframe)

    return {
        "found": sorted(found),
        "expected": sorted(marks(info, kept).items()),
        "packets": len(packets),
        "passed_over": sum(not is_needed(info.codec, annex_b(p)) for n, p in enumerate(packets) if n % 3),
        "log": calls,
    }


@scenario
def flush_and_reset(path: str) -> Any:
    info, packets = prepare(path, delay=3)
    flushed, reset = opened(info), opened(info)
    early = [picture.time_s for packet in packets[:7] for picture in flushed.decode(packet)]
    rest = [picture.time_s for picture in flushed.flush()]
    for packet in packets[:7]:
        list(reset.decode(packet))
    reset.reset()
    nothing = [picture.time_s for picture in reset.flush()]
    again = [feed(decoder, packets[7:])[0] for decoder in (flushed, reset)]
    return {
        "early": early,
        "rest": rest,
        "nothing": nothing,
        "again": again,
        "expected": marks(info, packets),
    }


@scenario
def new_size(small: str, large: str, max_pixels: int = 0) -> Any:
    """The fake parser is told the new size where the stream changes; each decoder has its own parser."""

    def carrier(packet: Packet) -> Packet:
        """An MP4's parameter sets come with the packet where they change."""
        if not small.endswith(".mp4"):
            return packet
        sent = bytes(other.codec_parameters.extradata)
        side = PacketSideData(NEW_EXTRADATA, len(sent))  # type: ignore[call-arg]
        side.update(sent)
        data = av.Packet(bytes(packet.data))
        data.set_sidedata(side)
        return packet._replace(data=data, parameters_changed=True)

    info, first = prepare(small)
    other, second = demux(large)
    decoder = opened(replace(info, max_pixels=max_pixels))
    _, errors = feed(decoder, first)
    log()
    setting("width", other.width)
    setting("height", other.height)
    later = [packet._replace(time_s=packet.time_s + 10.0, pts=packet.pts + 5000) for packet in second]
    later[0] = carrier(later[0])
    sizes: list[tuple[int, ...]] = []
    stamps: list[tuple[float, ...]] = []
    for packet in later:
        try:
            given = [(p.time_s, luma(p), p.width, p.height) for p in decoder.decode(packet)]
        except DecodeError as error:
            errors.append(str(error))
            continue
        sizes += [one[2:] for one in given]
        stamps += [one[:2] for one in given]
    calls = log()
    decoder.close()
    close_idle()
    del decoder
    return {
        "errors": errors,
        "sizes": sizes,
        "found": stamps,
        "expected": sorted(marks(other, later).items()),
        "log": calls,
        "live": live(),
    }


@scenario
def pooled(path: str, other: str) -> Any:
    info, packets = prepare(path)
    found = []
    for _ in range(3):
        decoder = opened(info)
        found.append(feed(decoder, packets)[0])
        decoder.close()
    created = sum(line.startswith("create decoder") for line in log())
    others, second = prepare(other)
    decoder = opened(others)
    different = feed(decoder, second)[0]
    decoder.close()
    calls, expected = log(), marks(info, packets)
    return {
        "right": [dict(one) == expected for one in found],
        "created": created,
        "different": dict(different) == marks(others, second),
        "created_for_the_other": sum(line.startswith("create decoder") for line in calls),
        "idle": live()["decoders"],
    }


@scenario
def into_a_slot(path: str, library: str) -> Any:
    """From a packet to the model's input: wheel, decoder, surface and kernel, all but the GPU."""
    info, packets = prepare(path)
    kernel, decoder, spec = CpuKernel(Path(library)), opened(info), InputSpec(24, 32)
    slots = []
    for packet in packets[:8]:
        for picture in decoder.decode(packet):
            slot = kernel.convert(picture.surface, spec, picture.rotation)
            slots.append([picture.time_s, float(np.min(slot)), float(np.max(slot))])
    deep = "10" in info.codec_parameters.pix_fmt
    return {"slots": sorted(slots), "expected": sorted(marks(info, packets[:8]).items()), "deep": deep}


@scenario
def host_copies(path: str) -> Any:
    """Copied at once, the pictures of a whole clip can be looked at later."""
    info, packets = prepare(path)
    decoder = HostCopies(opened(info), from_memory)
    kept = [picture for packet in packets for picture in decoder.decode(packet)] + list(decoder.flush())
    values = [
        (picture.time_s, int(np.frombuffer(bytes(picture.surface.planes[0]), np.uint8)[0]))
        for picture in kept
    ]
    return {"found": sorted(values), "expected": sorted(marks(info, packets).items())}


@scenario
def codec_of_the_same_stream_changes(first: str, second: str) -> Any:
    info, packets = prepare(first)
    other, others = demux(second)
    decoder = opened(info)
    feed(decoder, packets[:14])
    log()
    setting("width", other.width)
    setting("height", other.height)
    later = [packet._replace(pts=packet.pts + 900) for packet in others]
    found, errors = feed(decoder, later)
    return {"found": found, "expected": sorted(marks(other, later).items()), "errors": errors, "log": log()}


@scenario
def several_gpus(count: int, own: int) -> Any:
    """What the supervisor sees of a server, and what a worker with one of its GPUs sees."""
    ctypes.c_int.in_dll(CUDA, "fake_devices").value = count
    every = cuda_driver.gpus()
    cuda_driver.see_only(cuda_driver.chosen((own,), every)[0])
    return {"every": every, "own": cuda_driver.gpus()}
