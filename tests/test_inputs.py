"""Which files an input names, and which of them may be opened."""

import os
from pathlib import Path

import pytest

from pipeline import inputs
from pipeline.errors import SourceNotFound, SourceNoVideo, SourceRefused, SourceUnsupported
from pipeline.inputs import Reach, Watch, expand


def touch(folder: Path, *names: str) -> list[Path]:
    made = [folder / name for name in names]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return made


def test_a_file_is_itself_whatever_it_is_called(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "clip.dat")
    assert expand(str(path)) == [path]
    assert expand(f"file://{path}") == [path]
    assert expand(f"file://localhost{path}") == [path]


def test_a_file_url_is_percent_decoded(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "two words.mp4")
    assert expand(f"file://{tmp_path}/two%20words.mp4") == [path]


def test_a_folder_gives_its_videos_at_any_depth_in_order(tmp_path: Path) -> None:
    videos = touch(tmp_path, "a.mp4", "b/c.MKV", "b/d/e.ts")
    touch(tmp_path, "notes.txt", ".hidden.mp4", ".cache/f.mp4")
    assert expand(str(tmp_path)) == videos


def test_a_glob_gives_what_matches_in_order(tmp_path: Path) -> None:
    a, b, _ = touch(tmp_path, "a.mp4", "b.mp4", "c.mov")
    assert expand(f"{tmp_path}/*.mp4") == [a, b]
    assert expand(f"file://{tmp_path}/[ab].mp4") == [a, b]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "take[1].mp4")
    assert not inputs.is_glob(str(path))
    assert expand(str(path)) == [path]


def test_a_folder_without_video_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(SourceNoVideo, match=r"holds no video: looked for \.mp4"):
        expand(str(tmp_path))


def test_what_does_not_exist_names_the_part_that_does(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no such file or folder"):
        expand(str(tmp_path / "a.mp4"))
    with pytest.raises(SourceNotFound, match=f"{tmp_path} exists"):
        expand(str(tmp_path / "uploads" / "a.mp4"))
    with pytest.raises(SourceNotFound, match="no file matches"):
        expand(f"{tmp_path}/*.mp4")


def test_urls_files_and_globs_are_told_apart(tmp_path: Path) -> None:
    assert inputs.is_remote("rtsp://host/a")
    assert inputs.is_url("file:///a")
    assert not inputs.is_remote("file:///a")
    assert not inputs.is_url("clips/a.mp4")
    assert not inputs.is_url("C:/a.mp4")
    assert inputs.is_many(str(tmp_path))
    assert inputs.is_many("clips/*.mp4")
    assert not inputs.is_many("https://host/a*.mp4")
    with pytest.raises(SourceUnsupported, match=r"rtsp://\*\*\*@host"):
        expand("rtsp://user:secret@host/a")


def test_a_broken_url_names_the_cure_and_not_the_password() -> None:
    with pytest.raises(SourceUnsupported, match="%2F") as caught:
        inputs.split_url("rtsp://user:sec/ret@host/a")
    assert "sec" not in str(caught.value).replace("secure", "")


def test_a_file_outside_the_allowed_folders_is_refused_even_through_a_link(tmp_path: Path) -> None:
    inside, outside = touch(tmp_path, "in/a.mp4", "out/b.mp4")
    link = tmp_path / "in" / "link.mp4"
    link.symlink_to(outside)
    reach = Reach(folders=(tmp_path / "in",))
    assert expand(str(inside), reach) == [inside]
    for path in (outside, link, tmp_path / "in" / ".." / "out" / "b.mp4"):
        with pytest.raises(SourceRefused, match=r"sources\.folders"):
            expand(str(path), reach)


def test_schemes_and_hosts_are_refused_by_name() -> None:
    reach = Reach(schemes=("rtsp", "https"), hosts=("*.cams.example",))
    reach.admit("rtsp://u:p@a.Cams.example/1")
    with pytest.raises(SourceRefused, match=r"'rtmp' is not in sources\.schemes \(rtsp, https\)"):
        reach.admit("rtmp://a.cams.example/live/key")
    with pytest.raises(SourceRefused, match=r"'cams.example' is not in sources\.hosts"):
        reach.admit("rtsp://cams.example/1")
    with pytest.raises(SourceRefused, match=r"'file' is not in sources\.schemes"):
        reach.admit_path(Path("/data/a.mp4"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "rtsp://h.example/a", "http://other.example/a"])
def test_a_playlist_may_not_lead_away_from_its_host(url: str) -> None:
    with pytest.raises(SourceRefused, match="playlist or redirect"):
        Reach().admit_next("http://h.example/a.m3u8", url)


def test_a_playlist_may_lead_to_its_host_and_to_listed_hosts() -> None:
    Reach().admit_next("http://h.example/a.m3u8", "https://h.example:8443/b.ts")
    reach = Reach(hosts=("h.example", "*.cdn.example"))
    reach.admit_next("http://h.example/a.m3u8", "https://1.cdn.example/b.ts")
    reach.admit_address("http://h.example/a.m3u8", "https://1.cdn.example/b.ts", "8.8.8.8")


PRIVATE = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_another_host_at_a_private_address_needs_permission(address: str) -> None:
    first, other = "http://h.example/a.m3u8", "http://1.cdn.example/b.ts"
    with pytest.raises(SourceRefused, match="private_redirects"):
        Reach().admit_address(first, other, address)
    Reach().admit_address(first, "http://h.example/b.ts", address)
    Reach(private_redirects=True).admit_address(first, other, address)


def test_a_watched_file_is_given_once_after_it_stopped_growing(tmp_path: Path) -> None:
    watch = Watch(str(tmp_path))
    assert watch.poll(0.0) == []
    (path,) = touch(tmp_path, "a.mp4")
    assert watch.poll(1.0) == []
    path.write_bytes(b"longer")
    assert watch.poll(2.5) == []  # it grew: the two seconds start again
    assert watch.poll(4.4) == []
    assert watch.poll(4.5) == [path]
    assert watch.poll(9.0) == []


def test_a_file_that_is_replaced_is_given_again(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "a.mp4")
    watch = Watch(f"{tmp_path}/*.mp4")
    watch.poll(0.0)
    assert watch.poll(2.0) == [path]
    path.write_bytes(b"another one")
    assert watch.poll(3.0) == []
    assert watch.poll(5.0) == [path]


def test_a_file_that_was_finished_long_ago_is_given_at_once(tmp_path: Path) -> None:
    old, new = touch(tmp_path, "new.mp4", "old.mp4")[::-1]
    os.utime(old, (1000.0, 1000.0))
    os.utime(new, (1999.5, 1999.5))
    watch = Watch(str(tmp_path))
    assert watch.poll(50.0, wall=2000.0) == [old]
    assert watch.poll(51.5, wall=2001.5) == [new]


def test_a_watched_file_outside_the_reach_is_never_given(tmp_path: Path) -> None:
    (outside,) = touch(tmp_path, "out/b.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.mp4").symlink_to(outside)
    watch = Watch(str(tmp_path / "in"), Reach(folders=(tmp_path / "in",)))
    assert [watch.poll(now) for now in (0.0, 3.0)] == [[], []]


def test_a_watched_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no such folder to watch"):
        Watch(str(tmp_path / "uploads")).poll(0.0)
