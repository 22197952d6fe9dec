"""The types of single config values: what a number, a name or a URL has to look like."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.config_file import did_you_mean

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt")
SCHEMES = (*LIVE_SCHEMES, "http", "https", "file")
REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "redis+cluster")
URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _not_a_switch(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would read true as 1
        raise ValueError("a number, not true or false")  # noqa: TRY004 pydantic collects ValueErrors
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("letters, digits, dots, dashes and underscores, at most 128")
    return value


def _stream_id(value: str) -> str:
    if not value or not value.isprintable() or len(value.encode()) > 4096:
        raise ValueError("printable text, not empty, at most 4096 bytes")
    return value


def _url_of(schemes: tuple[str, ...], value: str) -> str:
    match = URL.fullmatch(value)
    if match is None:
        return value
    scheme = match["scheme"].lower()
    if scheme not in schemes:
        raise ValueError(f"a URL that starts with one of {', '.join(schemes)}{did_you_mean(scheme, schemes)}")
    try:
        parts = urlsplit(value if "+" not in scheme else f"{scheme}://one-of-many")
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        text = "a URL with a whole number of 0 to 65535 as its port; percent-encode / ? # [ ] @ in passwords"
        raise ValueError(text) from error
    if scheme == "file" and host not in (None, "localhost"):
        raise ValueError("a file URL has three slashes: file:///folder/film.mp4")
    if scheme != "file" and not host:
        raise ValueError("a URL with a host: " + scheme + "://host/path")
    return value


def _source(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("a file, a folder, a glob or a URL")
    return _url_of(SCHEMES, value)


def _redis_url(value: str) -> str:
    if not URL.fullmatch(value):
        raise ValueError(f"a URL that starts with one of {', '.join(REDIS_SCHEMES)}, as redis://host:6379/0")
    return _url_of(REDIS_SCHEMES, value)


Number = Annotated[float, BeforeValidator(_not_a_switch)]
Whole = Annotated[int, BeforeValidator(_not_a_switch)]
Share = Annotated[Number, Field(ge=0, le=1)]
Seconds = Annotated[Number, Field(ge=0)]
Name = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(_name)]
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
StreamId = Annotated[Text, AfterValidator(_stream_id)]
SourceUrl = Annotated[str, AfterValidator(_source)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
Models = Annotated[
    tuple[str, ...], BeforeValidator(_several, json_schema_input_type=str | list[str]), Field(min_length=1)
]
