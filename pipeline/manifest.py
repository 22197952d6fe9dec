"""A model's manifest: the YAML file that says where its weights come from, what they want to see and what
their outputs mean."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ModelError
from pipeline.flow.frames import Channels, Crop, InputSpec, Layout

Activation = Literal["none", "softmax", "sigmoid"]
CONVERSION = "tent-1"
"""Version of the conversion from picture to slot (``flow/frames.py``): raised when it may change a score."""

F32_TOLERANCE = 1e-3
"""The accepted worst difference between two f32 engines, unless a manifest states its own."""


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """Where the ONNX file is: ``file`` in the installed ``package`` (of ``version``), or ``path``.

    ``sha256`` is in hex, or empty when a user's manifest states none (then nothing is checked)."""

    sha256: str
    package: str | None = None
    version: str | None = None
    file: str | None = None
    path: Path | None = None

    def __str__(self) -> str:
        return str(self.path) if self.package is None else f"{self.package}=={self.version}:{self.file}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a model without opening it.

    ``labels`` name the columns of its output, in order; a category scores as the greatest of its labels.
    ``activation`` is what turns the output into 0..1. ``tolerance`` gives for a precision (f32, bf16, …) the
    accepted worst difference of a score from the f32 reference, which is also how near to a threshold a score
    of that precision is not taken for sure; of a precision below f32 that is not listed, no engine makes use
    by itself."""

    name: str
    version: str
    licence: str
    source: WeightsSource
    spec: InputSpec
    labels: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    input_name: str | None = None
    output_name: str | None = None
    activation: Activation = "none"
    tolerance: Mapping[str, float] = field(default_factory=dict)
    homepage: str = ""
    notes: str = ""

    @property
    def sha256(self) -> str:
        """What the weights must hash to, or empty."""
        return self.source.sha256

    @property
    def preprocess(self) -> str:
        """The conversion's version and the form it makes, as events name it."""
        spec = self.spec
        form = f"{spec.width}x{spec.height}"
        if spec.resize is not None:
            form = f"{spec.resize[1]}x{spec.resize[0]}-{spec.crop}-{form}"
        return f"{CONVERSION}/{form}/{spec.channels}"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Size = tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
_Category = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Weights(_Part):
    package: str | None = None
    version: str | None = None
    file: str | None = None
    path: str | None = None
    sha256: _Sha256 | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "_Weights":
        if (self.path is None) == (self.package is None):
            raise ValueError("give either path (of an ONNX file) or package, version and file")
        if self.package is not None and None in (self.version, self.file, self.sha256):
            raise ValueError("a package needs version, file and sha256 beside it")
        return self


class _Input(_Part):
    name: str | None = None
    layout: Layout = "nchw"
    size: _Size
    channels: Channels = "rgb"
    mean: tuple[_Number, _Number, _Number] = (0.0, 0.0, 0.0)
    scale: tuple[_Number, _Number, _Number] = (1.0, 1.0, 1.0)
    crop: Crop = "stretch"
    resize: _Size | None = None

    @model_validator(mode="after")
    def _cut_fits(self) -> "_Input":
        resize = self.resize or self.size
        if self.crop == "stretch" and resize != self.size:
            raise ValueError(f"resize {list(resize)} must equal size {list(self.size)} with crop: stretch")
        if resize[0] < self.size[0] or resize[1] < self.size[1]:
            raise ValueError(f"resize {list(resize)} must not be smaller than size {list(self.size)}")
        if 0.0 in self.scale:
            raise ValueError("scale must not hold a 0: the model would see nothing of that channel")
        return self


class _Output(_Part):
    name: str | None = None
    activation: Activation = "none"


class _File(_Part):
    name: _Word
    version: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    homepage: str = ""
    weights: _Weights
    input: _Input
    output: _Output = _Output()
    labels: tuple[str, ...] = Field(min_length=1)
    categories: dict[_Category, tuple[str, ...]] = Field(min_length=1)
    tolerance: dict[Literal["f32", "bf16", "f16", "int8"], Annotated[float, Field(gt=0, le=1)]] = {}
    notes: str = ""

    @model_validator(mode="after")
    def _labels_known(self) -> "_File":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {list(self.labels)} must differ from each other")
        for category, labels in self.categories.items():
            unknown = [label for label in labels if label not in self.labels]
            if unknown or not labels:
                what = f"no label is called {unknown[0]!r}" if unknown else "names no label"
                raise ValueError(f"categories.{category}: {what}; labels are {', '.join(self.labels)}")
        return self


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases: a few lines of them can stand for more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read")
        return super().compose_node(parent, index)


def read_manifest(path: Path) -> Manifest:
    """The manifest in a YAML file; a relative ``weights.path`` is taken from the file's folder.

    :raises ModelError: it cannot be read or is wrong; names file, key, value and what is allowed."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise ModelError(f"{path}: is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(raw, dict):
        found = type(raw).__name__
        raise ModelError(f"{path}: must hold keys such as name, weights, input and labels, holds a {found}")
    try:
        return _manifest(_File.model_validate(raw), path.parent)
    except ValidationError as exc:
        raise ModelError("; ".join(f"{path}: {_explain(error)}" for error in exc.errors())) from exc


def _manifest(file: _File, folder: Path) -> Manifest:
    wants, found = file.input, file.weights
    return Manifest(
        name=file.name,
        version=file.version,
        licence=file.licence,
        source=WeightsSource(
            sha256=found.sha256 or "",
            package=found.package,
            version=found.version,
            file=found.file,
            path=None if found.path is None else folder / Path(found.path).expanduser(),
        ),
        spec=InputSpec(
            height=wants.size[0],
            width=wants.size[1],
            layout=wants.layout,
            channels=wants.channels,
            mean=wants.mean,
            scale=wants.scale,
            crop=wants.crop,
            resize=wants.resize,
        ),
        labels=file.labels,
        categories=file.categories,
        input_name=wants.name,
        output_name=file.output.name,
        activation=file.output.activation,
        tolerance={"f32": F32_TOLERANCE} | {str(kind): worst for kind, worst in file.tolerance.items()},
        homepage=file.homepage,
        notes=file.notes,
    )


def _explain(error: Any) -> str:
    """One of pydantic's errors as ``key: value: what is allowed``."""
    place = [str(part) for part in error["loc"] if part != "[key]"]
    key = ".".join(place) or "manifest"
    if error["type"] == "extra_forbidden":
        allowed = _keys_beside(place)
        near = difflib.get_close_matches(place[-1], allowed, 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{key}: unknown key{hint}; allowed: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    return f"{key}: {error['input']!r:.80}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _keys_beside(place: list[str]) -> list[str]:
    part: Any = _File
    for step in place[:-1]:
        part = part.model_fields[step].annotation
    return list(part.model_fields)
