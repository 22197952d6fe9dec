"""Every key of the config file: its type, its default, what it means."""

import hashlib
import json
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from pipeline.config_limits import LimitRules, SourceTls
from pipeline.config_part import Part as _Part
from pipeline.config_types import (
    URL,
    Models,
    Name,
    Number,
    RedisUrl,
    Seconds,
    Share,
    SourceUrl,
    StreamId,
    Text,
    Whole,
)
from pipeline.flow.sample import SamplingRules
from pipeline.flow.segment import SegmentRules
from pipeline.inputs import Reach
from pipeline.limits import Limits


class Log(_Part):
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, json elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines to write."""


class Tls(_Part):
    ca: Path | None = None
    """File of the certificate authorities to trust (PEM), in place of the system's."""


class Embedded(_Part):
    port: Annotated[Whole, Field(ge=0, le=65535)] = 0
    """Port of the server on 127.0.0.1; 0: a free one."""
    dir: Path | None = None
    """Folder of its data (redis/) and address (redis.json); left out: state_dir."""


class Redis(_Part):
    url: RedisUrl | None = None
    """redis:// rediss:// redis+sentinel:// or redis+cluster://; left out: the embedded server is started."""
    prefix: Annotated[str, Field(min_length=1)] = "framewarden"
    """Start of all keys: PREFIX:segments, PREFIX:health."""
    tls: Tls = Tls()
    """How rediss:// is verified."""
    on_unsafe: Literal["warn", "refuse"] = "warn"
    """When the server may lose data (no appendonly, an eviction policy): warn, or refuse to start."""
    embedded: Embedded = Embedded()
    """The embedded server, used when there is no url."""


class OutboxRules(_Part):
    max_bytes: Annotated[Whole, Field(ge=1_000_000)] = 1_000_000_000
    """Delivered events are kept up to this size; undelivered ones always."""
    keep_s: Seconds = 86400
    """How long a delivered event waits for every group to acknowledge it."""


class Sources(_Part):
    """What streams may reach. Left out: what the config or the command line names."""

    schemes: tuple[Literal["rtsp", "rtsps", "rtmp", "rtmps", "srt", "http", "https", "file"], ...] | None = (
        None
    )
    """Allowed URL schemes; file stands for paths."""
    hosts: tuple[str, ...] | None = None
    """Allowed host names; *.example.org allows all hosts under it."""
    folders: tuple[Path, ...] | None = None
    """Folders that files must lie in."""
    private_redirects: bool = False
    """Whether a playlist or redirect may name a private address."""


class Batch(_Part):
    max_size: Annotated[Whole, Field(ge=1, le=256)] = 16
    """Pictures scored at once, at most."""
    max_wait_ms: Annotated[Number, Field(ge=0, le=10_000)] = 50
    """How long a live picture waits for others, in milliseconds; on an engine that scores them two by two
    (OpenVINO), for one other."""
    stale_s: Annotated[Number, Field(gt=0)] = 2.0
    """A live picture that has waited longer is dropped and counted; a file's never."""


class Sampling(_Part):
    max_gap_s: Annotated[Number, Field(ge=0.1, le=3600)] = 2.0
    """The promise: no two neighbouring screened pictures are further apart, in seconds (5 % tolerance)."""
    plan: Literal["auto", "keyframes", "skip", "full"] = "auto"
    """What is decoded; auto takes the cheapest plan that keeps max_gap_s."""
    audit: Share = 0.02
    """Share of the keyframe plan's samples that are taken from inside the GOP, so that it cannot be gamed."""
    burst_fps: Annotated[Number, Field(gt=0, le=60)] = 8
    """Pictures a second screened around a suspicion."""
    burst_s: Seconds = 10
    """How long a suspicion lasts, in seconds."""
    overload_gap_s: Annotated[Number, Field(gt=0, le=3600)] | None = None
    """How far the gap may grow when the machine is overloaded, the lowest priority first; what is then not
    screened is reported. Left out: 5 × max_gap_s."""


