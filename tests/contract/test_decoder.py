"""What every decoder promises, on clips that real encoders made."""

import gc
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.bitstream import BitStreamFilterContext
from av.filter import Graph
from av.packet import PacketSideData

from pipeline.backends.decode_software import decoder_available, sniff
from pipeline.backends.registry import Device, open_decoder
from pipeline.backends.software_contexts import TURNS
from pipeline.errors import DecodeError, SourceUnsupported
from pipeline.flow.decode import Decoder, Picture
from pipeline.flow.pick import pictures
from pipeline.flow.sample import Sampler, SamplingRules
from pipeline.flow.source import Packet, StreamInfo
from tests.fixtures.media import Clips, demux
from tests.gpu.surfaces import HostCopies

Open = Callable[[StreamInfo], Decoder]

KINDS: dict[str, dict[str, object]] = {
    "h264-b-frames": {"options": {"bf": "3"}},
    "h264-open-gop": {"options": {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "h264-ts": {"suffix": ".ts", "options": {"bf": "2"}},
    "h264-10-bit": {"pixel_format": "yuv420p10le"},
    "h264-4:4:4": {"pixel_format": "yuv444p"},
    "h264-interlaced": {"options": {"x264-params": "interlaced=1:tff=1"}},
    "hevc": {"codec": "libx265"},
    "hevc-10-bit": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "hevc-open-gop": {
        "codec": "libx265",
        "options": {
            "preset": "medium",
            "x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:scenecut=0",
        },
    },
    "vp9": {"codec": "libvpx-vp9", "suffix": ".webm"},
    "mpeg2-ts": {"codec": "mpeg2video", "suffix": ".ts", "options": {"bf": "2"}},
    "mpeg2-interlaced": {"codec": "mpeg2video", "suffix": ".ts", "options": {"flags": "+ilme+ildct"}},
    "mpeg4-avi": {"codec": "mpeg4", "suffix": ".avi", "options": {"bf": "2"}},
    "mjpeg": {"codec": "mjpeg", "suffix": ".avi", "pixel_format": "yuvj420p"},
    "odd-size": {"codec": "libx264", "width": 129, "height": 97, "pixel_format": "yuv444p"},
    "odd-size-4:2:0": {"codec": "libvpx-vp9", "suffix": ".webm", "width": 129, "height": 97},
}
NOT_ON_NVDEC = (
    "h264-10-bit",
    "h264-4:4:4",
    "mpeg2-ts",
    "mpeg2-interlaced",
    "mpeg4-avi",
    "mjpeg",
    "odd-size",
)
"""Kinds that NVDEC refuses: never in CODECS or FORMS, but for H.264 of 10 bits, which newer GPUs than Hopper
decode."""
INTERLACED = ("h264-interlaced", "mpeg2-interlaced")
DEINTERLACED = 6.0
"""Mean difference, of 255, between a picture that PyNvVideoCodec has deinterlaced and the woven one. FFmpeg's
deinterlacers come to 2 on these clips; a picture of half a second later to 22 and more."""
LARGER = 192
"""Clips for a GPU have so many more pixels a side: NVDEC's smallest HEVC is 144 x 144."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of ``opened`` runs on both devices; those of ``kind`` on what the device takes."""
    needs_gpu = pytest.mark.needs_gpu
    if "kind_name" in metafunc.fixturenames:
        on_cpu = [pytest.param("cpu", name, id=f"cpu-{name}") for name in KINDS]
        on_gpu = [
            pytest.param("gpu", name, id=f"gpu-{name}", marks=needs_gpu)
            for name in KINDS
            if name not in NOT_ON_NVDEC
        ]
        metafunc.parametrize(("device", "kind_name"), on_cpu + on_gpu)
    elif "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", pytest.param("gpu", marks=needs_gpu)])


@pytest.fixture
def opened(device: Device) -> Open:
    """Opens decoders of a device, through the registry as production does; their pictures are in main
    memory."""
    if device == "cpu":
        return open_decoder
    return lambda info: HostCopies(open_decoder(info, device="gpu"))


