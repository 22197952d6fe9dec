"""Packets as a hardware parser wants them, against FFmpeg's own filters and real encoders' streams."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backends.annexb import START, Framing, is_needed, sequence, tag_of, tagged
from pipeline.flow.source import Packet, StreamInfo
from tests.fixtures.media import Clips, demux
from tests.fixtures.slices import packed

AV1 = {"codec": "libsvtav1", "suffix": ".mkv", "options": {"preset": "12", "svtav1-params": "lookahead=0"}}
KINDS: dict[str, dict[str, Any]] = {
    "h264-mp4": {},
    "h264-ts": {"suffix": ".ts"},
    "h264-10-bit": {"pixel_format": "yuv420p10le"},
    "hevc-mp4": {"codec": "libx265"},
    "hevc-ts": {"codec": "libx265", "suffix": ".ts"},
    "vp8": {"codec": "libvpx", "suffix": ".webm"},
    "vp9": {"codec": "libvpx-vp9", "suffix": ".webm"},
    "av1": AV1,
}


def units(data: bytes) -> list[bytes]:
    """The NAL units between the start codes."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.strip(b"\0")]


def framed(info: StreamInfo) -> Framing:
    return Framing.of(_codec(info), bytes(info.codec_parameters.extradata or b""))


def _codec(info: StreamInfo) -> str:
    return {"libdav1d": "av1"}.get(info.codec, info.codec)


def headers(path: Path) -> list[bytes]:
    """What each keyframe says of its sequence."""
    info, packets = demux(path)
    framing = framed(info)
    return [sequence(framing.codec, framing.annex_b(bytes(p.data), True)) for p in packets if p.keyframe]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("h264-mp4", "h264_mp4toannexb"), ("h264-10-bit", "h264_mp4toannexb"), ("hevc-mp4", "hevc_mp4toannexb")],
)
def test_every_packet_has_the_units_that_ffmpegs_filter_gives(clips: Clips, kind: str, name: str) -> None:
    path = clips(**KINDS[kind])
    info, packets = demux(path)
    framing = framed(info)
    assert framing.length == 4
    with av.open(str(path)) as container:
        convert = BitStreamFilterContext(name, container.streams.video[0])
        theirs = [out for each in container.demux(video=0) if each.size for out in convert.filter(each)]
    for packet, their in zip(packets, theirs, strict=True):
        ours = units(framing.annex_b(bytes(packet.data), packet.keyframe))
        assert sorted(ours) == sorted(
            units(bytes(their))
        )  # a keyframe's SEI may stand before or after its sets
        assert ours[-1] == units(bytes(their))[-1]


def test_what_has_start_codes_already_is_left_as_it_is(clips: Clips) -> None:
    info, packets = demux(clips(suffix=".ts"))
    framing = framed(info)
    assert all(framing.annex_b(bytes(p.data), p.keyframe) == bytes(p.data) for p in packets)


def test_parameter_sets_that_stand_beside_the_stream_go_before_each_keyframe(clips: Clips) -> None:
    """RTSP's are in Annex B: those of the SDP, when the sender does not repeat them in band."""
    info, packets = demux(clips())
    mp4 = framed(info)
    rtsp = Framing.of("h264", mp4.sets)
    assert rtsp.length == 0
    bare = Framing("h264", mp4.length).annex_b(bytes(packets[0].data), True)
    assert rtsp.annex_b(bare, True) == mp4.sets + bare
    assert rtsp.annex_b(bare, False) == bare
    assert rtsp.annex_b(mp4.sets + bare, True) == mp4.sets + bare, "it carries its own"


@pytest.mark.parametrize("kind", KINDS)
def test_keyframes_of_one_sequence_say_the_same_and_those_of_another_size_do_not(
    clips: Clips, kind: str
) -> None:
    here = headers(clips(**KINDS[kind]))
    there = headers(clips(**KINDS[kind], width=192, height=160))
    assert len(here) >= 2
    assert here[0]
    assert there[0]
    assert len(set(here)) == len(set(there)) == 1
    assert here[0] != there[0]


def test_another_depth_is_another_sequence(clips: Clips) -> None:
    assert headers(clips(**KINDS["h264-mp4"]))[0] != headers(clips(**KINDS["h264-10-bit"]))[0]


def vp9_keyframe(*, deep: int, full: int, width: int, height: int) -> bytes:
    """The start of a VP9 keyframe of profile 0, or of profile 2 (10, 12 bits), which no encoder here has."""
    bits = "10" + ("0000" if deep < 0 else "0100") + "10" + f"{0x498342:024b}"
    bits += ("" if deep < 0 else str(deep)) + f"010{full}" + f"{width - 1:016b}{height - 1:016b}"
    return int(bits.ljust(128, "1"), 2).to_bytes(16)


