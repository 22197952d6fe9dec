"""No credential survives ``mask_url`` or ``mask_text``."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.masking import mask_text, mask_url

SECRET = st.text(st.characters(codec="ascii", categories=["Lu", "Ll", "Nd"]), min_size=4, max_size=12).map(
    "Zq".__add__
)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pw@host/app", "rtsp://***@host/app"),
        ("rtsp://user@host:554/app/", "rtsp://***@host:554/app/"),
        ("https://host/a/b.m3u8?token=abc&quality=1", "https://host/a/b.m3u8?token=***&quality=***"),
        ("https://host/a?abc", "https://host/a?***"),
        ("https://host/a#abc", "https://host/a#***"),
        ("https://host/a?b=c#abc", "https://host/a?b=***#***"),
        ("https://host?b=c", "https://host?b=***"),
        ("rtmp://host/live/key-1", "rtmp://host/live/***"),
        ("rtmps://u:p@host:443/live/key-1?auth=x", "rtmps://***@host:443/live/***?auth=***"),
        ("rtmp://host/key/", "rtmp://host/***"),
        ("rtsp://user:p@ss@host/app", "rtsp://***@host/app"),
        ("rtsp://user:p/ss@host/app", "rtsp://***@host/app"),
        ("rtsp://user:p?ss@host/app", "rtsp://***@host/app"),
        ("rtsp://user:p#ss@host/app", "rtsp://***@host/app"),
        ("rtsp://[::1]:554/app/@live", "rtsp://[::1]:554/app/@live"),
        ("redis+sentinel://:pw@h1:1,h2:2/service/0", "redis+sentinel://***@h1:1,h2:2/service/0"),
        ("RTSP://User:Pw@host", "RTSP://***@host"),
        ("/data/uploads/a?b=c.mp4", "/data/uploads/a?b=c.mp4"),
        ("file:///data/*.mp4?", "file:///data/*.mp4?"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_credentials(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open 'rtsp://u:p@h/a'.", "cannot open 'rtsp://***@h/a'."),
        (
            "rtsp://u:p@h/a: refused, tried http://h/?k=v, too",
            "rtsp://***@h/a: refused, tried http://h/?k=***, too",
        ),
        ("['rtsp://u:p@h/a','rtsp://v:q@h/b']", "['rtsp://***@h/a','rtsp://***@h/b']"),
        ("it's rtsp://u:it's@h/a", "it's rtsp://***@h/a"),
        ("no address in here: a/b", "no address in here: a/b"),
    ],
)
def test_every_url_in_a_text_is_masked(text: str, shown: str) -> None:
    assert mask_text(text) == shown


@settings(deadline=None)  # a busy machine is no failure
@given(SECRET, SECRET, st.sampled_from(["rtsp", "rtmp", "http", "rediss"]))
def test_no_password_and_no_query_value_survives(password: str, value: str, scheme: str) -> None:
    url = f"{scheme}://user:{password}@cam.example:99/x/y?key={value}"
    for text in (mask_url(url), mask_text(f"could not open {url}: refused")):
        assert password not in text
        assert value not in text
        assert "cam.example:99" in text


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=60))
def test_masking_a_text_twice_changes_nothing_more(text: str) -> None:
    once = mask_text(f"rtsp://{text} {text}")
    assert mask_text(once) == once