@pytest.fixture
def kind(device: Device, kind_name: str, clips: Clips) -> tuple[StreamInfo, list[Packet], Path]:
    path = clip_of(kind_name, device, clips)
    return *demux(path), path


def clip_of(name: str, device: Device, clips: Clips) -> Path:
    """The clip of a kind, large enough for the device."""
    about = KINDS[name]
    if device == "gpu":
        sizes = {"width": about.get("width", 128), "height": about.get("height", 96)}
        about = about | {side: int(str(size)) + LARGER for side, size in sizes.items()}
    return clips(**about)


def alike(found: np.ndarray, expected: np.ndarray, device: Device, kind_name: str = "") -> bool:
    """The same to the last bit, but interlaced ones on NVDEC by their mean: PyNvVideoCodec has them
    deinterlaced."""
    if device == "cpu" or kind_name not in INTERLACED or found.shape != expected.shape:
        return np.array_equal(found, expected)
    return bool(np.abs(found.astype(np.int32) - expected).mean() <= DEINTERLACED)


def pixels(picture: Picture) -> np.ndarray:
    """The values of all planes, one after another, as they were decoded."""
    frame = picture.surface
    kind = np.dtype(np.uint16 if frame.format.components[0].bits > 8 else np.uint8)
    planes = [
        np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)[:, : plane.width]
        for plane in frame.planes
    ]
    return np.concatenate([plane.ravel() for plane in planes])


@cache
def truth(path: Path) -> list[np.ndarray]:
    """The same file through FFmpeg's own way of demuxing and decoding; only to be read."""
    with av.open(str(path)) as container:
        return [pixels(Picture(0, 0, 0, 0, 0, frame)) for frame in container.decode(video=0)]


def feed_all(decoder: Decoder, packets: Iterable[Packet]) -> list[Picture]:
    """Every sound picture; damage is passed over."""
    found: list[Picture] = []
    for packet in packets:
        with suppress(DecodeError):
            found.extend(decoder.decode(packet))
    with suppress(DecodeError):
        found.extend(decoder.flush())
    return found