class Thresholds(_Part):
    open: Share = 0.80
    """A score from here on is a hit."""
    close: Share = 0.60
    """A score from here on holds an open segment."""
    watch: Share = 0.50
    """A score from here on is looked at more closely."""
    instant: Share = 0.97
    """A score from here on opens a segment at once."""
    min_hits: Annotated[Whole, Field(ge=1)] = 1
    """Hits among the last `window` samples that open a segment."""
    window: Annotated[Whole, Field(ge=1, le=1000)] = 1
    """Samples that min_hits looks at."""
    gap_s: Annotated[Number, Field(gt=0, le=86400)] | None = None
    """Media time without a held sample that closes a segment; left out: 2 × the stream's max_gap_s."""
    min_s: Seconds = 0
    """Shorter segments are counted, not published."""
    max_s: Annotated[Number, Field(gt=0)] = 120
    """A longer segment is closed and goes on in a new one."""
    cooldown_s: Seconds = 0
    """A segment that opens this soon after another names it in previous_segment_id."""


class Policy(_Part):
    """Thresholds by category; categories that are not named have the defaults."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Thresholds] = Field(init=False)
    name: Name = "default"
    """Stands in every event."""

    @property
    def categories(self) -> dict[str, Thresholds]:
        return self.__pydantic_extra__


class Stream(_Part):
    id: StreamId
    """Unique name; stands in every event."""
    url: SourceUrl
    """A file, folder, glob or URL; paths are relative to the config file."""
    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries its media."""
    tls: SourceTls = SourceTls()
    tenant: Name = "default"
    """Whose stream it is; stands in every event."""
    labels: dict[str, Text] = Field({})
    """Free text that stands in every event."""
    priority: Annotated[Whole, Field(ge=0, le=9)] = 5
    """0 to 9; the lowest is degraded first."""
    pace: Literal["asap", "realtime"] = "asap"
    """Files: as fast as possible, or at their own speed, which is live in every respect."""
    loop: bool = False
    """Files: start again at the end."""
    watch: bool = False
    """Folders and globs: also take files that appear later."""
    model: Models | None = None
    """Left out: the config's."""
    sampling: Sampling | None = None
    """Keys that differ from the config's."""
    policy: Policy | None = None
    """Keys that differ from the config's."""
    open_timeout_s: Annotated[Number, Field(gt=0, le=600)] = 5.0
    """Deadline of opening."""
    read_timeout_s: Annotated[Number, Field(gt=0, le=600)] = 5.0
    """Deadline of the next packet."""

    @property
    def scheme(self) -> str:
        """In lower case; ``file`` for paths."""
        match = URL.fullmatch(self.url)
        return match["scheme"].lower() if match else "file"

    @property
    def ends(self) -> bool:
        """Whether this comes to an end by itself: a file, folder or glob, or a film on a web server."""
        film = self.scheme in ("http", "https") and ".m3u8" not in self.url and self.pace == "asap"
        return (self.scheme == "file" or film) and not self.loop and not self.watch


