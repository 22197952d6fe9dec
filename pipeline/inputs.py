"""What a user named as input: a URL, a file, a folder or a glob, and which of those may be opened."""

import fnmatch
import glob
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pipeline.errors import SourceError, SourceNotFound, SourceNoVideo, SourceRefused, SourceUnsupported
from pipeline.masking import mask_url

VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".ts", ".m2ts", ".mts", ".avi", ".flv", ".mpg", ".mpeg", ".wmv",
    ".3gp", ".ogv", ".mxf", ".vob", ".h264", ".h265", ".hevc", ".ivf",
)  # fmt: skip
"""What a folder is searched for, case-insensitive. A file that is named is tried, whatever it is called."""
STABLE_S = 2.0
"""A watched file is taken once its size and modification time have not changed for this long."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which sources may be opened (the config's ``sources``). None: whatever the user named.

    ``hosts`` are shell patterns (``*.cams.example``). What a playlist or a redirect names must be http(s) and
    on the host of the URL that named it, or on one of ``hosts``; there, an address of a private network only
    with ``private_redirects``."""

    schemes: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    folders: tuple[Path, ...] | None = None
    private_redirects: bool = False

    def admit(self, url: str) -> None:
        """:raises SourceRefused: ``url``, a remote one, is outside."""
        parts = split_url(url)
        if self.schemes is not None and parts.scheme not in self.schemes:
            allowed = ", ".join(self.schemes)
            raise SourceRefused(
                f"{mask_url(url)}: scheme {parts.scheme!r} is not in sources.schemes ({allowed})"
            )
        if self.hosts is not None and not self._lists(parts.host):
            allowed = ", ".join(self.hosts)
            raise SourceRefused(f"{mask_url(url)}: host {parts.host!r} is not in sources.hosts ({allowed})")

    def admit_path(self, path: Path) -> None:
        """:raises SourceRefused: ``path``, links followed, is outside."""
        if self.schemes is not None and "file" not in self.schemes:
            raise SourceRefused(
                f"{path}: scheme 'file' is not in sources.schemes ({', '.join(self.schemes)})"
            )
        if self.folders is None:
            return
        real = path.resolve()
        if not any(real.is_relative_to(folder.resolve()) for folder in self.folders):
            allowed = ", ".join(str(folder) for folder in self.folders)
            raise SourceRefused(f"{path}: is not inside sources.folders ({allowed})")

    def admit_next(self, first: str, url: str, schemes: tuple[str, ...] = ("http", "https")) -> None:
        """May ``url`` be opened because ``first``, or a playlist found there, names it?

        :raises SourceRefused: no."""
        parts, origin = split_url(url), split_url(first)
        shown = f"{mask_url(first)}: leads to {mask_url(url)}"
        if parts.scheme not in schemes:
            allowed = " and ".join(f"{scheme}://" for scheme in schemes)
            raise SourceRefused(f"{shown}: a playlist or redirect may only name {allowed}")
        if parts.host != origin.host and not self._lists(parts.host):
            raise SourceRefused(
                f"{shown}: a playlist or redirect must stay on its host {origin.host!r}; "
                f"add {parts.host!r} to sources.hosts to allow it"
            )

    def admit_address(self, first: str, url: str, address: str) -> None:
        """The same for the address that a name turned out to have.

        :raises SourceRefused: it is private, of another host than ``first``, and that is not allowed."""
        if self.private_redirects or split_url(url).host == split_url(first).host:
            return
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise SourceRefused(
                f"{mask_url(first)}: leads to {mask_url(url)}, which is the private address {address}; "
                "set sources.private_redirects to allow it"
            )

    def _lists(self, host: str) -> bool:
        return self.hosts is not None and any(
            fnmatch.fnmatch(host, pattern.lower()) for pattern in self.hosts
        )


class Server(NamedTuple):
    """Host and port, as in a URL."""

    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class UrlParts:
    """``host`` is in lower case and without brackets; ``port`` is None when it is the scheme's own."""

    scheme: str
    host: str
    port: int | None
    user: str | None
    password: str | None

    @property
    def server(self) -> Server:
        """Who answers."""
        return Server(self.host, self.port)


def split_url(url: str) -> UrlParts:
    """:raises SourceUnsupported: ``url`` is no URL (a port that is no number, an unclosed bracket)."""
    try:
        parts = urlsplit(url)
        user, password = (
            unquote(text) if text is not None else None for text in (parts.username, parts.password)
        )
        return UrlParts(parts.scheme.lower(), (parts.hostname or "").lower(), parts.port, user, password)
    except ValueError as error:
        raise SourceUnsupported(
            f"{mask_url(url)}: is not a valid URL; inside a password write '/', ':', '?', '#' and '@' "
            "as %2F, %3A, %3F, %23 and %40"
        ) from error