def spoilt(packet: Packet, how: str) -> Packet:
    """The packet cut to a half, or with a stretch of zeroes in its middle as a lost TS packet leaves it."""
    body = bytearray(bytes(packet.data))
    if how == "cut":
        body = body[: len(body) // 2]
    else:
        body[len(body) // 3 : len(body) // 3 + 188] = bytes(188)
    data = av.Packet(bytes(body))
    data.pts, data.dts, data.time_base = packet.data.pts, packet.data.dts, packet.data.time_base
    data.is_keyframe = packet.keyframe
    return packet._replace(data=data)


def test_pictures_come_out_in_presentation_order_each_once_with_its_packets_time(
    opened: Open, device: Device, kind_name: str, kind: tuple[StreamInfo, list[Packet], Path]
) -> None:
    info, packets, path = kind
    found = feed_all(opened(info), packets)
    assert [picture.time_s for picture in found] == sorted(packet.time_s for packet in packets)
    arrived = {packet.time_s: packet.arrived for packet in packets}
    assert all(picture.arrived == arrived[picture.time_s] for picture in found)
    assert {(picture.width, picture.height) for picture in found} == {(info.width, info.height)}
    for picture, expected in zip(found, truth(path), strict=True):
        assert alike(pixels(picture), expected, device, kind_name)


def test_a_still_is_the_picture_that_decoding_everything_gives(
    opened: Open, device: Device, kind_name: str, kind: tuple[StreamInfo, list[Packet], Path]
) -> None:
    info, packets, path = kind
    decoder, expected = opened(info), truth(path)
    order = sorted(packet.time_s for packet in packets)
    keyframes = [packet for packet in packets if packet.keyframe][:6]
    assert len(keyframes) >= 4
    for packet in keyframes:
        picture = decoder.still(packet)
        assert picture is not None
        assert picture.time_s == packet.time_s
        assert alike(pixels(picture), expected[order.index(packet.time_s)], device, kind_name)
    assert decoder.damaged == 0


def test_decoding_from_any_keyframe_gives_nothing_shown_before_it(
    opened: Open, device: Device, kind_name: str, kind: tuple[StreamInfo, list[Packet], Path]
) -> None:
    """Leading pictures of an open GOP refer to what was not fed."""
    info, packets, path = kind
    start = [number for number, packet in enumerate(packets) if packet.keyframe][1]
    found = feed_all(opened(info), packets[start:])
    assert found[0].time_s == packets[start].time_s
    expected = truth(path)
    assert alike(pixels(found[0]), expected[len(expected) - len(found)], device, kind_name)


def test_a_still_between_fed_packets_does_not_disturb_them(opened: Open, clips: Clips) -> None:
    info, packets = demux(clips(options={"bf": "3"}))
    decoder = opened(info)
    found: list[Picture] = []
    for packet in packets:
        found.extend(decoder.decode(packet))
        if packet.keyframe:
            assert decoder.still(packet) is not None
    found.extend(decoder.flush())
    assert [picture.time_s for picture in found] == sorted(packet.time_s for packet in packets)


def test_a_flush_gives_all_that_is_buffered_and_a_reset_forgets_it(opened: Open, clips: Clips) -> None:
    """Fed the first 7 of 48 in decode order, then on from there; the next keyframe is at 0.5 s."""
    info, packets = demux(clips(options={"bf": "3"}))
    flushed, reset = opened(info), opened(info)
    early = [picture for packet in packets[:7] for picture in flushed.decode(packet)]
    assert len(early) + len(list(flushed.flush())) == 7
    assert len(early) < 7
    for packet in packets[:7]:
        list(reset.decode(packet))
    reset.reset()
    assert list(reset.flush()) == []
    for decoder in (flushed, reset):
        again = [picture.time_s for packet in packets[7:] for picture in decoder.decode(packet)]
        assert again[0] == pytest.approx(0.5)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Python changes threads after each of its steps."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("hasty")
def test_two_threads_may_decode_the_same_packets_at_the_same_time(opened: Open, clips: Clips) -> None:
    """A stream that goes on while it is looked at closely."""
    info, packets = demux(clips())
    decoders, together = [opened(info), opened(info)], threading.Barrier(2)

    def times(decoder: Decoder) -> list[float]:
        found: list[Picture] = []
        for packet in packets * 10:
            together.wait(20)
            found.extend(decoder.decode(packet))
        return [picture.time_s for picture in found]

    alone = [picture.time_s for picture in feed_all(opened(info), packets * 10)]
    with ThreadPoolExecutor(2) as threads:
        for found in threads.map(times, decoders):
            assert found == alone[: len(found)]
            assert len(found) > 9 * len(packets)


@pytest.mark.parametrize("how", ["cut", "zeroed"])
@pytest.mark.parametrize("name", ["h264-b-frames", "h264-ts", "mpeg2-ts", "mpeg4-avi", "mjpeg"])
def test_a_damaged_packet_is_an_error_and_the_next_keyframe_decodes(
    clips: Clips, name: str, how: str
) -> None:
    """In software: NVDEC conceals, and PyNvVideoCodec does not say so."""
    info, packets = demux(clips(**KINDS[name]))
    keyframes = [number for number, packet in enumerate(packets) if packet.keyframe]
    decoder = open_decoder(info)
    wrong = spoilt(packets[keyframes[1]], how)
    with pytest.raises(DecodeError, match="damaged"):
        decoder.still(wrong)
    assert decoder.damaged == 1
    fed = [wrong if number == keyframes[1] else packet for number, packet in enumerate(packets)]
    found = feed_all(decoder, fed)
    times = [picture.time_s for picture in found]
    assert decoder.damaged >= 2
    assert wrong.time_s not in times
    assert times == sorted(set(times))
    from_next = {packet.time_s for packet in packets if packet.time_s >= packets[keyframes[2]].time_s}
    assert from_next <= set(times)


@pytest.mark.parametrize("name", ["h264-b-frames", "mpeg4-avi"])
def test_what_depends_on_a_damaged_packet_is_not_given(clips: Clips, name: str) -> None:
    """Each reference picture of the second GOP in turn. Where damage is noticed, what comes out is right
    to the last pixel, but for B pictures shown before one that was concealed; the third GOP is whole."""
    path = clips(**KINDS[name])
    info, packets = demux(path)
    expected = dict(zip(sorted(packet.time_s for packet in packets), truth(path), strict=True))
    _, second, third = [n for n, p in enumerate(packets) if p.keyframe][:3]
    victims = [n for n in range(second + 1, third) if not packets[n].disposable]
    noticed = 0
    for victim, how in [(victim, how) for victim in victims for how in ("cut", "zeroed")]:
        decoder = open_decoder(info)
        found = feed_all(decoder, [spoilt(p, how) if n == victim else p for n, p in enumerate(packets)])
        if decoder.damaged == 0:
            continue
        noticed += 1
        assert len(packets) / 2 < len(found) < len(packets)
        wrong = [p.time_s for p in found if not np.array_equal(pixels(p), expected[p.time_s])]
        assert len(wrong) <= 3
        assert all(time_s < packets[victim].time_s for time_s in wrong)
        assert {p.time_s for p in packets if p.time_s >= packets[third].time_s} <= {p.time_s for p in found}
    assert noticed > len(victims)


@pytest.mark.parametrize("how", ["cut", "zeroed"])
@pytest.mark.parametrize("name", ["h264-b-frames", "h264-ts", "hevc", "mpeg2-ts"])
def test_after_damage_the_next_keyframe_and_all_behind_it_are_whole(
    opened: Open, device: Device, clips: Clips, name: str, how: str
) -> None:
    """Whether the damage is noticed or concealed, and whatever came of the GOP that it is in."""
    path = clip_of(name, device, clips)
    info, packets = demux(path)
    if device == "gpu" and name in NOT_ON_NVDEC:
        with pytest.raises(SourceUnsupported, match="use device: auto or cpu"):
            opened(info)
        return
    expected = dict(zip(sorted(packet.time_s for packet in packets), truth(path), strict=True))
    _, second, third = [n for n, packet in enumerate(packets) if packet.keyframe][:3]
    for victim in (second, second + 1):
        fed = [spoilt(packet, how) if n == victim else packet for n, packet in enumerate(packets)]
        found = feed_all(opened(info), fed)
        times = [picture.time_s for picture in found]
        assert times == sorted(set(times))
        whole = [picture for picture in found if picture.time_s >= packets[third].time_s]
        assert [picture.time_s for picture in whole] == [t for t in expected if t >= packets[third].time_s]
        assert all(alike(pixels(picture), expected[picture.time_s], device) for picture in whole)


def test_a_packet_that_the_source_marks_damaged_is_refused(opened: Open, clips: Clips) -> None:
    info, packets = demux(clips())
    decoder = opened(info)
    with pytest.raises(DecodeError, match="source lost a part"):
        decoder.still(packets[0]._replace(damaged=True))
    assert feed_all(decoder, [packets[0], packets[1]._replace(damaged=True), packets[2]])[-1].time_s == 0.0


def test_noise_never_raises_anything_but_a_decode_error(opened: Open, device: Device, clips: Clips) -> None:
    chance = random.Random(5)
    for name in ("h264-ts", "hevc", "vp9", "mpeg2-ts", "mjpeg"):
        if device == "gpu" and name in NOT_ON_NVDEC:
            continue
        info, packets = demux(clip_of(name, device, clips))
        decoder = opened(info)
        for packet in packets:
            body = bytearray(bytes(packet.data))
            for _ in range(6):
                body[chance.randrange(len(body))] ^= chance.randrange(1, 256)
            noisy = packet._replace(data=av.Packet(bytes(body)))
            with suppress(DecodeError):
                list(decoder.decode(noisy))
            with suppress(DecodeError):
                decoder.still(noisy)
        sound = next(packet for packet in packets if packet.keyframe)
        assert decoder.still(sound) is not None


def test_a_stream_that_outgrows_the_limit_on_pictures_gives_none_of_those(
    opened: Open, device: Device, clips: Clips, tmp_path: Path
) -> None:
    small, large = (clip_of("h264-ts", device, clips), clips(suffix=".ts", width=640, height=480))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    info, packets = demux(joined)
    limited = opened(replace(info, max_pixels=info.width * info.height + 100))
    found = feed_all(limited, _timed(packets))
    assert {(picture.width, picture.height) for picture in found} == {(info.width, info.height)}
    assert limited.damaged >= 4, "each of the larger keyframes"


def test_the_size_may_change_in_mid_stream(opened: Open, clips: Clips, tmp_path: Path) -> None:
    small, large = clips(suffix=".ts"), clips(suffix=".ts", width=192, height=160)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    info, packets = demux(joined)
    sizes = [(picture.width, picture.height) for picture in feed_all(opened(info), _timed(packets))]
    assert sizes[0] == (128, 96)
    assert sizes[-1] == (192, 160)
    assert len(sizes) > 80
    decoder = opened(info)
    stills = [decoder.still(packet) for packet in packets if packet.keyframe and not packet.damaged]
    assert {(still.width, still.height) for still in stills if still} == {(128, 96), (192, 160)}


@pytest.mark.parametrize("codec", ["libx265", "mpeg2video"])
def test_the_codec_may_change_in_mid_stream_and_back(
    opened: Open, device: Device, clips: Clips, tmp_path: Path, codec: str
) -> None:
    """Under one PID of an MPEG-TS; FFmpeg's demuxer goes on under the old name."""
    first, other = clips(suffix=".ts"), clips(codec=codec, suffix=".ts", width=192, height=160)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + other.read_bytes() + first.read_bytes())
    info, packets = demux(joined)
    decoder = opened(info)
    if device == "gpu" and codec == "mpeg2video":
        with pytest.raises(SourceUnsupported, match="use device: auto or cpu"):
            feed_all(decoder, _timed(packets))
        return
    found = feed_all(decoder, _timed(packets))
    sizes = [(picture.width, picture.height) for picture in found]
    assert sizes.count((128, 96)) >= 70
    assert sizes.count((192, 160)) >= 24
    assert set(sizes) == {(128, 96), (192, 160)}
    assert sizes[-1] == (128, 96)


def test_new_parameters_that_come_with_a_packet_are_used(opened: Open, clips: Clips) -> None:
    """An MP4 whose packets rely on parameter sets outside of them, followed by another one's packets."""
    info, packets = demux(clips())
    other_info, others = demux(clips(width=192, height=160))
    assert info.codec_parameters.extradata != other_info.codec_parameters.extradata
    carrier = _with_new_extradata(others[0].data, other_info.codec_parameters.extradata)
    changed = [others[0]._replace(data=carrier, parameters_changed=True), *others[1:]]
    found = feed_all(opened(info), _timed([*packets, *changed]))
    assert [(p.width, p.height) for p in found] == [(128, 96)] * 48 + [(192, 160)] * 48
    decoder = opened(info)
    still = decoder.still(changed[0])
    assert still is not None
    assert still.width == 192


def test_the_rotation_is_the_containers_or_what_the_stream_itself_says(opened: Open, clips: Clips) -> None:
    info, packets = demux(clips(), rotation=270)
    still = opened(info).still(packets[0])
    assert still is not None
    assert still.rotation == 270
    info, packets = demux(clips(suffix=".ts"))
    with av.open(str(clips(suffix=".ts"))) as container:
        counter_clockwise = "h264_metadata=display_orientation=insert:rotate=90"
        turn = BitStreamFilterContext(counter_clockwise, container.streams.video[0])
        data = [out for each in container.demux(video=0) if each.size for out in turn.filter(each)]
    turned = opened(info).still(packets[0]._replace(data=data[0]))
    assert turned is not None
    assert turned.rotation == 270


def test_interlaced_pictures_come_out_whole(opened: Open, clips: Clips) -> None:
    """Both fields in one picture; how they are put together, the device decides."""
    info, packets = demux(clips(**KINDS["h264-interlaced"]))
    still = opened(info).still(packets[0])
    assert still is not None
    assert (still.width, still.height) == (128, 96)


@pytest.mark.parametrize("name", INTERLACED)
def test_the_bar_for_interlaced_pictures_lets_a_deinterlacer_pass_and_no_other_picture(
    clips: Clips, name: str
) -> None:
    """FFmpeg's stands in for the GPU's own."""
    path = clip_of(name, "gpu", clips)
    expected = truth(path)
    for filter_name in ("yadif", "bwdif"):
        found = deinterlaced(path, filter_name)
        for picture, woven in zip(found, expected, strict=True):
            assert alike(picture, woven, "gpu", name)
            assert not alike(picture, woven, "gpu")
        for picture, later in zip(found, expected[12:], strict=False):
            assert not alike(picture, later, "gpu", name)


def deinterlaced(path: Path, name: str) -> list[np.ndarray]:
    """A file's pictures through one of FFmpeg's deinterlacers."""
    found: list[np.ndarray] = []
    with av.open(str(path)) as container:
        graph = Graph()
        steps = [
            graph.add_buffer(template=container.streams.video[0]),
            graph.add(name, "mode=send_frame"),
            graph.add("buffersink"),
        ]
        for step, following in pairwise(steps):
            step.link_to(following)
        graph.configure()
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            with suppress(av.BlockingIOError, av.EOFError):
                while True:
                    found.append(pixels(Picture(0, 0, 0, 0, 0, graph.vpull())))
    return found


def test_a_keyframe_that_needs_others_gives_no_still_and_is_screened_in_full(
    opened: Open, clips: Clips
) -> None:
    """Intra refresh: no picture is intra-coded as a whole, a sweep of half a second renews it."""
    options = {"bf": "0", "x264-params": "intra-refresh=1:scenecut=0:bframes=0"}
    info, packets = demux(clips(options=options, pictures=240))
    keyframes = [packet for packet in packets if packet.keyframe]
    decoder = opened(info)
    assert decoder.still(keyframes[1]) is None
    assert decoder.damaged == 0
    sampler = Sampler(SamplingRules(max_gap_s=2.0, audit=0), kind="live", rng=random.Random(1))
    times = [picture.time_s for packet in packets for picture in pictures(packet, sampler, decoder)]
    assert sampler.plan == "skip"
    assert max(b - a for a, b in pairwise(times)) <= 2.1


@pytest.mark.parametrize("plan", ["auto", "keyframes", "full"])
def test_every_kind_is_screened_within_the_gap_from_first_to_last(
    opened: Open, device: Device, kind_name: str, kind: tuple[StreamInfo, list[Packet], Path], plan: str
) -> None:
    info, packets, path = kind
    rules = SamplingRules(max_gap_s=0.6, plan=plan, audit=0.3)  # type: ignore[arg-type]
    sampler, decoder = Sampler(rules, kind="file", rng=random.Random(2)), opened(info)
    expected = dict(zip(sorted(packet.time_s for packet in packets), truth(path), strict=True))
    times: list[float] = []
    for number, packet in enumerate(packets):
        for picture in pictures(packet, sampler, decoder, last=number == len(packets) - 1):
            times.append(picture.time_s)
            assert alike(pixels(picture), expected[picture.time_s], device, kind_name)
    assert times[0] == 0.0
    assert times[-1] == max(expected)
    assert times == sorted(set(times))
    assert max(b - a for a, b in pairwise(times)) <= 0.63


def test_many_threads_share_the_decoding_of_keyframes(opened: Open, device: Device, clips: Clips) -> None:
    info, packets = demux(clips(width=320, height=240))
    expected = pixels(opened(info).still(packets[0]) or pytest.fail("no picture"))
    wrong: list[int] = []

    def work(number: int) -> None:
        own_info, own = demux(clips(width=320, height=240))
        decoder = opened(own_info)
        for _ in range(10):
            picture = decoder.still(own[0])
            if picture is None or not alike(pixels(picture), expected, device):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3 * TURNS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert wrong == []


def test_forty_decoders_fed_with_stills_hold_no_codec_contexts(clips: Clips) -> None:
    """A 720p context with its pictures takes 6 MB or more; forty held ones would take 240 MB."""
    info, packets = demux(clips(width=1280, height=720, pictures=2, gop=1))
    decoders = [open_decoder(info) for _ in range(40)]
    decoders[0].still(packets[0])
    gc.collect()
    before = psutil.Process().memory_info().rss
    for decoder in decoders:
        decoder.still(packets[0])
    assert psutil.Process().memory_info().rss - before < 40e6


def test_a_codec_without_a_decoder_is_refused_by_name(opened: Open) -> None:
    assert not decoder_available("prores-xyz")
    with pytest.raises(SourceUnsupported, match="prores-xyz"):
        opened(StreamInfo("prores-xyz", 640, 360))


@pytest.mark.needs_gpu
@pytest.mark.parametrize("name", NOT_ON_NVDEC)
def test_what_nvdec_does_not_take_is_refused_with_the_cure(clips: Clips, name: str) -> None:
    info, _ = demux(clip_of(name, "gpu", clips))
    with pytest.raises(SourceUnsupported, match="use device: auto or cpu for it"):
        open_decoder(info, device="gpu")


def test_the_usual_codecs_have_a_software_decoder() -> None:
    for codec in ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "mjpeg", "theora"):
        assert decoder_available(codec), codec
    assert not decoder_available("aac")


