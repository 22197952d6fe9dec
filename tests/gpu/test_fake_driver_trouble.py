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
        "memory": ("SourceError", "memory is full; run fewer streams"),
        "memory again": ("nothing", ""),
        "device lost": ("BackendError", "719"),
        "not on this GPU": ("SourceUnsupported", "hevc yuv420p 640 x 360: this GPU's NVDEC does not"),
    }.items():
        assert found[name][0] == kind, (name, found[name])
        assert text in found[name][1], (name, found[name])


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
