"""Pictures that libavformat cuts at their slices come out of a source whole."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline import errors
from pipeline.backends.access_units import MOST_PARTS, whole_pictures
from pipeline.backends.decode_software import open_decoder
from pipeline.backends.source_ffmpeg import FfmpegSource
from pipeline.flow.source import Packet
from pipeline.limits import Limits
from tests.contract.test_source import opened, refusal
from tests.fixtures.rtsp import RtspServer
from tests.fixtures.slices import GOP, PICTURES, RATE, repeat_sets, write_film

ENOUGH = 1 << 20


def read(source: FfmpegSource) -> list[Packet]:
    """All packets, to the end of the file or until the server hangs up."""
    found: list[Packet] = []
    with suppress(errors.SourceEnded):
        found.extend(source)
    return found


def stills(source: FfmpegSource, packets: list[Packet]) -> list[Any]:
    """The keyframes among ``packets``, each decoded by itself."""
    decoder = open_decoder(source.info)
    pictures = [decoder.still(packet) for packet in packets if packet.keyframe]
    return [picture.surface.to_ndarray(format="gray") for picture in pictures if picture is not None]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("way", ["rtsp", "ts"])
def test_a_keyframe_with_sets_before_each_slice_decodes_by_itself_as_the_encoder_made_it(
    rtsp_server: RtspServer, tmp_path: Path, codec: str, way: str
) -> None:
    plain = write_film(tmp_path / "plain.mp4", codec)
    if way == "rtsp":
        repeat_sets(plain, rtsp_server.folder / "film.mp4")
        cut = opened(rtsp_server.url("film.mp4"), kind="live")
    else:
        cut = opened(repeat_sets(plain, tmp_path / "film.ts"))
    with opened(plain) as whole, cut:
        wanted, packets = stills(whole, read(whole)), read(cut)
        assert np.array_equal(stills(cut, packets), wanted)
    assert len(wanted) == 3
    times = [packet.time_s for packet in packets if packet.keyframe]
    assert times == pytest.approx([n * GOP / RATE for n in range(3)], abs=0.05)
    decoder = open_decoder(cut.info)
    pictures = [picture for packet in packets for picture in decoder.decode(packet)]
    assert len(pictures) + len(list(decoder.flush())) >= PICTURES
    assert decoder.damaged == 0


def test_packets_that_are_whole_are_given_as_they_are(tmp_path: Path) -> None:
    with av.open(write_film(tmp_path / "film.ts", "h264")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    given = list(whole_pictures(iter(packets), "h264", ENOUGH))
    assert all(one is other for one, other in zip(given, packets, strict=True))


def slice_packet(pts: int, *, first: bool, keyframe: bool = True, filler: int = 20) -> Any:
    """One slice as the parser hands it out: the header says whether it is its picture's first."""
    data = b"\0\0\0\1" + bytes([0x65 if keyframe else 0x41, 0x88 if first else 0x40]) + b"x" * filler
    packet: Any = av.Packet(data)
    packet.pts = packet.dts = pts
    packet.time_base, packet.is_keyframe = Fraction(1, 90000), keyframe
    return packet


def test_a_picture_is_held_only_while_its_sort_is_known_to_go_on() -> None:
    taken: list[int] = []

    def sent() -> Iterator[Any]:
        for n in range(6):
            taken.append(n)
            yield slice_packet(3600 * n, first=True)

    given = whole_pictures(sent(), "h264", ENOUGH)
    assert (next(given).pts, taken) == (0, [0, 1])  # the first waits to see whether it goes on
    assert (next(given).pts, taken) == (3600, [0, 1])
    assert (next(given).pts, taken) == (7200, [0, 1, 2])


def test_other_pictures_are_put_together_once_one_has_come_in_parts() -> None:
    parts = [slice_packet(0, first=True)]
    for n in range(1, 4):
        parts += [slice_packet(3600 * n, first=first, keyframe=False) for first in (True, False)]
    given = [packet.size for packet in whole_pictures(iter(parts), "h264", ENOUGH)]
    assert given == [26, 26, 26, 51, 51]  # a later part brings 25: its start code has no zero before it


def test_a_part_of_another_time_is_not_taken_for_the_same_picture() -> None:
    parts = [slice_packet(0, first=True), slice_packet(3600, first=False)]
    assert [packet.pts for packet in whole_pictures(iter(parts), "h264", ENOUGH)] == [0, 3600]


def test_a_picture_without_end_is_put_together_within_bounds() -> None:
    endless = [slice_packet(0, first=True)] + [slice_packet(0, first=False)] * (2 * MOST_PARTS)
    assert next(whole_pictures(iter(endless), "h264", ENOUGH)).size <= 26 * MOST_PARTS
    assert next(whole_pictures(iter(endless), "h264", 100)).size <= 100 + 26


def test_a_picture_of_many_small_parts_is_judged_as_one(tmp_path: Path) -> None:
    film = repeat_sets(write_film(tmp_path / "plain.mp4", "h264"), tmp_path / "film.ts")
    with av.open(film) as container:
        largest = max(packet.size for packet in container.demux(video=0))
    text = refusal(film, errors.SourceUnsupported, limits=Limits(packet_bytes=largest))
    assert "limits.packet_bytes" in text


def test_what_is_held_when_the_source_breaks_off_comes_before_the_error() -> None:
    def broken() -> Iterator[Any]:
        yield slice_packet(0, first=True)
        raise errors.SourceEnded("rtsp://host/film: the server hung up")

    given = whole_pictures(broken(), "h264", ENOUGH)
    assert next(given).pts == 0
    with pytest.raises(errors.SourceEnded):
        next(given)
