"""A YAML file to plain data, and every mistake in it to one line: where it is and what is allowed."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import ConfigError
from pipeline.masking import mask_text

Loc = tuple[str | int, ...]
"""The way from the top of a document to a value: keys and list positions."""

VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<fallback>:-[^}]*)?\}|\$\{[^}]*\}?")
SHOWN_CHARACTERS = 60


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1, without timestamps: ``2026-01-01`` stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(slots=True)
class Document:
    """A parsed file: ``data`` with variables filled in, and ``problems`` as (line, text), found so far."""

    path: Path
    root: yaml.Node
    env: Mapping[str, str]
    data: Any = None
    problems: list[tuple[int, str]] = field(default_factory=list)

    def locate(self, loc: Loc) -> tuple[Loc, int, yaml.Node]:
        """How much of ``loc`` stands in the file, the line of its last key, and its value."""
        node, line, found = self.root, self.root.start_mark.line + 1, 0
        for part in loc:
            step = _child(node, part)
            if step is None:
                break
            line, node = step
            found += 1
        return loc[:found], line, node

    def add(self, loc: Loc, text: str) -> None:
        """Report a mistake at ``loc``, or at the nearest place above it that the file has."""
        found, line, node = self.locate(loc)
        if all(isinstance(part, int) for part in loc[len(found) :]):
            loc = found  # one value may stand where a list is meant
        shown = "" if loc != found or not found else f"{_shown(node)}: "
        self.problems.append((line, f"{_dotted(loc) or 'the file'}: {shown}{text}"))

    def add_all(self, mistakes: Iterable[tuple[Loc, str]]) -> None:
        """Report each (place, what is allowed)."""
        for loc, text in mistakes:
            self.add(loc, text)

    def explain(self, model: type[BaseModel], error: ValidationError) -> None:
        """Report what ``model`` found wrong with ``data``; errors at one place become one line."""
        choices: dict[Loc, list[str]] = {}
        for detail in error.errors(include_url=False, include_input=False):
            loc = tuple(detail["loc"])
            if detail["type"] == "extra_forbidden":
                self._unknown_key(model, loc)
            elif detail["type"] == "missing":
                self.add(loc[:-1], f"the key {loc[-1]!r} is missing")
            else:
                # A union's branches end in names of their own that the file does not hold.
                choices.setdefault(self.locate(loc)[0], []).append(self._allowed(loc, detail))
        for loc, texts in choices.items():
            self.add(loc, " or ".join(dict.fromkeys(texts)))

    def _unknown_key(self, model: type[BaseModel], loc: Loc) -> None:
        known = _keys_at(model, loc[:-1])
        _, line, _ = self.locate(loc)
        text = f"{_dotted(loc)}: unknown key; known keys: {', '.join(known)}"
        self.problems.append((line, text + did_you_mean(str(loc[-1]), known)))

    def _allowed(self, loc: Loc, detail: ErrorDetails) -> str:
        if detail["type"] == "literal_error":
            options = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            node = self.locate(loc)[2]
            given = node.value if isinstance(node, yaml.ScalarNode) else ""
            return " or ".join(options) + did_you_mean(given, options)
        return wanted(detail)

    def check(self) -> None:
        """:raises ConfigError: something was reported; one line each, in the order of the file."""
        if self.problems:
            lines = dict.fromkeys(f"{self.path}:{line}: {text}" for line, text in sorted(self.problems))
            raise ConfigError("\n".join(lines))


_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "path_type": "a path",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "string_too_short": "text, not empty",
    "string_too_long": "at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
}


def read(path: Path, env: Mapping[str, str]) -> Document:
    """Parse ``path`` and fill in ``${VAR}`` and ``${VAR:-default}`` (``$${`` stands for ``${``).

    Mistakes in values are collected in ``problems``.

    :raises ConfigError: the file cannot be read, or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}:{line}: not valid YAML: the character {error.character:#06x} may not stand in it"
        ) from error
    try:
        root = loader.get_single_node()
        if root is None:
            raise ConfigError(f"{path}:1: the file is empty")
        document = Document(path, root, env)
        document.data = _Builder(document, loader).build(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not a config: nested too deeply") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    finally:
        loader.dispose()
    return document


class _Builder:
    """Nodes to dicts, lists and scalars; an anchor's value is built once."""

    def __init__(self, document: Document, loader: yaml.SafeLoader) -> None:
        self.document = document
        self.loader = loader
        self.built: dict[yaml.Node, Any] = {}
        self.under_way: set[yaml.Node] = set()

    def build(self, node: yaml.Node, loc: Loc) -> Any:
        if node in self.under_way:
            self.document.add(loc, "an alias may not stand inside what it names")
            return None
        if node not in self.built:
            self.under_way.add(node)
            self.built[node] = self._build(node, loc)
            self.under_way.discard(node)
        return self.built[node]

    def _build(self, node: yaml.Node, loc: Loc) -> Any:
        if isinstance(node, yaml.MappingNode):
            self._refuse_repeated_keys(node, loc)
            self.loader.flatten_mapping(node)
            return {str(key.value): self.build(value, (*loc, str(key.value))) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*loc, number)) for number, item in enumerate(node.value)]
        try:
            value = self.loader.construct_object(node)
        except ValueError:
            self.document.add(loc, f"not a value of the type {node.tag.rpartition(':')[2]}")
            return None
        return self._filled_in(value, loc) if isinstance(value, str) else value

    def _refuse_repeated_keys(self, node: yaml.MappingNode, loc: Loc) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in first:
                text = f"{_dotted((*loc, name))}: the key stands here twice (first on line {first[name]})"
                self.document.problems.append((line, text))
            first.setdefault(name, line)

    def _filled_in(self, text: str, loc: Loc) -> str:
        def value_of(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name, fallback = match["name"], match["fallback"]
            if name is None:
                self.document.add(loc, "a variable is written ${NAME} or ${NAME:-default}; a plain ${ as $${")
                return ""
            value = self.document.env.get(name, "")
            if fallback is not None:
                return value or fallback[2:]
            if name not in self.document.env:
                close = did_you_mean(name, self.document.env)
                self.document.add(
                    loc, f"the variable {name} is not set; set it, or give a default: ${{{name}:-…}}{close}"
                )
            return value

        return VARIABLE.sub(value_of, text)


def wanted(detail: ErrorDetails) -> str:
    """What is allowed where pydantic found something else."""
    context = detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context["error"])
    return _WANTED.get(detail["type"], detail["msg"]).format(**context)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`` (did you mean x?)``, or nothing when no known name is near."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # a merged key (<<) stands before the one that overrides it
            if str(key.value) == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _dotted(loc: Loc) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _shown(node: yaml.Node) -> str:
    """A value as the file has it, so that what a variable holds is never shown."""
    if not isinstance(node, yaml.ScalarNode):
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    return shown(node.value)


def shown(value: str) -> str:
    """A value as an error may show it: short, without credentials."""
    text = mask_text(value)
    if re.search(r"(?<!\*\*\*)@", text):  # a URL too broken to be known as one may still carry a password
        text = "***@" + text.rpartition("@")[2]
    return (text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…") or "nothing"


def _keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that may stand at ``loc`` of a document that ``model`` describes."""
    for part in loc:
        if isinstance(part, int):
            continue
        known = model.model_fields.get(part)
        kind = known.annotation if known else get_type_hints(model).get("__pydantic_extra__")
        model = next(_models_in(kind), model)
    return sorted(model.model_fields)


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for argument in get_args(kind):
        yield from _models_in(argument)
