"""What to do, validated once and read nowhere else: ``load`` gives a frozen ``Config`` or all mistakes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline import config_checks as checks
from pipeline.config_checks import CategoriesOf
from pipeline.config_file import Document, read, shown, wanted
from pipeline.config_keys import Config, Policy, Redis, Sampling, Sources, Stream, Thresholds
from pipeline.config_types import LIVE_SCHEMES, URL
from pipeline.errors import ConfigError
from pipeline.masking import mask_url

__all__ = [
    "LIVE_SCHEMES", "Config", "Policy", "Redis", "Sampling", "Sources", "Stream", "Thresholds",
    "cache_folder", "categories_of", "load", "preset", "schema", "screen_config",
]  # fmt: skip

MANIFEST_SUFFIXES = (".yaml", ".yml")
Model = TypeVar("Model", bound=BaseModel)


def load(path: Path | str, env: Mapping[str, str] = os.environ, models: CategoriesOf | None = None) -> Config:
    """Read a config file; its relative paths are taken from its own folder.

    With ``models`` (``categories_of``) the names of models and of the policy's categories are checked, too.

    :raises ConfigError: one line for each mistake, ``FILE:LINE: key: value: what is allowed``."""
    document = read(Path(path), env)
    checks.refuse_repeated_ids(document)
    config = _validated(document, Config)
    if config is None:
        document.check()
        raise ConfigError(f"{path}: not a config")
    if not config.streams:
        document.add(("streams",), "there is nothing to screen; name a stream, as {id: cam-1, url: film.mp4}")
    config = _resolved(config, Path(path).absolute().parent)
    for find in (checks.contradictions, checks.forbidden_sources):
        document.add_all(find(config))
    if models:
        document.add_all(checks.unknown_names(config, models))
    document.check()
    return config


def screen_config(
    inputs: Sequence[str],
    *,
    state_dir: Path = Path("state"),
    policy_file: Path | None = None,
    model: Sequence[str] = (),
    max_gap_s: float | None = None,
    models: CategoriesOf | None = None,
    env: Mapping[str, str] = os.environ,
) -> Config:
    """The config of a ``screen`` command: one stream an input, its id the input as given without credentials.

    ``policy_file`` holds what stands under ``policy:`` in a config, or that key itself. Relative paths are
    taken from the current folder.

    :raises ConfigError: an input, a value or the policy file is wrong."""
    document = _policy_document(policy_file, env) if policy_file else None
    values = {
        "state_dir": state_dir,
        "log": {"format": "console", "level": "warning"},
        "sampling": {} if max_gap_s is None else {"max_gap_s": max_gap_s},
        "policy": (_validated(document, Policy) or Policy()) if document else Policy(),
        "streams": [{"id": name, "url": text} for text, name in _names(inputs).items()],
    } | ({"model": list(model)} if model else {})
    try:
        config = _resolved(Config.model_validate(values), Path.cwd())
    except ValidationError as error:
        raise ConfigError(_options(error, list(dict.fromkeys(inputs)))) from error
    mistakes = [*checks.contradictions(config), *(checks.unknown_names(config, models) if models else ())]
    for loc, text in mistakes:
        if loc[0] != "policy" or document is None:
            raise ConfigError(f"--{loc[0]}: {text}")
        document.add(loc[1:], text)
    if document:
        document.check()
    return config.forgetful()


def schema() -> dict[str, Any]:
    """JSON Schema of the config file, for editors: every key with its meaning and default."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_standard(Config.model_json_schema()),
    }


