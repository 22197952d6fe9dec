"""Contexts that decode keyframes of many streams, one after the other, as if each had one of its own."""

from contextlib import suppress
from dataclasses import replace

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.backends import annexb, h264_state, software_contexts
from pipeline.backends.software_contexts import Contexts, Parameters
from pipeline.errors import DecodeError
from pipeline.flow.source import Packet
from tests.fixtures.media import Clips, demux
from tests.fixtures.slices import packed


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Parameters]:
    """What contexts are opened with."""
    seen, really = list[Parameters](), Parameters.open

    def heard(parameters: Parameters, *, alone: bool = False) -> av.VideoCodecContext:
        seen.append(parameters)
        return really(parameters, alone=alone)

    monkeypatch.setattr(Parameters, "open", heard)
    return seen


def keyframes(clips: Clips, **how: object) -> tuple[Parameters, list[Packet]]:
    info, packets = demux(clips(gop=2, pictures=8, **how))
    return Parameters.of(info), [packet for packet in packets if packet.keyframe]


def luma(contexts: Contexts, parameters: Parameters, packet: Packet) -> NDArray[np.uint8]:
    return np.array(contexts.alone(parameters, packet)[0].to_ndarray(format="gray"), np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_streams_in_turn_have_the_pictures_that_each_has_alone(
    clips: Clips, opened: list[Parameters], suffix: str
) -> None:
    streams = [keyframes(clips, width=width, height=96, suffix=suffix) for width in (128, 160)]
    alone = [[luma(Contexts(1), like, packet) for packet in packets] for like, packets in streams]
    opened.clear()
    contexts = Contexts(2)
    for number in range(len(alone[0])):
        for (like, packets), right in zip(streams, alone, strict=True):
            assert np.array_equal(luma(contexts, like, packets[number]), right[number])
    assert len(opened) > 2, "one at work at a time: of two streams in turn none finds its own"


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_a_keyframe_like_the_last_one_opens_no_context(
    clips: Clips, opened: list[Parameters], suffix: str
) -> None:
    """But for the first one: x264 writes its version into that alone, and libavcodec remembers it."""
    parameters, packets = keyframes(clips, suffix=suffix)
    right = [luma(Contexts(1), parameters, packet) for packet in packets]
    assert len(packets) > 2
    assert not np.array_equal(right[1], right[2])
    opened.clear()
    contexts = Contexts(1)
    for packet, picture in zip(packets + packets[:0:-1], right + right[:0:-1], strict=True):
        assert np.array_equal(luma(contexts, parameters, packet), picture)
    assert len(opened) == 2


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_a_keyframe_is_decoded_however_its_units_are_framed(
    clips: Clips, opened: list[Parameters], length: int
) -> None:
    parameters, packets = keyframes(clips, options={"crf": "48"})
    right = [luma(Contexts(1), parameters, packet) for packet in packets[1:3]]
    extradata, sets = bytearray(parameters.extradata), b""
    if length:
        extradata[4] = 0xFC | (length - 1)
    else:
        extradata, sets = bytearray(), annexb.Framing.of("h264", parameters.extradata).sets
    framed, contexts = replace(parameters, extradata=bytes(extradata)), Contexts(1)
    opened.clear()
    for packet, picture in zip(packets[1:3], right, strict=True):
        units = [bytes(unit) for unit in annexb.by_length(memoryview(bytes(packet.data)), 4)]
        again = packet._replace(data=av.Packet(sets + packed(units, length)))
        assert np.array_equal(luma(contexts, framed, again), picture)
    assert len(opened) == 1


@pytest.mark.parametrize("order", [(0, 1, 2, 2), (0, 1, 2, 1), (0, 0, 1, 2, 3), (1, 2, 3), (3, 2, 1, 0)])
def test_slices_that_do_not_follow_each_other_have_a_context_of_their_own(
    clips: Clips, opened: list[Parameters], order: tuple[int, ...]
) -> None:
    parameters, packets = keyframes(clips, options={"x264-params": "slices=4"})
    slices = _slices(packets[2])
    packet = packets[2]._replace(data=av.Packet(b"".join(slices[number] for number in order)))
    contexts = Contexts(1)
    for good in (packets[1], packets[3]):
        contexts.alone(parameters, good)
    opened.clear()
    with suppress(DecodeError):
        contexts.alone(parameters, packet)
    assert len(opened) == 1


def test_a_keyframe_of_two_pictures_leaves_none_for_the_next(clips: Clips) -> None:
    parameters, packets = keyframes(clips)
    right = luma(Contexts(1), parameters, packets[3])
    contexts = Contexts(1)
    contexts.alone(parameters, packets[1])
    twice = packets[2]._replace(data=av.Packet(2 * bytes(packets[2].data)))
    assert len(contexts.alone(parameters, twice)) == 2
    assert np.array_equal(luma(contexts, parameters, packets[3]), right)


def test_a_context_is_opened_anew_after_so_many_uses(
    clips: Clips, opened: list[Parameters], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software_contexts, "USES", 3)
    parameters, packets = keyframes(clips)
    contexts = Contexts(1)
    for _ in range(7):
        contexts.alone(parameters, packets[1])
    assert len(opened) == 3


@pytest.mark.parametrize(
    "options", [{"x264-params": "interlaced=1:tff=1"}, {"x264-params": "open-gop=1:scenecut=0", "bf": "2"}]
)
def test_fields_and_keyframes_that_others_reach_across_have_a_context_each(
    clips: Clips, opened: list[Parameters], options: dict[str, str]
) -> None:
    parameters, packets = keyframes(clips, options=options)
    contexts = Contexts(1)
    for packet in packets[1:]:
        contexts.alone(parameters, packet)
    assert len(opened) == len(packets) - 1 > 1


def test_parameter_sets_of_one_stream_do_not_serve_another(clips: Clips) -> None:
    parameters, packets = keyframes(clips, suffix=".ts")
    contexts = Contexts(1)
    contexts.alone(parameters, packets[1])
    data = bytes(packets[2].data)
    slices = data[data.index(b"\0\0\1\x65") :]
    bare = packets[2]._replace(data=av.Packet(slices))
    without = Parameters("h264")
    with pytest.raises(DecodeError):
        Contexts(1).alone(without, bare)
    contexts.alone(without, packets[1])
    with pytest.raises(DecodeError):
        contexts.alone(without, bare)


def test_a_context_that_met_damage_is_not_used_again(clips: Clips, opened: list[Parameters]) -> None:
    parameters, packets = keyframes(clips)
    contexts = Contexts(1)
    contexts.alone(parameters, packets[1])
    data = bytearray(bytes(packets[2].data))
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    try:
        broken = contexts.alone(parameters, packets[2]._replace(data=av.Packet(bytes(data))))
        assert broken[0].is_corrupt
    except DecodeError:
        pass
    opened.clear()
    contexts.alone(parameters, packets[3])
    assert len(opened) == 1


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_keyframe_without_a_slice_is_as_damaged_after_another_s_as_alone(
    clips: Clips, opened: list[Parameters], missing: int
) -> None:
    parameters, packets = keyframes(clips, options={"x264-params": "slices=4"})
    slices = _slices(packets[2])
    cut = packets[2]._replace(data=av.Packet(b"".join(one for one in slices if one is not slices[missing])))
    contexts = Contexts(1)
    contexts.alone(parameters, packets[1])
    opened.clear()
    after = _judged(contexts, parameters, cut)
    assert not opened, "the context that the other had"
    assert after == _judged(Contexts(1), parameters, cut)
    assert after in ([True], []), "marked, or none"


def _slices(packet: Packet) -> list[bytes]:
    units = annexb.by_length(memoryview(bytes(packet.data)), 4)
    slices = [packed([bytes(unit)], 4) for unit in units if unit[0] & 31 == 5]
    assert len(slices) == 4
    return slices


def _judged(contexts: Contexts, parameters: Parameters, packet: Packet) -> list[bool]:
    """Whether each picture is corrupt; none: it cannot be decoded."""
    try:
        return [frame.is_corrupt for frame in contexts.alone(parameters, packet)]
    except DecodeError:
        return []


def test_other_codecs_have_a_context_for_each_keyframe(clips: Clips, opened: list[Parameters]) -> None:
    parameters, packets = keyframes(clips, codec="libx265")
    contexts = Contexts(1)
    for packet in packets[:3]:
        contexts.alone(parameters, packet)
    assert len(opened) == 3


SPS, PPS, IDR, P = b"\x67sps", b"\x68pps", b"\x65\x80slice", b"\x41\x80slice"
NEXT = b"\x65\x5fslice"  # begins with macroblock 1


def message(kind: int, body: bytes = b"0123456789abcdef") -> bytes:
    return bytes([6, kind, len(body)]) + body + b"\x80"


@pytest.mark.parametrize("length", [0, 2, 4])
def test_what_a_decoder_remembers_of_a_packet(length: int) -> None:
    def left(*units: bytes) -> bytes | None:
        return h264_state.remembered(memoryview(packed(units, length)), length)

    delimiter, filler = b"\x09\xf0", b"\x0c\xff\x80"
    assert left(IDR) == left(delimiter, message(1), message(5), IDR, filler, NEXT) == b""
    assert left(SPS, PPS, IDR) == left(delimiter, SPS, PPS, message(6), IDR)
    assert len({left(SPS, IDR), left(PPS, IDR), left(SPS, PPS, IDR), left(SPS, PPS, PPS, IDR)}) == 4
    assert left() is left(SPS) is None, "no picture"
    assert left(P) is left(IDR, P) is None, "no IDR: what is known of recovery points decides"
    assert left(IDR, IDR) is left(IDR, NEXT, NEXT) is left(NEXT) is left(NEXT, IDR) is None, "slices in a row"
    assert left(IDR, b"\x65\0\1") is left(b"\x65") is None, "no first macroblock"
    assert left(IDR, PPS, NEXT) is None, "the first slice was not meant to have it"
    assert left(message(5, b"0123456789abcdefx264-core 1"), IDR) is None
    assert left(message(19), IDR) is None, "film grain is for pictures to come"
    assert left(b"\x06\x01\x03123" + message(147)[1:], IDR) is None, "the second of two messages"
    assert left(b"\x06\x01\x7f123\x80", IDR) is None, "a message longer than its unit"
    assert left(b"\x06\xff\x80", IDR) is left(b"\x06\xff\xff\x80", IDR) is None, "one without its size"
    assert left(b"\x06\x01\x04ab\0\0\3\x80", IDR) == b"", "0 0 3 stands for 0 0"
    assert left(b"\x06\x05\x03\0\0\3\x05\x13\x00" + b"a" * 19 + b"\x80", IDR) is None, "film grain behind it"
    assert left(PPS, SPS, IDR) is None, "whether the first is taken depends on what came before"
    assert left(*[filler] * 100, IDR) is None


@pytest.mark.parametrize(
    "data",
    [b"\0\0\0\x09\x65\x80bc", b"\0\0\0\0\x65\x80bc", b"\0\0\0\x08\x0c\0\0\1\x68pps" + b"\0\0\0\4\x65\x80bc"],
)
def test_a_packet_whose_lengths_are_wrong_or_hide_a_unit_is_like_no_other(data: bytes) -> None:
    assert h264_state.remembered(memoryview(data), 4) is None


@pytest.mark.parametrize(
    ("how", "only_frames"),
    [
        ({}, True),
        ({"options": {"profile": "baseline"}}, True),
        ({"options": {"profile": "main"}, "width": 130, "height": 98}, True),
        ({"pixel_format": "yuv444p"}, True),
        ({"pixel_format": "yuv420p10le"}, True),
        ({"options": {"x264-params": "interlaced=1"}}, False),
    ],
)
def test_which_sequences_have_no_fields(clips: Clips, how: dict[str, object], only_frames: bool) -> None:
    parameters, _ = keyframes(clips, **how)
    sets = annexb.Framing.of("h264", parameters.extradata).sets
    (sps,) = [unit for unit in sets.split(b"\0\0\1") if unit[:1] == b"\x67"]
    assert h264_state.progressive(sps) is only_frames
    assert h264_state.progressive(sps[:5]) is False
