"""What every source promises, on real files and real servers."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import pytest

from pipeline import errors
from pipeline.backends.encode_ffmpeg import Rgb, write_clip
from pipeline.backends.ffmpeg_errors import map_errors
from pipeline.backends.http_socket import Deadline
from pipeline.backends.source_ffmpeg import FfmpegSource, SourceSettings, open_source, probe_protocols
from pipeline.flow.source import Packet
from pipeline.inputs import Reach
from pipeline.limits import Limits

SECRET = "s3cret-w0rd"
PICTURES, RATE, GOP = 45, 30, 15


def pictures(count: int = PICTURES) -> Iterator[Rgb]:
    """Small pictures with some detail, no two alike."""
    noise = np.random.default_rng(7).integers(0, 255, (96, 128, 3), np.uint8)
    for n in range(count):
        yield np.roll(noise, n, axis=1)


def make_clip(path: Path, some: Iterable[Rgb] | None = None) -> Path:
    """1.5 s of H.264 without B-pictures, a keyframe every half second."""
    return write_clip(path, pictures() if some is None else some, rate=RATE, gop=GOP, options={"bf": "0"})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("source") / "clip.mp4")


def settings(url: str | Path, **changes: Any) -> SourceSettings:
    values: dict[str, Any] = {"kind": "file", "open_timeout_s": 4.0, "read_timeout_s": 4.0}
    return SourceSettings(str(url), **(values | changes))


def opened(url: str | Path, **changes: Any) -> FfmpegSource:
    return open_source(settings(url, **changes), stop=threading.Event())


def packets(url: str | Path, **changes: Any) -> list[Packet]:
    with opened(url, **changes) as source:
        return list(source)


def refusal(url: str | Path, wanted: type[errors.SourceError], **changes: Any) -> str:
    """The text of the error that reading ``url`` ends in: exactly of ``wanted``, one line, no secret."""
    with pytest.raises(errors.SourceError) as caught:
        packets(url, **changes)
    assert type(caught.value) is wanted, repr(caught.value)
    assert SECRET not in repr(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_film(found: list[Packet]) -> None:
    """``found`` is the whole of ``clip``: from 0, at its rate, with its keyframes."""
    assert [packet.time_s for packet in found] == pytest.approx([n / RATE for n in range(PICTURES)], abs=1e-3)
    assert [n for n, packet in enumerate(found) if packet.keyframe] == list(range(0, PICTURES, GOP))
    assert all(packet.size == packet.data.size > 0 for packet in found)


def remux(source: Path, target: Path, *, first: int = 0, **options: str) -> Path:
    """Copy a film's packets, time moved to start at ``first`` ticks of 1/90000 s."""
    with av.open(source) as reader, av.open(target, "w", container_options=options) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                ticks = int(first / 90_000 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, copy
                writer.mux(packet)
    return target


# Files


def test_a_file_gives_every_packet_on_a_timeline_from_0(clip: Path) -> None:
    with opened(clip) as source:
        found = list(source)
        info = source.info
    check_film(found)
    assert (info.codec, info.width, info.height, info.rotation) == ("h264", 128, 96, 0)
    assert (info.frame_rate, info.duration_s, info.has_index) == (Fraction(RATE), 1.5, True)
    assert len({packet.pts for packet in found}) == PICTURES
    assert not any(packet.damaged or packet.parameters_changed for packet in found)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "avi", "flv", "mov"])
def test_time_starts_at_0_in_every_container(tmp_path: Path, suffix: str) -> None:
    """With B-pictures a container starts with presentation later than decoding."""
    path = write_clip(tmp_path / f"clip.{suffix}", pictures(), rate=RATE, gop=GOP)
    found = packets(path)
    assert found[0].time_s == 0.0
    assert sorted(packet.time_s for packet in found) == pytest.approx(
        [n / RATE for n in range(PICTURES)], abs=2e-3
    )


@pytest.mark.parametrize("first", [90_000 * 3600, 2**33 - 45_000])
def test_mpeg_ts_may_start_anywhere_and_wrap(clip: Path, tmp_path: Path, first: int) -> None:
    """After an hour, and half a second before the end of 33 bits."""
    found = packets(remux(clip, tmp_path / "clip.ts", first=first))
    check_film(found)
    assert abs(found[0].data.pts) > 40_000


