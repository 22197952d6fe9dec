"""Contexts that decode keyframes of many streams, one after the other, as if each had one of its own."""

from dataclasses import replace

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.backends import annexb
from pipeline.backends.decode_software import Contexts, Parameters
from pipeline.errors import DecodeError
from pipeline.flow.source import Packet
from tests.fixtures.media import Clips, demux


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
    contexts = Contexts(1)
    for packet in packets:
        contexts.alone(parameters, packet)
    assert len(packets) > 2
    assert len(opened) == 2


def test_parameter_sets_of_one_stream_do_not_serve_another(clips: Clips) -> None:
    parameters, packets = keyframes(clips, suffix=".ts")
    contexts = Contexts(1)
    contexts.alone(parameters, packets[1])
    data = bytes(packets[2].data)
    slices = data[data.index(b"\0\0\1\x65") :]
    bare = replace(packets[2], data=av.Packet(slices))
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
        broken = contexts.alone(parameters, replace(packets[2], data=av.Packet(bytes(data))))
        assert broken[0].is_corrupt
    except DecodeError:
        pass
    opened.clear()
    contexts.alone(parameters, packets[3])
    assert len(opened) == 1


def test_other_codecs_have_a_context_for_each_keyframe(clips: Clips, opened: list[Parameters]) -> None:
    parameters, packets = keyframes(clips, codec="libx265")
    contexts = Contexts(1)
    for packet in packets[:3]:
        contexts.alone(parameters, packet)
    assert len(opened) == 3


SPS, PPS, SLICE, X264 = b"\x67sps", b"\x68pps", b"\x65slice", b"\x06\x05x264 - core 165"


@pytest.mark.parametrize("length", [0, 2, 4])
def test_what_a_decoder_remembers_of_a_packet(length: int) -> None:
    def packet(*units: bytes) -> bytes:
        return b"".join((len(unit).to_bytes(length) if length else b"\0\0\1") + unit for unit in units)

    def left(*units: bytes) -> bytes | None:
        return annexb.remembered(packet(*units), length)

    assert left(SLICE) == left(b"\x09\xf0", b"\x06\x01message", SLICE, SLICE) == b""
    assert left(SPS, PPS, SLICE) == left(b"\x09\xf0", SPS, PPS, SLICE)
    assert left(SLICE, SPS, SLICE), "also of sets between slices"
    kept = [left(), left(SPS, SLICE), left(PPS, SLICE), left(SPS, PPS, SLICE), left(X264, SLICE)]
    assert len(set(kept)) == len(kept)


def test_a_packet_whose_lengths_are_wrong_is_like_no_other() -> None:
    assert annexb.remembered(b"\0\0\0\x09\x65abc", 4) is None
    assert annexb.remembered(b"\0\0\0\0\x65abc", 4) is None
