"""The NVDEC decoder in trouble, on a FAKE driver: damage, refusals, threads, a long run, and the end.

See ``test_fake_driver.py`` for what that proves and what it does not."""

import ctypes

import pytest

from pipeline.backends.nvdec_session import load_vendor
from pipeline.errors import BackendError
from tests.fixtures.media import Clips
from tests.gpu.conftest import Play

END_OF_STREAM, DISCONTINUITY = 1, 4


def nothing_left(live: dict[str, int]) -> bool:
    return set(live.values()) == {0}


def test_after_a_parser_error_it_goes_on_at_the_next_keyframe(play: Play, clips: Clips) -> None:
    """The seventh packet fails with two pictures held back, which are given; then five are passed over."""
    found = play("parser_error", path=clips(), at=6)
    assert len(found["errors"]) == 1
    assert "cuvidParseVideoData" in found["errors"][0]
    assert found["damaged"] == 1
    assert found["found"] == found["expected"][:6] + found["expected"][12:]


def test_a_packet_marked_damaged_is_not_fed_and_costs_its_gop_only(play: Play, clips: Clips) -> None:
    found = play("marked_damaged", path=clips())
    assert len(found["errors"]) == 1
    assert "source lost a part" in found["errors"][0]
    assert found["still"] == ["DecodeError", found["still"][1]]
    assert found["damaged"] == 2
    assert found["found"] == found["expected"][:5] + found["expected"][12:]


def test_what_cannot_be_decoded_is_refused_by_its_reason(play: Play, clips: Clips) -> None:
    found = play("refusals", path=clips(), deep=clips(pixel_format="yuv444p"))
    for name, (kind, text) in {
        "codec": ("SourceUnsupported", "prores"),
        "small": ("SourceUnsupported", "32 x 16: this GPU's NVDEC takes 48 x 16 to 4096 x 4096"),
        "large": ("SourceUnsupported", "8192 x 4320"),
        "form": ("SourceUnsupported", "yuv444p 128 x 96: only 4:2:0"),
        "memory": ("SourceNoRoom", "memory is full; run fewer streams"),
        "memory again": ("nothing", ""),
        "device lost": ("BackendError", "719"),
        "not on this GPU": ("SourceUnsupported", "hevc yuv420p 640 x 360: this GPU's NVDEC does not"),
    }.items():
        assert found[name][0] == kind, (name, found[name])
        assert text in found[name][1], (name, found[name])


def test_decoders_that_would_not_fit_are_refused_with_the_arithmetic_and_the_others_go_on(
    play: Play, clips: Clips
) -> None:
    """A card of 500 MB, 256 of them kept; a 720p decoder is counted with 44 MB until one was measured."""
    found = play("no_room", path=clips(width=1280, height=720, pictures=14), megabytes=500)
    each = found["each_mb"]
    assert 11 < each < 44.0
    assert found["fitted"] == int((500 - 256) / each), "as measured, not as budgeted"
    kind, text = found["refused"]
    assert kind == "SourceNoRoom"
    left = 500 - found["fitted"] * each
    assert text == (
        f"h264 1280 x 720: no room for its decoder on this GPU: it takes {each:.0f} MB (measured), "
        f"{left:.0f} of 500 MB are free, 0 MB of them promised, and 256 MB stay free for the engine; "
        f"{found['fitted']} decoders are open here. Run fewer or smaller streams on this GPU"
    )
    assert found["the others"] == found["expected"]
    assert found["after one left"] == ["nothing", ""]
    assert found["after a file left"] == ["nothing", ""], "what it left behind makes room"
    assert found["open"] == 0


def test_a_stream_that_outgrows_the_limit_on_pictures_opens_no_larger_decoder(
    play: Play, clips: Clips
) -> None:
    found = play(
        "new_size",
        small=clips(suffix=".ts"),
        large=clips(suffix=".ts", width=192, height=160),
        max_pixels=128 * 96 + 100,
    )
    assert len(found["errors"]) >= 4, "each of its keyframes"
    assert found["sizes"] == []
    assert not [line for line in found["log"] if line.startswith("create decoder")]


@pytest.mark.parametrize("auto", [True, False], ids=["auto", "gpu"])
def test_what_nvdec_does_not_decode_is_decoded_in_software_for_device_auto_only(
    play: Play, clips: Clips, auto: bool
) -> None:
    """An MPEG-TS that is 4:4:4 from its start, and one that becomes so; the reason is for the status."""
    deep = clips(pixel_format="yuv444p", suffix=".ts")
    found = play("not_for_this_gpu", path=clips(suffix=".ts"), deep=deep, auto=auto)
    if auto:
        assert found["at once"] == ["VideoFrame"]
        assert found["later"] == ["DeviceSurface", "VideoFrame"]
        assert len(found["whys"]) == 2
        assert all("decoded in software: h264 yuv444p 128 x 96: only 4:2:0" in why for why in found["whys"])
    else:
        assert [found[name][0] for name in ("at once", "later")] == ["SourceUnsupported"] * 2
        assert found["whys"] == []


def test_broken_framing_is_damage_and_nothing_else(play: Play, clips: Clips) -> None:
    found = play("broken_packets", path=clips())
    assert found["lying"][0] == "DecodeError"
    assert "is damaged" in found["lying"][1]
    assert found["sound"]
    assert found["cut"][0] == "SourceCorrupt"
    assert "cut short" in found["cut"][1]


def test_thirty_eight_decoders_in_threads_mix_nothing_and_leave_nothing(play: Play, clips: Clips) -> None:
    found = play("many_threads", path=clips(pictures=24), decoders=38)
    assert found["ended"]
    assert found["wrong"] == []
    assert found["idle"] <= found["limit"]
    assert nothing_left(found["live"])


def test_ten_thousand_packets_leave_no_memory_no_event_and_no_decoder_behind(
    play: Play, clips: Clips
) -> None:
    found = play("long_run", path=clips(), packets=10_000)
    assert found["fed"] >= 12_000
    assert found["after"] == found["before"]
    assert found["grown"] < 8e6
    assert nothing_left(found["left"])


def test_a_decoder_is_freed_only_when_its_stream_has_done_its_work(play: Play, clips: Clips) -> None:
    found = play("closing", path=clips())
    calls = [line.split()[0] for line in found["log"]]
    assert calls.index("synchronize") < calls.index("destroy")
    assert nothing_left(found["live"])


def test_decoding_lets_other_threads_run(play: Play, clips: Clips) -> None:
    """A thread that counts gets on while a parse takes 0.3 s."""
    found = play("other_threads_go_on", path=clips())
    assert found["took"] >= 0.3
    assert found["counted"] > 10_000


def test_without_a_driver_it_says_what_is_missing_and_the_cure() -> None:
    try:
        ctypes.CDLL("libnvidia-encode.so.1")
    except OSError:
        with pytest.raises(BackendError, match=r"libnvidia-encode.*NVIDIA_DRIVER_CAPABILITIES"):
            load_vendor()
    else:
        assert load_vendor().__version__
