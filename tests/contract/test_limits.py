"""What a source may ask for: bombs end in a typed error, in bounded time and memory; honest files pass."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import errors
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.limits import Limits
from tests.contract.test_source import (
    PICTURES,
    RATE,
    make_clip,
    opened,
    packets,
    pictures,
    refusal,
    remux,
)
from tests.contract.test_source_http import clip, hls, write_playlist  # noqa: F401 fixtures
from tests.fixtures import bombs
from tests.fixtures.http import HttpServer

MEGABYTES = 80
SECONDS = 10
_READ = """
import json, resource, sys, threading, time
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from pipeline.backends.registry import open_decoder, open_source
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.errors import FramewardenError
def megabytes():  # the most so far; getrusage would tell the parent's
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, began, error = megabytes(), time.monotonic(), None
try:
    with open_source(SourceSettings(sys.argv[1], "file"), stop=threading.Event()) as source:
        decoder = open_decoder(source.info)
        for packet in source:
            decoder.still(packet)
except FramewardenError as caught:
    error = caught
print(json.dumps([type(error).__name__, str(error), megabytes() - before, time.monotonic() - began]))
"""


def read_alone(path: Path) -> tuple[str, str, float, float]:
    """Read and decode ``path`` in a process of its own: error class, text, megabytes and seconds."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    name, text, megabytes, seconds = json.loads(done.stdout)
    return name, text, megabytes, seconds


BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a 16k picture": (lambda f: bombs.png_bomb(f / "a.mov", 16000, 16000), "limits.picture_pixels"),
    "a 16k picture that says 64": (lambda f: bombs.png_bomb(f / "a.mov", 16000, 64), "limits.picture_pixels"),
    "the same in AVI": (lambda f: bombs.png_bomb(f / "a.avi", 16000, 64), "limits.picture_pixels"),
    "a picture beyond FFmpeg's own bound": (lambda f: bombs.png_bomb(f / "a.mov", 16384, 64), "damaged"),
    "10,000 tracks": (lambda f: bombs.many_tracks(f / "a.mp4", 10_000), "limits.tracks"),
    "6 GB of index in 4 kB": (lambda f: bombs.many_samples(f / "a.mp4", 8, 20_000_000), "limits.samples"),
    "as many in fragments": (lambda f: bombs.many_in_fragments(f / "a.mp4", 8, 20_000_000), "limits.samples"),
    "a compressed index": (lambda f: bombs.compressed_index(f / "a.mov", 300_000_000), "cmov"),
    "two million boxes": (lambda f: bombs.many_boxes(f / "a.mp4", 2_000_000), "boxes"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_a_typed_error_in_bounded_time_and_memory(name: str, tmp_path: Path) -> None:
    make, wanted = BOMBS[name]
    path = make(tmp_path)
    assert path.stat().st_size < 17_000_000
    kind, text, megabytes, seconds = read_alone(path)
    assert kind in ("SourceUnsupported", "DecodeError"), text
    assert wanted in text
    assert megabytes < MEGABYTES
    assert seconds < SECONDS


def test_the_measure_of_memory_can_fail(tmp_path: Path) -> None:
    """An honest picture of 4000 x 4000 costs what it costs: 48 MB."""
    kind, _, megabytes, _ = read_alone(bombs.png_bomb(tmp_path / "a.mov", 4000, 4000))
    assert kind == "NoneType"
    assert megabytes > 30


def test_a_bomb_from_a_server_is_refused_too(http_server: HttpServer) -> None:
    bombs.many_samples(http_server.folder / "many.mp4", 8, 20_000_000)
    bombs.png_bomb(http_server.folder / "large.mov", 16000, 64)
    text = refusal(http_server.url("many.mp4"), errors.SourceUnsupported)
    assert "limits.samples" in text
    text = refusal(http_server.url("large.mov"), errors.SourceUnsupported)
    assert "limits.picture_pixels" in text


def test_a_tracks_limit_holds_for_every_container(tmp_path: Path) -> None:
    for suffix in ("mkv", "ts"):
        path = tmp_path / f"many.{suffix}"
        with av.open(str(path), "w") as output:
            streams = [output.add_stream("libx264", rate=RATE) for _ in range(6)]
            for stream in streams:
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                output.mux([*stream.encode(frame), *stream.encode(None)])
        assert packets(path)
        with contextlib.suppress(errors.SourceUnsupported), opened(path, limits=Limits(tracks=5)) as source:
            assert len(source._opened.container.streams) <= 5


def test_a_picture_may_be_as_large_as_the_limit_and_no_larger(clip: Path) -> None:  # noqa: F811
    assert len(packets(clip, limits=Limits(picture_pixels=128 * 96))) == PICTURES
    text = refusal(clip, errors.SourceUnsupported, limits=Limits(picture_pixels=128 * 96 - 1))
    assert text == f"{clip}: pictures of 128x96; limits.picture_pixels allows {128 * 96 - 1}"


def test_the_decoder_keeps_the_limit_when_the_stream_grows(tmp_path: Path) -> None:
    """The second half of an MPEG-TS is larger than its start said."""
    from pipeline.backends.registry import open_decoder

    small = write_clip(tmp_path / "small.ts", pictures(), rate=RATE, gop=15)
    large = write_clip(tmp_path / "large.ts", [np.zeros((480, 640, 3), np.uint8)] * 15, rate=RATE, gop=15)
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with opened(both, limits=Limits(picture_pixels=128 * 96 + 100)) as source:
        decoder = open_decoder(source.info)
        widths: list[int] = []
        refused = 0
        for packet in source:
            if packet.keyframe:
                try:
                    found = decoder.still(packet)
                except errors.DecodeError:
                    refused += 1
                else:
                    widths += [found.width] if found else []
    assert set(widths) == {128}
    assert refused


def test_too_many_pictures_a_second_are_refused(clip: Path) -> None:  # noqa: F811
    assert len(packets(clip, limits=Limits(frame_rate=RATE))) == PICTURES
    assert "limits.frame_rate" in refusal(clip, errors.SourceUnsupported, limits=Limits(frame_rate=RATE - 1))


def test_a_picture_of_too_many_bytes_is_refused(clip: Path) -> None:  # noqa: F811
    assert "limits.packet_bytes" in refusal(clip, errors.SourceUnsupported, limits=Limits(packet_bytes=100))


def test_an_index_of_too_many_bytes_is_refused(clip: Path) -> None:  # noqa: F811
    assert "limits.index_bytes" in refusal(clip, errors.SourceUnsupported, limits=Limits(index_bytes=200))


def test_plain_sound_is_no_bomb_though_each_tick_is_a_sample(tmp_path: Path) -> None:
    """Two seconds of PCM are 16,000 samples of the MOV file, which FFmpeg indexes by chunk."""
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux([*sound.encode(frame), *sound.encode(None)])
        for picture in pictures(10):
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode(None))
    assert len(packets(path, limits=Limits(samples=1000))) == 10


