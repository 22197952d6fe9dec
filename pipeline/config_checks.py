"""What is wrong with a config whose every single value is right: (place, what is allowed) pairs."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.config_file import Document, Loc, did_you_mean
from pipeline.config_keys import Config, Sources, Stream, Thresholds
from pipeline.config_types import LIVE_SCHEMES
from pipeline.errors import ConfigError, ModelError
from pipeline.events import StreamContext
from pipeline.flow.source import Kind
from pipeline.masking import mask_url

CategoriesOf = Callable[[str], tuple[str, ...]]
"""The categories of a model by its name or manifest path; ``ModelError`` when there is no such model."""

GLOB_CHARACTERS = frozenset("*?[")
TLS_SCHEMES = ("rtsps", "rtmps", "https")
ORDER = ("watch", "close", "open", "instant")

Mistakes = Iterator[tuple[Loc, str]]


def refuse_repeated_ids(document: Document) -> None:
    """Report each stream id that an earlier stream has. Runs on raw data, before anything else is known."""
    streams = document.data.get("streams") if isinstance(document.data, dict) else None
    first: dict[str, int] = {}
    for number, stream in enumerate(streams if isinstance(streams, list) else ()):
        name = stream.get("id") if isinstance(stream, dict) else None
        if isinstance(name, bool) or not isinstance(name, str | int):
            continue
        line = document.locate(("streams", number, "id"))[1]
        if str(name) in first:
            text = f"another stream has this id (line {first[str(name)]}); ids are unique"
            document.add(("streams", number, "id"), text)
        first.setdefault(str(name), line)


def contradictions(config: Config) -> Mistakes:
    """Values that do not go together."""
    if len(config.streams) > config.limits.streams:
        yield ("streams",), f"at most {config.limits.streams} of them (limits.streams)"
    for category in config.policy.categories:
        rules = config.policy.categories[category]
        yield from _disorder(rules, rules.model_fields_set, ("policy", category))
    for number, stream in enumerate(config.streams):
        at: Loc = ("streams", number)
        yield from ((at + loc, text) for loc, text in _stream(stream))
        yield from ((at + loc, text) for loc, text in _too_long_to_tell(stream, config.node))
        for category, own in stream.policy.categories.items() if stream.policy else ():
            base = config.policy.categories.get(category, Thresholds())
            rules = base.model_copy(update=own.model_dump(exclude_unset=True))
            yield from _disorder(rules, own.model_fields_set, (*at, "policy", category))


def forbidden_sources(config: Config) -> Mistakes:
    """Streams outside what ``sources`` allows. Paths are resolved already."""
    allowed = config.sources
    for number, stream in enumerate(config.streams):
        text = _forbidden(stream, allowed)
        if text:
            yield ("streams", number, "url"), text


def unknown_names(config: Config, categories_of: CategoriesOf) -> Mistakes:
    """Models that do not exist, and categories that no model in use has."""
    known: dict[str, tuple[str, ...]] = {}
    places: list[tuple[Loc, tuple[str, ...]]] = [(("model",), config.model)]
    places += [(("streams", at, "model"), s.model) for at, s in enumerate(config.streams) if s.model]
    for loc, names in places:
        for position, name in enumerate(names):
            try:
                known[name] = known[name] if name in known else categories_of(name)
            except ModelError as error:
                yield (*loc, position), str(error)
    if not all(name in known for _, names in places for name in names):
        return  # a category cannot be called unknown while a model is
    yield from _unknown_categories(config, known)


def _unknown_categories(config: Config, known: dict[str, tuple[str, ...]]) -> Mistakes:
    everywhere = sorted({category for categories in known.values() for category in categories})
    for category in config.policy.categories:
        if category not in everywhere:
            yield ("policy", category), _no_such(category, everywhere)
    for number, stream in enumerate(config.streams):
        own = sorted({category for name in config.models_of(stream) for category in known[name]})
        for category in stream.policy.categories if stream.policy else ():
            if category not in own:
                yield ("streams", number, "policy", category), _no_such(category, own)


def _no_such(category: str, known: list[str]) -> str:
    text = "no model in use has this category; categories: " + ", ".join(known)
    return text + did_you_mean(category, known)


def _disorder(rules: Thresholds, own: set[str], loc: Loc) -> Mistakes:
    """Thresholds in the wrong order, for which one of the keys that stand here (``own``) is to blame."""
    for low, high in pairwise(ORDER):
        lower, upper = getattr(rules, low), getattr(rules, high)
        if lower > upper and own & {low, high}:
            text = f"{low} ({lower:g}) may not be above {high} ({upper:g}): watch ≤ close ≤ open ≤ instant"
            yield (*loc, high if high in own else low), text
    if rules.min_hits > rules.window and own & {"min_hits", "window"}:
        yield (*loc, "min_hits"), f"at most window ({rules.window})"
    if rules.min_s > rules.max_s and own & {"min_s", "max_s"}:
        yield (*loc, "min_s"), f"at most max_s ({rules.max_s:g})"


def _stream(stream: Stream) -> Mistakes:
    live = stream.scheme in LIVE_SCHEMES
    for key in ("loop", "watch"):
        if getattr(stream, key) and live:
            yield (key,), f"only files can {key}, not {stream.scheme} streams"
    if "pace" in stream.model_fields_set and live:
        yield ("pace",), f"only files have a pace, not {stream.scheme} streams"
    if stream.tls.model_fields_set and stream.scheme not in TLS_SCHEMES:
        yield ("tls",), f"only {', '.join(TLS_SCHEMES)} streams speak TLS, not {stream.scheme}"
    if stream.tls.ca is not None and not stream.tls.verify:
        yield ("tls", "verify"), "true, where a ca is named"
    if stream.loop and stream.watch:
        yield ("loop",), "loop and watch do not go together: a pass over a watched folder never ends"
    if stream.watch and stream.scheme == "file" and not _may_grow(stream.url):
        yield ("watch",), "only a folder or a glob can be watched; this is one file"
    if stream.watch and stream.scheme in ("http", "https"):
        yield ("watch",), "only a local folder or glob can be watched"


def _too_long_to_tell(stream: Stream, node: str) -> Mistakes:
    """What users name stands in each event of the stream, whose size is bounded."""
    try:
        kind: Kind = "live" if stream.scheme in LIVE_SCHEMES else "file"
        StreamContext(
            node, stream.tenant, stream.id, "-" * 36, kind, mask_url(stream.url), dict(stream.labels)
        )
    except ConfigError as error:
        yield ("labels",) if stream.labels else ("id",), str(error)


def _may_grow(url: str) -> bool:
    path = local_path(url)
    return (
        bool(GLOB_CHARACTERS & set(path)) or url.endswith("/") or not Path(path).suffix or Path(path).is_dir()
    )


def local_path(url: str) -> str:
    """The path that a path or ``file://`` URL names."""
    return unquote(urlsplit(url).path) if "://" in url else url


def _forbidden(stream: Stream, allowed: Sources) -> str | None:
    if allowed.schemes is not None and stream.scheme not in allowed.schemes:
        return f"sources.schemes allows only {', '.join(allowed.schemes) or 'nothing'}"
    if stream.scheme == "file":
        path = Path(local_path(stream.url)).resolve()
        folders = [folder.resolve() for folder in allowed.folders or ()]
        if allowed.folders is not None and not any(path.is_relative_to(folder) for folder in folders):
            return "sources.folders allows only " + (", ".join(map(str, allowed.folders)) or "nothing")
        return None
    host = (urlsplit(stream.url).hostname or "").lower()
    if allowed.hosts is not None and not any(fnmatch(host, pattern.lower()) for pattern in allowed.hosts):
        return "sources.hosts allows only " + (", ".join(allowed.hosts) or "nothing")
    return None