def test_a_vp9_keyframe_says_its_depth_range_and_size() -> None:
    known = {
        sequence("vp9", vp9_keyframe(deep=deep, full=full, width=width, height=90))
        for deep in (-1, 0, 1)
        for full in (0, 1)
        for width in (160, 161)
    }
    assert len(known) == 12
    assert b"" not in known
    assert sequence("vp9", vp9_keyframe(deep=0, full=1, width=160, height=90))[-4:] == bytes([0, 159, 0, 89])


def test_only_a_picture_that_no_other_depends_on_can_be_spared(clips: Clips) -> None:
    """libavcodec's word for it: with ``skip_frame`` NONREF exactly these do not come out."""
    path = clips(options={"bf": "2", "b-pyramid": "none"})
    info, packets = demux(path)
    framing = framed(info)
    spared = [p.time_s for p in packets if not is_needed("h264", framing.annex_b(bytes(p.data), p.keyframe))]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.skip_frame = "NONREF"
        start = min(p.data.pts for p in packets)
        base = stream.time_base
        kept = [float((f.pts - start) * base) for f in container.decode(stream) if f.pts is not None and base]
    assert len(spared) > 5
    assert sorted(spared + kept) == sorted(p.time_s for p in packets)
    assert is_needed("hevc", b"\0\0\1\x02\x01")


@pytest.mark.parametrize("kind", ["h264-mp4", "h264-ts", "h264-10-bit", "hevc-mp4", "hevc-ts"])
def test_a_tag_stays_with_its_picture_and_changes_none(clips: Clips, kind: str) -> None:
    """libavcodec's word for it: the message comes out beside the picture of the packet that carried it."""
    path = clips(**KINDS[kind], **({} if kind.startswith("hevc") else {"options": {"bf": "3"}}))
    info, packets = demux(path)
    framing, decoder = framed(info), av.Codec(info.codec, "r").create("video")
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray() for frame in container.decode(video=0)]
    pictures: list[av.VideoFrame] = []
    for packet in packets:
        data = framing.annex_b(bytes(packet.data), packet.keyframe)
        pictures += decoder.decode(av.Packet(tagged(info.codec, data, packet.pts)))
    pictures += decoder.decode(None)
    order = [packet.pts for packet in sorted(packets, key=lambda packet: packet.time_s)]
    found = [[tag_of(bytes(message)) for message in list[Any](picture.side_data)] for picture in pictures]
    assert [[tag for tag in tags if tag is not None] for tags in found] == [[tag] for tag in order]
    for picture, values in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(picture.to_ndarray(), values)


def test_a_packet_without_a_slice_has_no_tag_and_another_message_is_none() -> None:
    assert tagged("h264", START + b"\x09\x10", 7) == START + b"\x09\x10"
    assert tagged("hevc", b"", 7) == b""
    assert tag_of(b"") is None
    assert tag_of(b"of somebody else, and longer than ours is") is None


@given(data=st.binary(max_size=60), codec=st.sampled_from(["h264", "hevc", "vp8", "vp9", "av1"]))
def test_noise_is_understood_or_refused_but_nothing_else(data: bytes, codec: str) -> None:
    for extradata in (data, b"\1" + data, START + data):
        try:
            framing = Framing.of(codec, extradata)
            sequence(codec, framing.annex_b(data, True))
        except ValueError:
            pass
    is_needed(codec, data)


@given(units=st.lists(st.binary(min_size=1, max_size=40), max_size=6), length=st.sampled_from([1, 2, 4]))
def test_lengths_become_start_codes_and_the_bytes_stay(units: list[bytes], length: int) -> None:
    packet = packed(units, length)
    assert Framing("h264", length).annex_b(packet, False) == b"".join(START + unit for unit in units)


def _first(packets: list[Packet]) -> bytes:
    return bytes(packets[0].data)


@pytest.mark.parametrize("kind", ["h264-mp4", "hevc-mp4"])
def test_a_packet_or_a_record_that_is_cut_short_is_refused(clips: Clips, kind: str) -> None:
    info, packets = demux(clips(**KINDS[kind]))
    record = bytes(info.codec_parameters.extradata)
    with pytest.raises(ValueError, match="bytes left"):
        framed(info).annex_b(_first(packets)[:-1], True)
    with pytest.raises(ValueError, match="cut short"):
        Framing.of(info.codec, record[: 30 if info.codec == "hevc" else 9])
