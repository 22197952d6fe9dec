"""The config's ``limits`` and ``tls``: what they default to, what they refuse, and that they arrive."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline import config
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.limits import Limits

DOCS = Path(__file__).parents[1] / "docs" / "security.md"


def load(folder: Path, text: str) -> Config:
    path = folder / "fw.yaml"
    path.write_text(text)
    return config.load(path, {})


def mistake(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).removeprefix(f"{folder / 'fw.yaml'}:")


def streams(keys: str, url: str = "rtsps://cam.example/a") -> str:
    return f"streams:\n  - {{id: a, url: {url}{', ' + keys if keys else ''}}}\n"


def test_limits_have_the_defaults_of_the_code(tmp_path: Path) -> None:
    found = load(tmp_path, streams(""))
    assert found.source_limits() == Limits()
    assert found.limits.streams == 4096


def test_the_page_on_security_names_every_limit_with_its_default(tmp_path: Path) -> None:
    """As rows ``| `key`, `key` | default, default (in other words) | bounds |``."""
    rows = re.findall(r"^ *\| (`[a-z_]+`.*?) \| ([\d, ]+).*?\|", DOCS.read_text(), re.MULTILINE)
    said: dict[str, int] = {}
    for keys, values in rows:
        said |= dict(zip(re.findall(r"\w+", keys), map(int, values.split(",")), strict=True))
    assert said == {**asdict(Limits()), "streams": load(tmp_path, streams("")).limits.streams}


def test_every_limit_can_be_set_and_arrives(tmp_path: Path) -> None:
    wanted = Limits(5000, 30, 5000, 1, 3, 5, 5000, 5000, 1, 6, 5000, 0)
    keys = "".join(f"  {name}: {value}\n" for name, value in asdict(wanted).items())
    assert load(tmp_path, f"limits:\n{keys}{streams('')}").source_limits() == wanted


def test_a_limit_out_of_range_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    text = mistake(tmp_path, f"limits:\n  playlist_depth: 3\n{streams('')}")
    assert text == "2: limits.playlist_depth: 3: a number of at most 2"
    assert "did you mean tracks?" in mistake(tmp_path, f"limits: {{track: 3}}\n{streams('')}")


def test_more_streams_than_the_limit_are_refused(tmp_path: Path) -> None:
    text = "limits: {streams: 1}\n" + streams("") + "  - {id: b, url: b.mp4}\n"
    assert "at most 1 of them (limits.streams)" in mistake(tmp_path, text)


def test_a_streams_own_authority_is_found_beside_the_config(tmp_path: Path) -> None:
    found = load(tmp_path, streams("tls: {ca: ca.pem}")).streams[0].tls
    assert (found.ca, found.verify) == (tmp_path / "ca.pem", True)
    assert load(tmp_path, streams("tls: {verify: false}")).streams[0].tls.verify is False
    assert load(tmp_path, streams("")).streams[0].tls.ca is None


def test_tls_where_there_is_none_is_a_mistake(tmp_path: Path) -> None:
    text = mistake(tmp_path, streams("tls: {verify: false}", url="rtsp://cam.example/a"))
    assert "only rtsps, rtmps, https streams speak TLS, not rtsp" in text
    assert "tls.verify" in mistake(tmp_path, streams("tls: {ca: ca.pem, verify: false}"))