def categories_of(name: str) -> tuple[str, ...]:
    """The categories of a shipped model or a manifest file.

    :raises ModelError: there is no such model, or its manifest is wrong."""
    from pipeline.engines import load_manifest

    return tuple(load_manifest(name).categories)


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where built engines are kept: ``framewarden`` in ``XDG_CACHE_HOME``, or in ``~/.cache``."""
    base = env.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "framewarden"


@contextmanager
def preset(name: str, value: str) -> Iterator[None]:
    """A process that is started within finds ``value`` in the variable ``name``, and behind a colon what the
    user has put there."""
    own = os.environ.get(name)
    os.environ[name] = value if own is None else f"{value}:{own}"
    try:
        yield
    finally:
        if own is None:
            del os.environ[name]
        else:
            os.environ[name] = own


def printable(text: str) -> str:
    """A file name as text that JSON can hold; bytes that are not UTF-8 are shown as ``\\xNN``."""
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def _standard(schema: Any) -> Any:
    """Bounds by their names in JSON Schema; behind a validator pydantic leaves them as they are."""
    names = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
    if isinstance(schema, dict):
        return {names.get(key, key): _standard(value) for key, value in schema.items()}
    return [_standard(item) for item in schema] if isinstance(schema, list) else schema


def _names(inputs: Sequence[str]) -> dict[str, str]:
    """Each input once, with its id; URLs that differ only in what is masked are told apart by a number."""
    names: dict[str, str] = {}
    for text in dict.fromkeys(inputs):
        name = first = printable(mask_url(text))
        number = 1
        while name in names.values():
            number += 1
            name = f"{first} ({number})"
        names[text] = name
    return names


def _validated(document: Document, model: type[Model]) -> Model | None:
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        document.explain(model, error)
        return None


def _policy_document(path: Path, env: Mapping[str, str]) -> Document:
    document = read(path, env)
    if isinstance(document.data, dict) and set(document.data) == {"policy"}:
        document.root = document.locate(("policy",))[2]
        document.data = document.data["policy"]
    return document


def _options(error: ValidationError, inputs: list[str]) -> str:
    """What is wrong with a command line: one line for each value, by the option that holds it."""
    lines = []
    for detail in error.errors(include_url=False):
        loc = detail["loc"]
        if loc[0] == "streams" and len(loc) > 1:
            name, value = "INPUT", inputs[int(loc[1])]
        else:
            name, value = (
                {"sampling": "--max-gap", "model": "--model"}.get(str(loc[0]), str(loc[0])),
                detail["input"],
            )
        lines.append(f"{name}: {shown(str(value))}: {wanted(detail)}")
    return "\n".join(dict.fromkeys(lines))


def _resolved(config: Config, base: Path) -> Config:
    """The same with every relative path made absolute."""
    redis, sources = config.redis, config.sources
    streams = [
        stream.model_copy(
            update={
                "url": _path(stream.url, base),
                "model": _models(stream.model, base),
            }
            | ({"tls": stream.tls.model_copy(update={"ca": base / stream.tls.ca})} if stream.tls.ca else {})
        )
        for stream in config.streams
    ]
    tls = redis.tls.model_copy(update={"ca": base / redis.tls.ca if redis.tls.ca else None})
    embedded = redis.embedded.model_copy(
        update={"dir": base / redis.embedded.dir.expanduser() if redis.embedded.dir else None}
    )
    folders = None if sources.folders is None else tuple(base / folder for folder in sources.folders)
    return config.model_copy(
        update={
            "state_dir": base / config.state_dir.expanduser(),
            "redis": redis.model_copy(update={"tls": tls, "embedded": embedded}),
            "sources": sources.model_copy(update={"folders": folders}),
            "model": _models(config.model, base),
            "streams": tuple(streams),
        }
    )


def _path(url: str, base: Path) -> str:
    if URL.fullmatch(url):
        return url
    path = os.path.normpath(base / Path(url).expanduser())
    return path + "/" if url.endswith("/") else path


def _models(names: tuple[str, ...] | None, base: Path) -> tuple[str, ...] | None:
    if names is None:
        return None
    return tuple(
        os.path.normpath(base / name) if "/" in name or name.endswith(MANIFEST_SUFFIXES) else name
        for name in names
    )
