"""Credentials out of every text that a person, a log or an event may see.

What is hidden: user info, the values of a query, a fragment, and the stream key of RTMP (the last part of the
path, which is a password in all but name). Host, port and the rest of the path stay, so that a message still
says which source it is about.
"""

import re

HIDDEN = "***"

_SCHEME = re.compile(r"(?i)^(?P<scheme>[a-z][a-z0-9+.\-]*)://(?P<rest>.*)$", re.DOTALL)
_HOST = re.compile(r"^(?:[\w.\-,%]*|\[[0-9a-fA-F:.%]*\])(?::\d*)?(?:,[\w.\-:]*)*$")
# A URL in a text ends at white space or a bracket, or where a list in quotes goes on with the next URL.
_IN_TEXT = re.compile(r"(?i)\b[a-z][a-z0-9+.\-]*://(?:(?!['\"`,;]+\s*[a-z][a-z0-9+.\-]*://)[^\s\"<>`])+")
_TRAILING = "'.,;:!)]}"


def mask_url(url: str) -> str:
    """``url`` without its credentials: ``rtsp://user:pw@host/a?key=1`` → ``rtsp://***@host/a?key=***``.

    A text that is no URL (a path, a Windows drive) and ``file://`` come back unchanged."""
    found = _SCHEME.match(url)
    if found is None or found["scheme"].lower() == "file":
        return url
    scheme, rest = found["scheme"], found["rest"]
    authority, path, query = _split(rest)
    if scheme.lower().startswith("rtmp"):
        path = _without_key(path)
    return f"{scheme}://{authority}{path}{query}"


def mask_text(text: str) -> str:
    """``text`` with every URL in it masked."""
    return _IN_TEXT.sub(_mask_match, text)


def _mask_match(found: re.Match[str]) -> str:
    url = found[0]
    bare = url.rstrip(_TRAILING)
    return mask_url(bare) + url[len(bare) :]


def _split(rest: str) -> tuple[str, str, str]:
    """Authority, path and query-with-fragment, the first and the last already masked."""
    end = min((at for at in (rest.find(mark) for mark in "/?#") if at >= 0), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    if "@" in authority:
        authority = f"{HIDDEN}@{authority.rpartition('@')[2]}"
    elif "@" in tail and not _HOST.match(authority):
        # What stands before the first slash is no host, so a password with a raw "/", "?" or "#" was cut in
        # two.
        end = rest.rfind("@") + 1
        host, path, query = _split(rest[end:])
        return f"{HIDDEN}@{host}", path, query
    path, mark, query = _cut(tail)
    return authority, path, mark + _hide_query(query) if mark == "?" else mark + HIDDEN if mark else ""


def _cut(tail: str) -> tuple[str, str, str]:
    """The path, then ``?`` or ``#`` (or nothing), then what follows it."""
    at = min((at for at in (tail.find(mark) for mark in "?#") if at >= 0), default=len(tail))
    return tail[:at], tail[at : at + 1], tail[at + 1 :]


def _hide_query(query: str) -> str:
    """The names of a query with hidden values; a part without a name is hidden whole."""
    query, hash_mark, _ = query.partition("#")
    parts = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        parts.append(f"{name}={HIDDEN}" if equals else HIDDEN if part else "")
    return "&".join(parts) + (f"#{HIDDEN}" if hash_mark else "")


def _without_key(path: str) -> str:
    head, slash, key = path.rstrip("/").rpartition("/")
    return f"{head}{slash}{HIDDEN}" if key else path