@pytest.mark.parametrize(
    ("start", "codec"),
    [
        (b"\0\0\0\1\x09\xf0\0\0\0\1\x67", "h264"),
        (b"\0\0\1\x67\x64\0", "h264"),
        (b"\0\0\0\1\x46\1\x50", "hevc"),
        (b"\0\0\0\1\x40\1\x0c", "hevc"),
        (b"\0\0\1\xb3\x14\0", "mpeg2video"),
        (b"\0\0\1\x41\x9a", None),
        (b"\0\0\x22\x67\x64", None),
        (b"\0\0\0", None),
        (b"", None),
    ],
)
def test_the_codec_of_an_elementary_stream_shows_in_its_first_bytes(start: bytes, codec: str | None) -> None:
    assert sniff(memoryview(start)) == codec


def _timed(packets: list[Packet]) -> list[Packet]:
    """The packets on one timeline, as ``StreamClock`` would put them: one after the other in each piece."""
    found: list[Packet] = []
    shift = end = 0.0
    for number, packet in enumerate(packets):
        if packet.time_s + shift < end - 0.5:
            shift = end + 1 / 24 - packet.time_s
        end = max(end, packet.time_s + shift)
        found.append(packet._replace(time_s=packet.time_s + shift, pts=5000 + number))
    return found


def _with_new_extradata(data: Any, extradata: bytes) -> Any:
    """A copy of the packet that brings ``extradata`` along, as an MP4 with two sample descriptions does."""
    copy = av.Packet(bytes(data))
    copy.pts, copy.dts, copy.time_base, copy.is_keyframe = data.pts, data.dts, data.time_base, True
    new_extradata = 1  # AV_PKT_DATA_NEW_EXTRADATA
    side = PacketSideData(new_extradata, len(extradata))  # type: ignore[call-arg]
    side.update(extradata)
    copy.set_sidedata(side)
    return copy
