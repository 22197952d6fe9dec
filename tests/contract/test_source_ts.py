"""An MPEG transport stream is read by an index of our own making where that can be relied on."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.backends import ts_index
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.source_ffmpeg import FfmpegSource, SourceSettings, open_source
from pipeline.backends.ts_index import PACKET
from pipeline.errors import SourceUnsupported
from tests.fixtures.media import Clips, clips, moving_pictures

__all__ = ["clips"]

PID = 256
Packets = list[bytearray]
Change = Callable[[Packets], list[bytearray] | None]


def opened(path: Path) -> FfmpegSource:
    return open_source(SourceSettings(url=str(path), kind="file"), stop=threading.Event())


@pytest.fixture
def film(clips: Clips) -> Path:
    return clips(pictures=96, gop=12, suffix=".ts", options={"bf": "2", "b_strategy": "0"})


@pytest.fixture
def changed(film: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """The film with its packets changed."""

    def change(how: Change) -> Path:
        data = film.read_bytes()
        packets = [bytearray(data[at : at + PACKET]) for at in range(0, len(data), PACKET)]
        path = tmp_path / "changed.ts"
        path.write_bytes(b"".join(how(packets) or packets))
        return path

    return change


def own(packets: Packets) -> list[int]:
    """Which of them are the film's."""
    return [n for n, packet in enumerate(packets) if int.from_bytes(packet[1:3], "big") & 0x1FFF == PID]


HALVES = [n / 2 for n in range(8)]


def test_every_keyframe_can_be_gone_to(film: Path) -> None:
    with opened(film) as source:
        assert source.keyframes() == pytest.approx(HALVES)
        for time_s in [*HALVES, *reversed(HALVES)]:
            source.seek(time_s + 0.3)
            packet = next(iter(source))
            assert packet.keyframe
            assert packet.time_s == pytest.approx(time_s)
        source.seek(0.0)
        assert len(list(source)) == 96


@pytest.mark.parametrize(("before", "after"), [(4, 0), (0, 16)], ids=["M2TS", "with checksums"])
def test_packets_may_have_something_before_or_after(
    changed: Callable[[Change], Path], before: int, after: int
) -> None:
    path = changed(lambda packets: [bytearray(before) + packet + bytearray(after) for packet in packets])
    with opened(path) as source:
        assert source.keyframes() == pytest.approx(HALVES)


def a_packet_is_lost(packets: Packets) -> Packets:
    gone = own(packets)[40]
    return packets[:gone] + packets[gone + 1 :]


def a_packet_is_damaged(packets: Packets) -> None:
    packets[own(packets)[40]][1] |= 0x80


def no_keyframe_is_marked(packets: Packets) -> None:
    for number in own(packets):
        if packets[number][3] & 0x20 and packets[number][4]:
            packets[number][5] &= ~0x40


def a_wrong_picture_is_marked(packets: Packets) -> None:
    begin = [n for n in own(packets) if packets[n][1] & 0x40 and packets[n][3] & 0x20 and packets[n][4]]
    for number in begin[1::2]:
        packets[number][5] ^= 0x40


def something_is_between(packets: Packets) -> Packets:
    return [*packets[:50], bytearray(b"x"), *packets[50:]]


@pytest.mark.parametrize(
    "how",
    [
        a_packet_is_lost,
        a_packet_is_damaged,
        no_keyframe_is_marked,
        a_wrong_picture_is_marked,
        something_is_between,
    ],
)
def test_what_cannot_be_relied_on_is_read_from_front_to_back(
    changed: Callable[[Change], Path], how: Change
) -> None:
    with opened(changed(how)) as source:
        assert source.keyframes() == ()
        times = [packet.time_s for packet in source]
        assert times[0] == 0.0
        assert max(times) == pytest.approx(95 / 24)


def test_where_there_is_no_index_nothing_can_be_gone_to(changed: Callable[[Change], Path]) -> None:
    with opened(changed(no_keyframe_is_marked)) as source:
        with pytest.raises(SourceUnsupported, match=r"changed\.ts: cannot be sought"):
            source.seek(1.0)
        assert next(iter(source)).time_s == 0.0


def test_times_that_start_anew_within_the_film_make_no_index(tmp_path: Path) -> None:
    """After 26.5 hours they do."""
    path = write_clip(
        tmp_path / "wraps.ts",
        moving_pictures(96),
        rate=24,
        gop=12,
        container_options={"output_ts_offset": str(2**33 / 90000 - 2)},
    )
    with opened(path) as source:
        assert source.keyframes() == ()
        assert max(packet.time_s for packet in source) == pytest.approx(95 / 24)


def test_a_second_pass_shares_the_index(film: Path) -> None:
    with opened(film) as source, source.again() as other:
        assert other.keyframes() == pytest.approx(HALVES)
        source.seek(2.2)
        other.seek(1.2)
        assert next(iter(source)).time_s == pytest.approx(2.0)
        assert next(iter(other)).time_s == pytest.approx(1.0)


def test_a_film_of_too_many_pictures_is_not_gone_through(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ts_index, "MOST_ENTRIES", 50)
    with opened(film) as source:
        assert source.keyframes() == ()


def test_what_is_told_to_stop_looks_no_further(film: Path) -> None:
    stop = threading.Event()
    with open_source(SourceSettings(url=str(film), kind="file"), stop=stop) as source:
        stop.set()
        assert source.keyframes() == ()
