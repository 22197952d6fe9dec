"""The NVDEC decoder on a FAKE driver: the real PyNvVideoCodec wheel, our own code, no GPU.

Proved: call order, arguments, timestamps, buffer reuse, lifetimes, error paths, threads, leaks of handles and
memory. Not proved: pictures, speed, a real parser, a real GPU's memory. Each scenario is a child process
(``fake_driver/child.py``), because the driver's libraries are found by LD_LIBRARY_PATH."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.media import Clips
from tests.gpu.conftest import Play, build_kernel

END_OF_STREAM, DISCONTINUITY = 1, 4


def nothing_left(live: dict[str, int]) -> bool:
    return set(live.values()) == {0}


KINDS: dict[str, dict[str, Any]] = {
    "h264-mp4": {"options": {"bf": "2"}},
    "h264-ts": {"suffix": ".ts", "options": {"bf": "2"}},
    "h264-10-bit": {"pixel_format": "yuv420p10le"},
    "hevc-mp4": {"codec": "libx265"},
    "hevc-10-bit": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "vp9": {"codec": "libvpx-vp9", "suffix": ".webm"},
    "vp9-odd-size": {"codec": "libvpx-vp9", "suffix": ".webm", "width": 129, "height": 97},
    "av1": {"codec": "libsvtav1", "suffix": ".mkv", "options": {"preset": "12"}},
    "vp8": {"codec": "libvpx", "suffix": ".webm"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_comes_out_once_with_its_own_packets_time_and_bytes(
    play: Play, clips: Clips, kind: str
) -> None:
    """The fake driver paints each picture with the sum of the bytes that its parser was fed."""
    found = play("everything", path=clips(**KINDS[kind]))
    assert found["errors"] == []
    assert sorted(found["found"]) == found["expected"]
    assert len({value for _, value in found["expected"]}) > 10
    assert nothing_left(found["live"])


@pytest.mark.parametrize(("reorder", "delay"), [(1, 0), (0, 4), (1, 3)])
def test_pictures_that_come_late_or_in_another_order_keep_their_times(
    play: Play, clips: Clips, reorder: int, delay: int
) -> None:
    found = play("everything", path=clips(), reorder=reorder, delay=delay)
    assert sorted(found["found"]) == found["expected"]


def test_a_picture_costs_one_copy_on_the_device_no_host_copy_and_no_wait(play: Play, clips: Clips) -> None:
    found = play("one_packet", path=clips())
    stream = found["stream"]
    assert [
        line.split(" stream=")[0].split(" surface=")[0].split(" size=")[0] for line in found["second"]
    ] == [
        "parse",
        "decode",
        "map",
        "copy on device",
        "copy on device",
        "record",
    ]
    assert all(f"stream={stream}" in line for line in found["second"][3:])
    everything = found["first"] + found["second"]
    assert not [line for line in everything if "host" in line or "synchronize" in line or "async" in line]
    (address, *luma), first, second = found["planes"]
    assert luma == [96, 128, 128, 1]
    assert first == [address + 128 * 96, 48, 64, 128, 2]
    assert second == [first[0] + 1, 48, 64, 128, 2]


def test_the_first_packet_after_a_start_is_marked_as_a_discontinuity(play: Play, clips: Clips) -> None:
    calls = play("one_packet", path=clips())
    fed = [line for line in calls["first"] + calls["second"] if line.startswith("parse ")]
    assert [int(line.split("flags=")[1].split()[0]) & DISCONTINUITY for line in fed] == [DISCONTINUITY, 0]


def test_a_buffer_that_is_read_too_late_shows_another_picture(play: Play, clips: Clips) -> None:
    """The rule that the frame pool lives by, and the proof that this suite would notice a breach."""
    found = play("stale", path=clips())
    first, second = found["wanted"]
    assert first != second
    assert found["same"]
    assert (found["in_time"], found["too_late"]) == (first, second)


def test_pictures_of_one_call_have_a_buffer_each(play: Play, clips: Clips) -> None:
    found = play("several_at_once", path=clips())
    assert found["addresses"] == 4
    assert sorted(found["found"]) == found["expected"]


@pytest.mark.parametrize("delay", [0, 4])
def test_stills_are_decoded_one_by_one_by_one_decoder(play: Play, clips: Clips, delay: int) -> None:
    found = play("stills", path=clips(), delay=delay)
    assert found["found"] == found["expected"]
    assert len(found["found"]) == 4
    assert sum(line.startswith("create decoder") for line in found["log"]) == 1
    fed = [line for line in found["log"] if line.startswith("parse ")]
    flags = [int(line.split("flags=")[1].split()[0]) for line in fed]
    assert all(
        (flag & END_OF_STREAM == END_OF_STREAM) == (number % 2 == 1) for number, flag in enumerate(flags)
    )
    assert len(fed) == (7 if delay == 0 else 8), "with nothing held back, the last one needs no end yet"


@pytest.mark.parametrize(("progressive", "mode"), [(1, 0), (0, 2)], ids=["progressive", "interlaced"])
def test_the_vendors_decoder_has_interlaced_video_deinterlaced(
    play: Play, clips: Clips, progressive: int, mode: int
) -> None:
    """0 weaves both fields, 2 is ``cudaVideoDeinterlaceMode_Adaptive``; PyNvVideoCodec leaves no choice. Each
    picture comes out once all the same, with its own time."""
    found = play("stills", path=clips(), delay=0, progressive=progressive)
    assert found["found"] == found["expected"]
    [created] = [line for line in found["log"] if line.startswith("create decoder")]
    assert created.endswith(f" deinterlace={mode}")


def test_a_still_between_fed_packets_disturbs_none_of_them(play: Play, clips: Clips) -> None:
    found = play("still_between_fed_packets", path=clips())
    assert found["found"] == found["expected"]
    assert [mark for mark in found["expected"] if mark in found["extra"]] == found["extra"]
    assert len(found["extra"]) == 3
    assert nothing_left(found["live"])


def test_unwanted_pictures_are_not_given_and_those_none_needs_not_even_decoded(
    play: Play, clips: Clips
) -> None:
    found = play("unwanted", path=clips(options={"bf": "2"}))
    assert found["found"] == found["expected"]
    assert found["passed_over"] >= 3
    starts = [line.split()[0] for line in found["log"]]
    assert starts.count("decode") == found["packets"] - found["passed_over"]


def test_a_flush_gives_what_is_buffered_and_a_reset_forgets_it(play: Play, clips: Clips) -> None:
    found = play("flush_and_reset", path=clips())
    assert len(found["early"]) == 4
    assert len(found["rest"]) == 3
    assert found["nothing"] == []
    for again in found["again"]:
        assert again[0][0] == 0.5, "the next keyframe"
        assert len(again) == 36
        assert all(found["expected"][str(time_s)] == value for time_s, value in again)


@pytest.mark.parametrize("suffix", [".ts", ".mp4"])
def test_a_new_size_gets_a_decoder_of_its_own_and_nothing_is_scaled(
    play: Play, clips: Clips, suffix: str
) -> None:
    """The new parameter sets come in band, or beside the first packet."""
    found = play("new_size", small=clips(suffix=suffix), large=clips(suffix=suffix, width=192, height=160))
    assert found["errors"] == []
    assert found["sizes"] == [[192, 160]] * 48
    assert sorted(found["found"]) == found["expected"]
    created = [line for line in found["log"] if line.startswith("create decoder")]
    assert len(created) == 1
    assert "target=192x160" in created[0]
    assert not [line for line in found["log"] if line.startswith("reconfigure")]
    assert nothing_left(found["live"])


def test_another_codec_in_the_same_stream_gets_a_decoder_of_its_own(play: Play, clips: Clips) -> None:
    other = clips(codec="libx265", suffix=".ts", width=192, height=160)
    found = play("codec_of_the_same_stream_changes", first=clips(suffix=".ts"), second=other)
    assert found["errors"] == []
    assert sorted(found["found"]) == found["expected"]
    assert sum(line.startswith("create decoder 192x160") for line in found["log"]) == 1


def test_files_of_one_kind_share_a_decoder_one_after_another(play: Play, clips: Clips) -> None:
    found = play("pooled", path=clips(), other=clips(width=192, height=160))
    assert found["right"] == [True, True, True]
    assert found["created"] == 1
    assert found["different"]
    assert found["created_for_the_other"] == 1
    assert found["idle"] == 2


@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
def test_from_packet_to_slot_the_picture_is_the_one_that_was_fed(
    play: Play, clips: Clips, tmp_path: Path, form: str
) -> None:
    """Luma v without colour is grey (v - 16) * 255 / 219, with 10 bits (v / 4 - 16) * 255 / 219."""
    build_kernel("zig", tmp_path)
    found = play("into_a_slot", path=clips(pixel_format=form), library=tmp_path / "convert.so")
    assert len(found["slots"]) == 8
    for (time_s, low, high), (wanted_s, value) in zip(found["slots"], found["expected"], strict=True):
        grey = (value / (4 if found["deep"] else 1) - 16) * 255 / 219
        assert time_s == wanted_s
        assert low == pytest.approx(max(0.0, min(255.0, grey)), abs=0.5)
        assert high == pytest.approx(low, abs=3 if found["deep"] else 0.5)


def test_pictures_copied_to_main_memory_stay_as_they_were(play: Play, clips: Clips) -> None:
    """How the tests of every decoder look at a GPU's pictures."""
    found = play("host_copies", path=clips())
    assert found["found"] == found["expected"]


def test_a_worker_sees_only_the_gpu_that_it_was_given(play: Play) -> None:
    """Three on the server; what the driver shows a process comes from that process's own environment."""
    found = play("several_gpus", count=3, own=2)
    assert found["every"] == [f"GPU-0f{number:02x}0000-0000-0000-0000-000000000000" for number in range(3)]
    assert found["own"] == found["every"][2:]
