"""What a run will be: kinds of streams, workers, and the bounds that follow from the config."""

import os
from collections.abc import Iterable, Mapping
from math import ceil

from pipeline.backends import cuda_driver
from pipeline.backends.registry import Device
from pipeline.config import Config, Stream
from pipeline.config_types import LIVE_SCHEMES
from pipeline.engines import Manifest, load_manifest, weights
from pipeline.flow.ring import RING_BYTES
from pipeline.flow.sample_rules import HELD_BYTES
from pipeline.flow.source import Kind

CORES_PER_WORKER = 2
STREAMS_PER_WORKER = 100
"""More threads than that, a reader each, wait for the interpreter's lock more than they work."""
FLOAT32_BYTES = 4
RECORDS = 256
"""What a worker may want recorded before its inference waits for the disk."""
DECODER_MB = 30
"""What a software decoder of H.264 at 1080p holds between two packets: 10 without B-frames, 26 to 30 with
them."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def kind_of(stream: Stream) -> Kind:
    """Whether waiting for a stream loses it: cameras, paced files and HLS playlists are live, other files
    not."""
    playlist = stream.scheme in ("http", "https") and ".m3u8" in stream.url
    return "live" if stream.pace == "realtime" or stream.scheme in LIVE_SCHEMES or playlist else "file"


def gpus(config: Config, device: Device) -> tuple[str, ...]:
    """The UUIDs of the GPUs to use; none on a CPU.

    :raises ConfigError: the config names one that there is not."""
    return cuda_driver.chosen(config.gpus, cuda_driver.gpus()) if device == "gpu" else ()


def worker_count(config: Config, jobs: int, gpus: int) -> int:
    """One worker a GPU, whatever ``workers`` says. On a CPU ``auto`` gives a worker two cores: fewer would
    share a core with its own readers, more would let one crash cost more streams. Only beyond
    ``STREAMS_PER_WORKER`` there are more workers, up to one a core."""
    if gpus:
        return max(1, min(gpus, jobs))
    if config.workers != "auto":
        return max(1, min(int(config.workers), jobs))
    wanted = max(cores() // CORES_PER_WORKER, ceil(jobs / STREAMS_PER_WORKER))
    return max(1, min(wanted, cores(), jobs))


def at_once(of_cores: int) -> int:
    """How many threads of a worker decode or score at a time: one a core, and one more, which takes
    over a core while another comes to its end or waits for Python's lock. Without it cores were idle for 5 to
    10 % of the time while samples waited for them (96 streams on 2 cores: 1.80 instead of 1.92 at work)."""
    return of_cores + 1


def drain_s(config: Config) -> float:
    """How much of ``shutdown_s`` readers and records may take; the rest is for killing and for Redis."""
    return 0.6 * config.shutdown_s


def kill_s(config: Config) -> float:
    """When, after a stop, workers that are still alive are killed."""
    return 0.8 * config.shutdown_s


def slots(config: Config, streams: int) -> int:
    """Frames of one model that may wait in a worker: two batches and one picture a stream."""
    return 2 * config.batch.max_size + streams


def models_in_use(config: Config) -> tuple[str, ...]:
    """Every model that a stream names, each once."""
    return tuple(dict.fromkeys(name for stream in config.streams for name in config.models_of(stream)))


def bounds(config: Config, manifests: Mapping[str, Manifest], workers: int, streams: int) -> list[str]:
    """One line a bound: every queue and pool, with the arithmetic, as it is printed at start; ``streams`` are
    those of one worker at a time."""
    each = slots(config, streams)
    sampler, ring = HELD_BYTES / 1e6, RING_BYTES / 1e6
    each_has = cores() // workers or 1
    lines = [f"workers: {workers} of {each_has} cores"]
    for name, manifest in manifests.items():
        height, width, channels = _volume(manifest.spec.slot_shape())
        size = height * width * channels * FLOAT32_BYTES
        lines.append(
            f"frame pool {name}: {each} slots x {size / 1e3:.0f} kB = {each * size / 1e6:.0f} MB a worker"
        )
    lines.append(
        f"packets held: at most {sampler:.0f} MB by the sampler and {ring:.0f} MB by the ring of a stream, "
        f"{streams} x {sampler + ring:.0f} MB a worker; as a rule one GOP and max_gap_s"
    )
    shared = at_once(each_has)
    decoders = 2 * streams + each_has + shared
    lines.append(
        f"decoders: at most {decoders} x {DECODER_MB} MB = {decoders * DECODER_MB} MB a worker at 1080p: "
        f"of each of {streams} streams one for skip, full or a burst and one for a closer look, "
        f"{each_has} for keyframes ahead, {shared} for keyframes by themselves; a stream in plan keyframes "
        "holds none"
    )
    lines.append(
        f"decoding at once: {shared} a worker, keyframes of files held decoded: {each_has + 1}; "
        f"recordings waiting for the disk: {RECORDS}"
    )
    megabytes, hours = config.outbox.max_bytes / 1e6, config.outbox.keep_s / 3600
    lines.append(f"outbox: at most {megabytes:.0f} MB on disk; delivered events for at most {hours:.0f} h")
    return lines


def _volume(shape: Iterable[int]) -> tuple[int, int, int]:
    a, b, c = shape
    return a, b, c


def check_models(config: Config) -> dict[str, Manifest]:
    """Every model in use, its weights verified, before any input is opened. :raises ModelError: one is
    unusable."""
    manifests = {name: load_manifest(name) for name in models_in_use(config)}
    for manifest in manifests.values():
        weights(manifest)
    return manifests
