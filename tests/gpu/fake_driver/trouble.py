"""Scenarios of damage, refusal, load and end."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import av
import psutil

from pipeline.backends.annexb import Framing
from pipeline.backends.nvdec_session import IDLE, close_idle, open_session
from pipeline.backends.registry import Device, open_decoder
from pipeline.errors import SourceUnsupported
from pipeline.flow.decode import Decoder
from pipeline.flow.source import Packet, StreamInfo
from pipeline.service.admission import Admission, Turns
from pipeline.service.marks import Marks, board
from tests.fixtures.media import demux
from tests.gpu.fake_driver.harness import (
    CARD,
    CUDA,
    feed,
    free_memory,
    live,
    log,
    luma,
    marks,
    opened,
    prepare,
    refusal,
    scenario,
    seen,
    setting,
)


@scenario
def parser_error(path: str, at: int) -> Any:
    info, packets = prepare(path, delay=2, error_at=at)
    decoder = opened(info)
    found, errors = feed(decoder, packets)
    return {
        "found": found,
        "errors": errors,
        "damaged": decoder.damaged,
        "expected": list(marks(info, packets).items()),
        "keyframes": [packet.time_s for packet in packets if packet.keyframe],
    }


@scenario
def marked_damaged(path: str) -> Any:
    info, packets = prepare(path, delay=2)
    fed = [packet._replace(damaged=number == 5) for number, packet in enumerate(packets)]
    decoder = opened(info)
    found, errors = feed(decoder, fed)
    still = refusal(lambda: decoder.still(packets[0]._replace(damaged=True)))
    return {
        "found": found,
        "errors": errors,
        "damaged": decoder.damaged,
        "still": still,
        "expected": list(marks(info, packets).items()),
        "keyframes": [packet.time_s for packet in packets if packet.keyframe],
    }


@scenario
def refusals(path: str, deep: str) -> Any:
    info, packets = prepare(path)
    context = info.codec_parameters

    def after(settings: dict[str, int], action: Callable[[], Any]) -> list[str]:
        for name, value in settings.items():
            setting(name, value)
        return refusal(action)

    found = {
        "codec": refusal(lambda: opened(replace(info, codec="prores"))),
        "small": refusal(lambda: opened(replace(info, width=32, height=16))),
        "large": refusal(lambda: opened(replace(info, width=8192, height=4320))),
        "form": refusal(lambda: opened(demux(deep)[0])),
    }
    decoder = opened(info)
    found["memory"] = after({"create_error": 2}, lambda: decoder.still(packets[0]))
    found["memory again"] = after({"create_error": 0}, lambda: decoder.still(packets[0]))
    other = opened(info)
    found["device lost"] = after({"create_error": 719}, lambda: other.still(packets[12]))
    setting("create_error", 0)
    hevc = StreamInfo("hevc", 640, 360, codec_parameters=context)
    context.extradata = None
    found["not on this GPU"] = after({"unsupported": 1}, lambda: opened(hevc))
    setting("unsupported", 0)
    return found


@scenario
def no_room(path: str, megabytes: int) -> Any:
    """Streams are added until one is refused; then one leaves, and then one of another kind comes."""
    info, packets = prepare(path)
    ctypes.c_long.in_dll(CUDA, "fake_memory_limit").value = megabytes * 10**6
    free, each = free_memory()[0], 0
    decoders, refused = [], ["nothing", ""]
    while refused == ["nothing", ""]:
        decoders.append(opened(info))
        refused = refusal(lambda: decoders[-1].still(packets[0]))
        each = each or free - free_memory()[0]
    late = decoders.pop()
    fitted, value = len(decoders), marks(info, packets[:1])[0.0]
    others = [seen(decoder.decode(packets[0])) for decoder in decoders]
    decoders.pop().close()  # what it leaves is of the same kind, and taken over
    once_more = refusal(lambda: late.still(packets[0]))
    decoders.pop().close()
    about = decoders[0]._sequence
    assert about is not None
    session = open_session(replace(about, header=b"another"), CARD)
    framing = Framing.of(info.codec, bytes(info.codec_parameters.extradata))
    of_another = refusal(lambda: session.feed(framing.annex_b(bytes(packets[0].data), True), 1))
    session.close()
    for decoder in (*decoders, late):
        decoder.close()
    close_idle()
    return {
        "each_mb": each / 1e6,
        "fitted": fitted,
        "refused": refused,
        "the others": others,
        "expected": [[[0.0, value]]] * fitted,
        "after one left": once_more,
        "after a file left": of_another,
        "open": CARD.memory.open,
    }


@scenario
def not_for_this_gpu(path: str, deep: str, auto: bool) -> Any:
    """4:4:4 from the start, and after a sequence that NVDEC does decode, as a stream's reader asks for it."""
    turns = Turns(1, Marks(board(1)))
    whys: list[str] = []

    def open_on(info: StreamInfo, device: Device) -> Decoder:
        return opened(info) if device == "gpu" else open_decoder(info, device="cpu")

    def admission() -> Admission:
        return Admission("gpu", turns, 1, instead=whys.append if auto else None, open_decoder=open_on)

    def shown(path: str, *packets: Packet) -> list[str]:
        forms = []
        with admission().decoder(prepare(path)[0]) as decoder:
            for packet in packets:
                picture = decoder.still(packet)
                assert picture is not None
                forms.append(type(picture.surface).__name__)
        return forms

    sound, other = demux(path)[1], demux(deep)[1]
    found: dict[str, Any] = {}
    for name, first, packets in [("at once", deep, other[:1]), ("later", path, [sound[0], other[0]])]:
        try:
            found[name] = shown(first, *packets)
        except SourceUnsupported as why:
            found[name] = [type(why).__name__, str(why)]
    return found | {"whys": whys}