def test_a_file_name_with_a_colon_is_a_file(clip: Path, tmp_path: Path) -> None:
    odd = tmp_path / "rtsp:odd?name#1.mp4"
    odd.write_bytes(clip.read_bytes())
    assert len(packets(odd)) == PICTURES


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_the_rotation_for_display_is_told(tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "portrait.mp4"
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.set_display_rotation(-degrees)
        for picture in pictures(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    with opened(path) as source:
        assert source.info.rotation == degrees


def test_seeking_goes_to_the_keyframe_before(clip: Path) -> None:
    with opened(clip) as source:
        source.seek(1.2)
        first = next(iter(source))
        assert first.keyframe
        assert first.time_s == pytest.approx(1.0)
        source.seek(0.7)
        rest = list(source)
        assert rest[0].time_s == pytest.approx(0.5)
        assert len(rest) == PICTURES - GOP


def test_a_container_without_an_index_is_not_sought(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.flv", pictures(), gop=GOP)
    with opened(path) as source, pytest.raises(errors.SourceUnsupported, match="cannot be sought"):
        source.seek(1.0)


def test_realtime_gives_packets_when_they_are_due(clip: Path) -> None:
    started = time.monotonic()
    found = packets(clip, kind="live", pace="realtime")
    assert 1.2 < time.monotonic() - started < 4  # 44 / 30 s, the last ones a little early
    check_film(found)
    assert [b.arrived - a.arrived for a, b in pairwise(found)] == pytest.approx([1 / RATE] * 44, abs=1e-6)


def test_stop_ends_a_paced_source_at_once(clip: Path) -> None:
    stop = threading.Event()
    with open_source(settings(clip, kind="live", pace="realtime"), stop=stop) as source:
        found = []
        for packet in source:
            found.append(packet)
            stop.set()
    assert len(found) == 1


def test_a_truncated_file_is_read_as_far_as_it_goes(clip: Path, tmp_path: Path) -> None:
    """The index says 45 pictures, the data end in the middle."""
    whole = remux(clip, tmp_path / "clip.mp4", movflags="faststart").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    with opened(cut) as source:
        found = list(source)
        assert source.info.duration_s == 1.5
    assert 5 < len(found) < PICTURES
    assert not any(packet.damaged for packet in found[:-1])


def test_a_lost_piece_marks_its_packet_as_damaged(clip: Path, tmp_path: Path) -> None:
    """MPEG-TS counts its pieces of 188 bytes; one of the middle is taken out."""
    whole = remux(clip, tmp_path / "clip.ts").read_bytes()
    middle = len(whole) // 188 // 2 * 188
    torn = tmp_path / "torn.ts"
    torn.write_bytes(whole[:middle] + whole[middle + 188 :])
    found = packets(torn)
    assert any(packet.damaged for packet in found)
    assert not found[0].damaged


def test_a_title_that_is_no_text_does_not_matter(clip: Path, tmp_path: Path) -> None:
    with av.open(clip) as reader, av.open(tmp_path / "title.mkv", "w") as writer:
        writer.metadata["title"] = "TITLE"
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                writer.mux(packet)
    data = (tmp_path / "title.mkv").read_bytes()
    assert b"TITLE" in data
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff.mkv"))
    odd.write_bytes(data.replace(b"TITLE", b"\xff\xfe\xfd\xfc\xfb"))
    check_film(packets(odd))
    text = refusal(odd.with_suffix(".none"), errors.SourceNotFound)
    assert text.encode().endswith(b"odd-\\udcff.none: no such file")


# Files that are none


def test_bad_files_are_told_apart_with_a_cure(clip: Path, tmp_path: Path) -> None:
    text, empty, no_moov = (tmp_path / name for name in ("text.mp4", "empty.mp4", "no_moov.mp4"))
    text.write_text("This is no film.\n" * 200)
    empty.touch()
    data = clip.read_bytes()
    no_moov.write_bytes(data[: data.index(b"moov") - 4])
    assert "is not a" in refusal(text, errors.SourceCorrupt)
    assert refusal(empty, errors.SourceCorrupt) == f"{empty}: is empty"
    assert "no moov atom" in refusal(no_moov, errors.SourceCorrupt)
    assert "no such file" in refusal(tmp_path / "none.mp4", errors.SourceNotFound)
    assert "is a folder" in refusal(tmp_path, errors.SourceUnsupported)


def test_a_file_with_sound_alone_holds_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as output:
        stream = output.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert "holds no video (found: audio)" in refusal(path, errors.SourceNoVideo)


def test_a_local_playlist_does_not_open_other_files(clip: Path, tmp_path: Path) -> None:
    hls = tmp_path / "list.m3u8"
    hls.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.5,\n{clip}\n#EXT-X-ENDLIST\n")
    concat = tmp_path / "list.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
    refusal(hls, errors.SourceUnsupported)
    refusal(concat, errors.SourceUnsupported)


def test_a_file_outside_the_allowed_folders_is_refused(clip: Path, tmp_path: Path) -> None:
    assert "sources.folders" in refusal(clip, errors.SourceRefused, reach=Reach(folders=(tmp_path,)))


# Schemes


def test_schemes_that_cannot_be_read_name_the_cure() -> None:
    if not probe_protocols()["srt"]:
        text = refusal(f"srt://host.invalid:9000?passphrase={SECRET}", errors.SourceUnsupported)
        assert "no SRT" in text
        assert "MediaMTX" in text
    assert "use one of rtsp" in refusal("gopher://host.invalid/a", errors.SourceUnsupported)


def test_the_protocols_of_this_build_are_told() -> None:
    found = probe_protocols()
    assert all(found[name] for name in ("file", "http", "https", "rtsp", "rtsps", "rtmp"))
    assert set(found) == {"file", "http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt"}


def heard() -> bool:
    """Whether a line of FFmpeg's would reach Python."""
    with av.logging.Capture() as lines:
        av.logging.log(av.logging.ERROR, "film", "something")
    return bool(lines)


def test_ffmpeg_tells_its_lines_only_while_somebody_opens(
    clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each line takes the interpreter's lock, and there are several a packet."""
    with opened(clip) as source:
        assert not heard()
        next(iter(source))
    with pytest.raises(errors.SourceError), opened(clip.with_name("none.mp4")):
        pass
    assert not heard()
    assert av.logging.get_level() == av.logging.INFO, "PyAV's callback fails without a level"
    assert capfd.readouterr().err == ""


def test_one_that_has_opened_does_not_silence_another_that_opens(clip: Path) -> None:
    deadline = Deadline(5.0, time.monotonic)
    with map_errors("film", deadline, remote=False, limits=Limits()):
        with opened(clip):
            pass
        assert heard()