class Config(_Part):
    """framewarden's config file."""

    node: Name = Field(default_factory=socket.gethostname, json_schema_extra={"default": "the host name"})
    """Name of this machine; stands in every event."""
    state_dir: Path = Path("state")
    """Folder of the outbox, the embedded Redis and the status; one run each. Relative to the config file."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto says what it chose and why; an explicit choice never falls back."""
    workers: Literal["auto"] | Annotated[Whole, Field(ge=1, le=1024)] = "auto"
    """Worker processes on a CPU; auto divides the cores. A GPU has one, whatever this says."""
    engine: Literal[
        "auto", "openvino-int8", "openvino-int8+f32", "openvino-bf16", "openvino-bf16+f32", "openvino-f32",
        "onnxruntime-f32", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda",
    ] = "auto"  # fmt: skip
    """What scores. auto on a CPU: an int8 that was built here and found right; else bfloat16 where processor
    and model allow it, near thresholds once more in float32; else float32. On a GPU: TensorRT. A named one is
    that one or an error."""
    gpus: Literal["all"] | tuple[Annotated[Whole, Field(ge=0)], ...] = "all"
    """Numbers of the GPUs to use, in CUDA's order: that of nvidia-smi with CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    log: Log = Log()
    shutdown_s: Annotated[Number, Field(gt=0, le=600)] = 8
    """How long a stop may take before workers are killed."""
    reload: Literal["never", "watch"] = "never"
    """watch: follow this file when it changes; never: only on SIGHUP."""
    redis: Redis = Redis()
    outbox: OutboxRules = OutboxRules()
    sources: Sources = Sources()
    limits: LimitRules = LimitRules()
    model: Models = ("open-nsfw",)
    """Name of a shipped model, or path of a manifest; or several."""
    batch: Batch = Batch()
    sampling: Sampling = Sampling()
    policy: Policy = Policy()
    streams: tuple[Stream, ...] = ()
    """What to screen."""
    _remember_files: bool = PrivateAttr(default=True)

    @property
    def remember_files(self) -> bool:
        """Whether a file that was screened to its end is left out the next time; not by ``screen``."""
        return self._remember_files

    def forgetful(self) -> Self:
        """The same, remembering no files."""
        config = self.model_copy()
        config._remember_files = False
        return config

    def outbox_limits(self) -> dict[str, Any]:
        """``max_bytes`` and ``keep_s``, as ``Outbox`` takes them."""
        return {"max_bytes": self.outbox.max_bytes, "keep_s": self.outbox.keep_s}

    def redis_dir(self) -> Path:
        """Folder in which the embedded server keeps its data and its address."""
        return self.redis.embedded.dir or self.state_dir

    def reach(self) -> Reach:
        """``sources`` as the source backend takes them."""
        return Reach(**self.sources.model_dump())

    def source_limits(self) -> Limits:
        """``limits`` as the source backend takes them."""
        return Limits(**self.limits.model_dump(exclude={"streams"}))

    def models_of(self, stream: Stream) -> tuple[str, ...]:
        return stream.model or self.model

    def sampling_of(self, stream: Stream) -> SamplingRules:
        """The stream's rules, its own keys over the config's."""
        return SamplingRules(**_merged(self.sampling, stream.sampling))

    def segment_rules(self, stream: Stream, category: str) -> SegmentRules:
        """Thresholds in force, its own keys over the config's; ``gap_s`` is 2 × ``max_gap_s`` unless set."""
        own = stream.policy.categories.get(category) if stream.policy else None
        rules = _merged(self.policy.categories.get(category, Thresholds()), own)
        if rules["gap_s"] is None:
            rules["gap_s"] = 2 * self.sampling_of(stream).max_gap_s
        return SegmentRules(**rules)

    def policy_info(self, stream: Stream) -> tuple[str, str]:
        """Name of the stream's policy, and the SHA-256 of all rules in force as canonical JSON."""
        name = (
            stream.policy.name
            if stream.policy and "name" in stream.policy.model_fields_set
            else self.policy.name
        )
        own = stream.policy.categories if stream.policy else {}
        others = _numbers(self.segment_rules(stream, ""))
        named = {key: _numbers(self.segment_rules(stream, key)) for key in {*self.policy.categories, *own}}
        special = {key: rules for key, rules in named.items() if rules != others}
        record = {"name": name, "categories": special, "others": others}
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
        return name, hashlib.sha256(canonical.encode()).hexdigest()


def _numbers(rules: SegmentRules) -> dict[str, float]:
    return {key: float(getattr(rules, key)) for key in Thresholds.model_fields}


def _merged(base: BaseModel, own: BaseModel | None) -> dict[str, Any]:
    return base.model_dump() | (own.model_dump(exclude_unset=True) if own else {})