@scenario
def broken_packets(path: str) -> Any:
    """Length fields that lie, and parameter sets that are cut short."""
    info, packets = prepare(path)
    decoder = opened(info)
    body = bytearray(bytes(packets[0].data))
    body[0:4] = b"\x7f\xff\xff\xff"
    lying = packets[0]._replace(data=av.Packet(bytes(body)))
    info.codec_parameters.extradata = bytes(info.codec_parameters.extradata)[:9]
    return {
        "lying": refusal(lambda: decoder.still(lying)),
        "sound": decoder.still(packets[0]) is not None,
        "cut": refusal(lambda: opened(info)),
    }


@scenario
def many_threads(path: str, decoders: int) -> Any:
    info, packets = prepare(path, delay=2, sleep_us=200)
    expected, wrong = marks(info, packets), []

    def work(number: int) -> None:
        own, packets = demux(path)
        decoder = opened(own)
        try:
            for _ in range(2):
                still = decoder.still(packets[0])
                if still is None or luma(still) != expected[0.0]:
                    wrong.append(number)
                if dict(feed(decoder, packets)[0]) != expected:
                    wrong.append(number)
        finally:
            decoder.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(decoders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    idle = live()["decoders"]
    close_idle()
    return {
        "wrong": wrong,
        "idle": idle,
        "limit": IDLE,
        "live": live(),
        "ended": not any(t.is_alive() for t in threads),
    }


@scenario
def long_run(path: str, packets: int) -> Any:
    info, found = prepare(path)
    ctypes.c_int.in_dll(CUDA, "fake_logging").value = 0
    decoder, process, fed = opened(info), psutil.Process(), 0

    def run(count: int) -> None:
        nonlocal fed
        for _ in range(-(-count // len(found))):
            for packet in found:
                list(decoder.decode(packet))
                fed += 1
            list(decoder.flush())
            decoder.still(found[0])

    run(packets // 5)
    before, resident = live(), process.memory_info().rss
    run(packets)
    after, grown = live(), process.memory_info().rss - resident
    decoder.close()
    close_idle()
    return {"fed": fed, "before": before, "after": after, "grown": grown, "decoder": None, "left": live()}


@scenario
def closing(path: str) -> Any:
    info, packets = prepare(path)
    decoder = opened(info)
    list(decoder.decode(packets[0]))
    log()
    decoder.close()
    close_idle()
    del decoder
    gc.collect()
    return {"log": log(), "live": live()}


@scenario
def other_threads_go_on(path: str) -> Any:
    """A parse of 0.3 s; meanwhile another thread counts."""
    info, packets = prepare(path)
    decoder = opened(info)
    list(decoder.decode(packets[0]))
    setting("sleep_us", 300_000)
    counted, done = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    began = time.monotonic()
    thread.start()
    list(decoder.decode(packets[1]))
    took = time.monotonic() - began
    done.set()
    thread.join()
    return {"counted": counted, "took": took}
