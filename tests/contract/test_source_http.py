"""HLS and progressive video over http(s): what is read, and what is not even asked for."""

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipeline import errors
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.source_ffmpeg import open_source
from pipeline.flow.source import Packet
from pipeline.inputs import Reach
from tests.contract.test_source import (
    GOP,
    PICTURES,
    RATE,
    SECRET,
    check_film,
    make_clip,
    opened,
    packets,
    pictures,
    refusal,
    remux,
    settings,
)
from tests.fixtures.http import HttpServer

Servers = Callable[..., HttpServer]


@pytest.fixture
def hls(http_server: HttpServer) -> HttpServer:
    """A server with ``list.m3u8``: three segments of half a second."""
    for n in range(3):
        make_clip(http_server.folder / f"part{n}.ts", islice(pictures(), n * GOP, (n + 1) * GOP))
    write_playlist(http_server, parts(3))
    return http_server


def parts(count: int) -> str:
    return "".join(f"#EXT-X-DISCONTINUITY\n#EXTINF:0.5,\npart{n}.ts\n" for n in range(count))


def write_playlist(server: HttpServer, entries: str, end: str = "#EXT-X-ENDLIST\n") -> None:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    (server.folder / "list.m3u8").write_text(head + entries + end)


@pytest.fixture
def film(http_server: HttpServer, clip: Path) -> HttpServer:
    """A server with ``clip.mp4``, whose index stands behind its data."""
    (http_server.folder / "clip.mp4").write_bytes(clip.read_bytes())
    return http_server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("http") / "clip.mp4")


def test_progressive_video_is_read_and_sought(film: HttpServer) -> None:
    check_film(packets(film.url("clip.mp4")))
    with opened(film.url("clip.mp4")) as source:
        assert source.info.duration_s == pytest.approx(1.5)
        source.seek(1.2)
        assert next(iter(source)).time_s == pytest.approx(1.0)


def test_hls_is_read_segment_by_segment_on_one_timeline(hls: HttpServer) -> None:
    """Each segment starts its timestamps anew: a discontinuity."""
    found = packets(hls.url("list.m3u8"))
    assert [packet.time_s for packet in found] == pytest.approx([n / RATE for n in range(PICTURES)], abs=1e-2)


def test_a_recorded_playlist_whose_segments_are_far_apart_in_time_has_no_hole(hls: HttpServer) -> None:
    remux(hls.folder / "part1.ts", hls.folder / "part2.ts", first=90_000 * 3600)
    found = packets(hls.url("list.m3u8"))
    assert [packet.time_s for packet in found] == pytest.approx([n / RATE for n in range(PICTURES)], abs=1e-2)


def test_a_playlist_is_known_by_its_text_not_by_its_name(hls: HttpServer) -> None:
    (hls.folder / "live").write_bytes((hls.folder / "list.m3u8").read_bytes())
    assert len(packets(hls.url("live?id=1"))) == PICTURES


def test_a_live_playlist_that_ends_is_a_lost_connection(hls: HttpServer) -> None:
    assert "hung up" in refusal(hls.url("list.m3u8"), errors.SourceEnded, kind="live")


def test_a_live_playlist_is_followed_until_it_stands_still(hls: HttpServer) -> None:
    """Its segments are announced as 1 s: three times that without news is a timeout, whatever the setting."""
    write_playlist(hls, parts(2), end="")
    found: list[Packet] = []
    with opened(hls.url("list.m3u8"), kind="live", read_timeout_s=0.2) as source:
        reading = iter(source)
        found += islice(reading, GOP)
        write_playlist(hls, parts(3), end="")
        with pytest.raises(errors.SourceTimeout, match="within 3 s"):
            found.extend(reading)
    assert [packet.time_s for packet in found] == pytest.approx([n / RATE for n in range(PICTURES)], abs=1e-2)


@pytest.mark.parametrize(
    "named", ["file:///etc/hostname", "rtsp://127.0.0.1/a", "/etc/../../x.ts", "crypto+file:///a"]
)
def test_a_playlist_that_names_something_else_is_refused(hls: HttpServer, named: str) -> None:
    write_playlist(hls, f"#EXTINF:0.5,\n{named}\n")
    kind = errors.SourceNotFound if named.startswith("/") else errors.SourceRefused
    text = refusal(hls.url("list.m3u8"), errors.SourceUnsupported if named.startswith("crypto") else kind)
    assert text.startswith(hls.url("list.m3u8").replace("list.m3u8", ""))


@pytest.mark.parametrize("kind", ["AUDIO", "VIDEO"])
def test_a_playlist_that_gives_no_video_for_what_it_names_is_refused_for_that(
    kind: str, hls: HttpServer
) -> None:
    """Its ``EXT-X-MEDIA`` is on another host."""
    (hls.folder / "master.m3u8").write_text(
        f'#EXTM3U\n#EXT-X-MEDIA:TYPE={kind},GROUP-ID="a",NAME="x",DEFAULT=YES,URI="http://192.0.2.1/a.m3u8"\n'
        f'#EXT-X-STREAM-INF:BANDWIDTH=90000,{kind}="a"\nlist.m3u8\n'
    )
    text = refusal(hls.url("master.m3u8"), errors.SourceRefused)
    assert "leads to http://192.0.2.1/a.m3u8" in text
    assert "add '192.0.2.1' to sources.hosts" in text
    assert [path for path, _, _ in hls.asked] == ["/master.m3u8"]