def is_url(text: str) -> bool:
    """``scheme://…``, ``file://`` among them."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme[:1].isalpha() and all(c.isalnum() or c in "+.-" for c in scheme)


def is_remote(text: str) -> bool:
    """A URL that is not ``file://``."""
    return is_url(text) and local_path(text) is None


def is_glob(text: str) -> bool:
    """A local pattern with ``*``, ``?`` or ``[…]``; a file that really has that name is no pattern."""
    path = local_path(text)
    return path is not None and glob.has_magic(str(path)) and not path.exists()


def local_path(text: str) -> Path | None:
    """The path of a plain or ``file://`` input (percent-decoded); None for a remote URL."""
    if not is_url(text):
        return Path(text).expanduser()
    scheme, _, rest = text.partition("://")
    if scheme.lower() != "file":
        return None
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        return Path(unquote(rest))  # file://clips/a.mp4: surely a relative path was meant
    return Path(unquote(slash + path))


def is_many(text: str) -> bool:
    """A folder or glob: one entry, many files."""
    path = local_path(text)
    return path is not None and (is_glob(text) or path.is_dir())


def expand(text: str, reach: Reach | None = None) -> list[Path]:
    """The files that a local input names, sorted: one for a file, all videos (at any depth) for a folder or
    glob.

    :raises SourceNotFound: there is no such file or folder, or nothing matches.
    :raises SourceNoVideo: the folder holds no video.
    :raises SourceRefused: it lies outside ``reach`` or may not be read.
    :raises SourceUnsupported: ``text`` is a remote URL."""
    path = _local(text)
    if is_glob(text):
        found = _matches(str(path))
        if not found:
            raise SourceNotFound(f"{path}: no file matches")
    elif path.is_dir():
        found = _videos(path)
        if not found:
            raise SourceNoVideo(f"{path}: the folder holds no video: looked for {', '.join(VIDEO_SUFFIXES)}")
    elif path.exists():
        found = [path]
    else:
        raise SourceNotFound(f"{path}: no such file or folder{_nearest(path)}")
    for file in found:
        (reach or Reach()).admit_path(file)
    return found


class Watch:
    """Files of a folder or glob, also those that appear later. Not thread-safe; holds one entry a file
    present."""

    def __init__(self, text: str, reach: Reach | None = None, *, stable_s: float = STABLE_S) -> None:
        self._text = text
        self._path = _local(text)
        self._reach = reach or Reach()
        self._stable_s = stable_s
        self._seen: dict[
            Path, tuple[tuple[int, int], float, bool]
        ] = {}  # (size, mtime_ns), since when, given

    def poll(self, now: float, wall: float | None = None) -> list[Path]:
        """Files whose size and mtime have been the same for ``stable_s``, each version of a file once,
        sorted.

        ``now`` is monotonic seconds. With ``wall`` (Unix seconds) a file that was last modified longer than
        ``stable_s`` ago is stable at first sight. A file outside ``reach`` is never given.

        :raises SourceNotFound: the folder is gone.
        :raises SourceRefused: the folder may not be read."""
        present: dict[Path, tuple[tuple[int, int], float, bool]] = {}
        ready: list[Path] = []
        for file in self._list():
            try:
                found = file.stat()
                self._reach.admit_path(file)
            except (OSError, SourceError):
                continue  # gone since it was listed, or not ours to open
            version = (found.st_size, found.st_mtime_ns)
            known, since, given = self._seen.get(file, (None, now, False))
            if known != version:
                since = now if known or wall is None else min(now, now - (wall - found.st_mtime))
                given = False
            if not given and now - since >= self._stable_s:
                given = True
                ready.append(file)
            present[file] = (version, since, given)
        self._seen = present
        return ready

    def _list(self) -> list[Path]:
        if glob.has_magic(str(self._path)) and not self._path.is_dir():
            return _matches(str(self._path))
        if not self._path.is_dir():
            raise SourceNotFound(f"{self._path}: no such folder to watch{_nearest(self._path)}")
        return _videos(self._path)


def _local(text: str) -> Path:
    path = local_path(text)
    if path is None:
        raise SourceUnsupported(f"{mask_url(text)}: is not a file, folder or glob")
    return path


def _matches(pattern: str) -> list[Path]:
    return sorted(Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))


def _videos(folder: Path) -> list[Path]:
    """All videos below ``folder``, hidden ones left out."""

    def refused(error: OSError) -> None:
        raise SourceRefused(
            f"{error.filename}: may not be read ({error.strerror}); check its permissions"
        ) from error

    found = []
    for where, folders, names in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(where, name)
            for name in names
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _nearest(path: Path) -> str:
    """The start of the path that does exist, for an error text; nothing when that is obvious."""
    for parent in path.absolute().parents:
        if parent.is_dir():
            return f" ({parent} exists)" if parent != path.absolute().parent else ""
    return ""