def test_the_samples_limit_counts_every_picture_of_an_honest_file(clip: Path) -> None:  # noqa: F811
    assert len(packets(clip, limits=Limits(samples=PICTURES))) == PICTURES
    text = refusal(clip, errors.SourceUnsupported, limits=Limits(samples=PICTURES - 1))
    assert "limits.samples" in text


def test_an_honest_fragmented_file_passes(clip: Path, tmp_path: Path) -> None:  # noqa: F811
    path = remux(clip, tmp_path / "parts.mp4", movflags="frag_keyframe+empty_moov")
    assert path.read_bytes().count(b"moof") == 3
    assert len(packets(path)) == PICTURES


def test_no_more_is_read_ahead_than_the_limit(tmp_path: Path) -> None:
    """A stream that was joined long before a keyframe says its size late: all before it is read for that."""
    long = write_clip(tmp_path / "long.ts", pictures(90), rate=RATE, gop=90, options={"bf": "0"}).read_bytes()
    tables, rest = long[: 3 * 188], long[len(long) // 2 // 188 * 188 :]
    path = tmp_path / "joined.ts"
    path.write_bytes(tables + rest * 5 + make_clip(tmp_path / "clip.ts").read_bytes())

    def read_for_opening(limits: Limits) -> int:
        before = bytes_read()
        with opened(path, limits=limits):
            return bytes_read() - before

    assert read_for_opening(Limits()) - read_for_opening(Limits(probe_bytes=4096)) > 200_000


def bytes_read() -> int:
    """All that this process has read from files so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_local_file_that_is_read_too_slowly_is_given_up(tmp_path: Path) -> None:
    """A hole of 3 GB in a Matroska film, which FFmpeg searches byte by byte."""
    path = make_clip(tmp_path / "clip.mkv")
    with path.open("r+b") as file:
        data = file.read()
        file.seek(data.index(bytes.fromhex("1f43b675")) + 400)
        file.truncate()
        file.seek(3 << 30)
        file.write(data)
    began = time.monotonic()
    refusal(path, errors.SourceTimeout, limits=Limits(open_s=0.5))
    assert time.monotonic() - began < SECONDS


def test_a_local_file_that_is_read_too_slowly_behind_its_first_pictures_is_given_up(tmp_path: Path) -> None:
    """The same hole, where the film has long been opened."""
    path = make_clip(tmp_path / "clip.mkv", pictures(450))
    with path.open("r+b") as file:
        data = file.read()
        at = data.rindex(bytes.fromhex("1f43b675")) + 400
        file.seek(at)
        file.truncate()
        file.seek(3 << 30)
        file.write(data[at:])
    began = time.monotonic()
    with opened(path, limits=Limits(open_s=0.5)) as source, pytest.raises(errors.SourceTimeout):
        list(source)
    assert time.monotonic() - began < SECONDS


# Over HTTP


def test_a_playlist_of_playlists_is_read_to_depth_2_and_no_further(hls: HttpServer) -> None:  # noqa: F811
    (hls.folder / "master.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=90000\nlist.m3u8\n")
    (hls.folder / "third.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=90000\nmaster.m3u8\n")
    assert len(packets(hls.url("master.m3u8"))) == PICTURES
    text = refusal(hls.url("master.m3u8"), errors.SourceUnsupported, limits=Limits(playlist_depth=1))
    assert "limits.playlist_depth" in text
    hls.asked.clear()
    assert "limits.playlist_depth" in refusal(hls.url("third.m3u8"), errors.SourceUnsupported)
    assert [path for path, _, _ in hls.asked] == ["/third.m3u8", "/master.m3u8"]


def test_too_many_playlists_are_refused(hls: HttpServer) -> None:  # noqa: F811
    text = (hls.folder / "list.m3u8").read_text()
    entries = ""
    for number in range(5):
        (hls.folder / f"v{number}.m3u8").write_text(text)
        entries += f"#EXT-X-STREAM-INF:BANDWIDTH={number + 1}0000\nv{number}.m3u8\n"
    (hls.folder / "master.m3u8").write_text("#EXTM3U\n" + entries)
    assert packets(hls.url("master.m3u8"))
    shown = refusal(hls.url("master.m3u8"), errors.SourceUnsupported, limits=Limits(playlists=4))
    assert "limits.playlists" in shown


def test_an_endless_playlist_is_cut_off(hls: HttpServer) -> None:  # noqa: F811
    write_playlist(hls, "#EXTINF:0.5,\npart0.ts\n" * 20_000)
    shown = refusal(hls.url("list.m3u8"), errors.SourceUnsupported, limits=Limits(playlist_bytes=100_000))
    assert "limits.playlist_bytes" in shown


def test_a_playlist_that_announces_endless_segments_is_not_waited_for(hls: HttpServer) -> None:  # noqa: F811
    """Three segments' time is waited for the next one: here more than eight hours."""
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9999\n#EXT-X-MEDIA-SEQUENCE:0\n"
    (hls.folder / "list.m3u8").write_text(f"{head}#EXTINF:0.5,\npart0.ts\n")
    limits = Limits(open_s=1.0)
    text = refusal(hls.url("list.m3u8"), errors.SourceTimeout, kind="live", read_timeout_s=0.5, limits=limits)
    assert "within 1 s" in text


def test_redirects_end_where_the_limit_says(http_server: HttpServer) -> None:
    make_clip(http_server.folder / "clip.mp4")
    http_server.redirects = {"/a": "/b", "/b": "/clip.mp4"}
    assert len(packets(http_server.url("a"), limits=Limits(redirects=2))) == PICTURES
    text = refusal(http_server.url("a"), errors.SourceRefused, limits=Limits(redirects=1))
    assert "redirects more than 1 times" in text