@pytest.mark.parametrize(
    "text",
    ['#EXT-X-MEDIA:TYPE=VIDEO,GROUP-ID="v",NAME="a",DEFAULT=YES,URI="list.m3u8"\n', "#EXT-X-ENDLIST\n", ""],
    ids=["alternatives alone", "no segment", "nothing"],
)
def test_a_playlist_that_names_nothing_to_play_is_told_as_such(text: str, hls: HttpServer) -> None:
    (hls.folder / "list.m3u8").write_text(f"#EXTM3U\n{text}")
    said = refusal(hls.url("list.m3u8"), errors.SourceNoVideo)
    assert "names no segment (#EXTINF) and no stream (#EXT-X-STREAM-INF)" in said


def test_a_playlist_may_not_name_another_host(hls: HttpServer, http_servers: Servers) -> None:
    other = http_servers()
    elsewhere = f"http://localhost:{other.server_port}/part0.ts"
    write_playlist(hls, f"#EXTINF:0.5,\n{elsewhere}\n")
    assert "must stay on its host" in refusal(hls.url("list.m3u8"), errors.SourceRefused)
    both = Reach(hosts=("127.0.0.1", "localhost"))
    assert "private_redirects" in refusal(hls.url("list.m3u8"), errors.SourceRefused, reach=both)
    assert other.asked == []
    allowed = Reach(hosts=("127.0.0.1", "localhost"), private_redirects=True)
    assert len(packets(hls.url("list.m3u8"), reach=allowed)) == GOP


def test_redirects_on_the_same_host_are_followed_and_others_are_not(film: HttpServer) -> None:
    film.redirects = {
        "/moved": "/clip.mp4",
        "/away": f"http://localhost:{film.server_port}/clip.mp4",
        "/file": "file:///etc/hostname",
        "/loop": "/loop",
    }
    check_film(packets(film.url("moved")))
    assert "must stay on its host" in refusal(film.url("away"), errors.SourceRefused)
    assert "may only name http" in refusal(film.url("file"), errors.SourceRefused)
    assert "redirects more than 5 times" in refusal(film.url("loop"), errors.SourceRefused)


def test_a_password_is_sent_to_its_server_and_shown_to_nobody(film: HttpServer) -> None:
    film.login = f"u:{SECRET}"
    url = film.url(f"clip.mp4?key={SECRET}", user=f"u:{SECRET}")
    with opened(url) as source:
        check_film(list(source))
        assert SECRET not in repr(source)
    assert all(login for _, login, _ in film.asked)
    assert "check user and password" in refusal(film.url("clip.mp4", user="u:wrong"), errors.SourceAuth)
    assert "401" in refusal(film.url(f"clip.mp4?key={SECRET}"), errors.SourceAuth)


def test_what_the_server_answers_tells_the_error(film: HttpServer) -> None:
    film.statuses = {"/gone": 410, "/forbidden": 403, "/broken": 503}
    (film.folder / "text.mp4").write_text("This is no film.\n" * 99)
    assert "404" in refusal(film.url("none.mp4"), errors.SourceNotFound)
    assert "410" in refusal(film.url("gone"), errors.SourceNotFound)
    assert "403" in refusal(film.url("forbidden"), errors.SourceAuth)
    assert "503" in refusal(film.url("broken"), errors.SourceRefused)
    refusal(film.url("text.mp4"), errors.SourceCorrupt)


def test_a_body_that_breaks_off_is_an_error_after_what_did_arrive(film: HttpServer, tmp_path: Path) -> None:
    write_clip(film.folder / "clip.ts", pictures(), rate=RATE, gop=GOP)
    film.cut = {"/clip.ts"}
    found: list[Packet] = []
    with (
        opened(film.url("clip.ts")) as source,
        pytest.raises(errors.SourceEnded, match=r"after \d+ of \d+ bytes"),
    ):
        found.extend(source)
    assert 0 < len(found) < PICTURES


def test_a_missing_segment_costs_itself_only(hls: HttpServer) -> None:
    hls.statuses = {"/part1.ts": 404}
    assert len(packets(hls.url("list.m3u8"))) == PICTURES - GOP


def test_stop_ends_a_wait_for_a_silent_server(film: HttpServer) -> None:
    film.silent = {"/clip.mp4"}
    stop = threading.Event()
    caught: list[BaseException] = []

    def read() -> None:
        try:
            open_source(settings(film.url("clip.mp4"), open_timeout_s=30.0), stop=stop)
        except errors.SourceError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    stop.set()
    reader.join(5)
    assert not reader.is_alive()
    assert len(caught) == 1


def test_https_is_verified_against_the_given_authority(
    http_servers: Servers, clip: Path, certificate: Any
) -> None:
    server = http_servers(tls=True)
    (server.folder / "clip.mp4").write_bytes(clip.read_bytes())
    check_film(packets(server.url("clip.mp4"), tls_ca=str(certificate.certificate)))
    check_film(packets(server.url("clip.mp4"), tls_verify=False))
    assert "TLS failed" in refusal(server.url("clip.mp4"), errors.SourceTls)


def test_nothing_of_all_this_is_written_to_stderr(hls: HttpServer, capfd: pytest.CaptureFixture[str]) -> None:
    write_playlist(hls, "#EXTINF:0.5,\nfile:///etc/hostname\n" * 3)
    refusal(hls.url("list.m3u8"), errors.SourceRefused)
    refusal("rtsp://127.0.0.1:1/a", errors.SourceRefused)
    assert capfd.readouterr() == ("", "")
