"""RTMP, read from a real server."""

from pathlib import Path

import pytest

from pipeline import errors
from pipeline.flow.source import Packet
from tests.contract.test_source import SECRET, check_film, make_clip, opened, packets, refusal
from tests.fixtures.media import Clips
from tests.fixtures.relay import Certificate
from tests.fixtures.rtmp import RtmpServer, as_flv

OPTIONS = {"libx264": {"bf": "2"}, "libx265": {"x265-params": "log-level=none:bframes=2:open-gop=0"}}


@pytest.fixture
def served(rtmp_server: RtmpServer, tmp_path: Path) -> RtmpServer:
    """A running server that plays a film under the key ``SECRET``."""
    rtmp_server.films[SECRET] = as_flv(make_clip(tmp_path / "clip.mp4"), tmp_path / "clip.flv")
    return rtmp_server


def test_rtmp_gives_every_picture_at_its_time_until_the_server_stops(served: RtmpServer) -> None:
    found: list[Packet] = []
    with opened(served.url(SECRET), kind="live") as source:
        with pytest.raises(errors.SourceEnded, match="hung up"):
            found.extend(source)
        shown = f"{source!r} {source._settings!r}"
    assert (source.info.codec, source.info.width, source.info.height) == ("h264", 128, 96)
    assert (source.info.duration_s, source.info.has_index) == (None, False)
    assert SECRET not in shown
    check_film(found)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_recording_by_rtmp_ends_when_the_server_stops(
    rtmp_server: RtmpServer, clips: Clips, tmp_path: Path, codec: str
) -> None:
    """With B-pictures, and in HEVC, which RTMP carries by an extension of its own."""
    rtmp_server.films["film"] = as_flv(
        clips(codec=codec, pictures=24, options=OPTIONS[codec]), tmp_path / "flv"
    )
    found = packets(rtmp_server.url("film"))
    times = [packet.time_s for packet in found]
    assert sorted(times) == pytest.approx([n / 24 for n in range(24)], abs=2e-3)
    assert [packet.time_s for packet in found if packet.keyframe] == pytest.approx([0.0, 0.5], abs=2e-3)
    assert times != sorted(times)


def test_an_rtmp_stream_that_breaks_off_can_be_opened_again(served: RtmpServer, tmp_path: Path) -> None:
    with opened(served.url(SECRET), kind="live", open_timeout_s=1.0) as source:
        reading = iter(source)
        first = next(reading)
        served.cut.set()
        with pytest.raises((errors.SourceEnded, errors.SourceRefused)):
            list(reading)
    served.cut.clear()
    with opened(served.url(SECRET), kind="live", open_timeout_s=1.0) as source:
        again = next(iter(source))
    assert (first.time_s, first.keyframe) == (again.time_s, again.keyframe) == (0.0, True)
    assert served.played == [SECRET, SECRET]


def test_an_rtmp_stream_that_the_server_lacks_is_refused_without_its_key(served: RtmpServer) -> None:
    text = refusal(served.url(f"{SECRET}-2"), errors.SourceRefused, kind="live")
    assert "does it have this stream" in text


def test_rtmps_is_verified_against_the_given_authority(
    served: RtmpServer, rtmps_server: RtmpServer, certificate: Certificate
) -> None:
    rtmps_server.films.update(served.films)
    url = rtmps_server.url(SECRET)
    with opened(url, kind="live", open_timeout_s=1.0, tls_ca=str(certificate.certificate)) as source:
        assert next(iter(source)).keyframe
    assert "TLS failed" in refusal(url, errors.SourceTls, kind="live")
