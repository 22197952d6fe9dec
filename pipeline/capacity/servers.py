"""The server that is planned for: this machine without a card, or one with a card that we may not have."""

from collections.abc import Mapping, Sequence

from pipeline.backends.nvdec_memory import RESERVE_MB
from pipeline.bench.machine import Machine
from pipeline.capacity.cards import Card
from pipeline.capacity.figures import Basis, Figure
from pipeline.capacity.here import Engines
from pipeline.capacity.options import GPU_SERVER_CORES, GPU_SERVER_GB, NETWORK_MBIT, Options
from pipeline.capacity.supply import Amount, Resource, Server
from pipeline.flow.frames import InputSpec
from pipeline.service.plan import CORES_PER_WORKER, FLOAT32_BYTES

SUPERVISOR_MB, WORKER_MB = 400.0, 600.0
"""Supervisor, Redis and the system; a worker before its first stream, where none was measured."""
SUPERVISOR_CORES = 0.05
"""Supervisor, publisher and Redis, however few the streams are."""
GPU_CONTEXT_MB, GPU_ENGINE_MB, GPU_BUFFERS = 600.0, 500.0, 3


def slot_mb(specs: Sequence[InputSpec]) -> float:
    """MB of one picture for every model, in float32."""
    total = 0
    for spec in specs:
        a, b, c = spec.slot_shape()
        total += a * b * c
    return total * FLOAT32_BYTES / 1e6


def cpu_server(machine: Machine, engines: Engines, options: Options, workers: int | None) -> Server:
    """A server without a card, with cores like this machine's. ``workers`` are the config's; None: auto."""
    cores = options.cores or machine.cores
    count = workers or max(1, cores // CORES_PER_WORKER)
    return Server(
        f"{cores} core{'s' if cores != 1 else ''} like this machine's ({machine.cpu})",
        {
            "cpu": _cores(
                options.cores, Figure(machine.cores, "cores", "measured", f"this machine: {machine.cpu}")
            ),
            "interpreter": _interpreters(count, "a worker"),
            "memory": _memory(
                options.memory_gb,
                Figure(machine.memory_gb, "GB", "measured", "/proc/meminfo"),
                count * engines.worker_mb + SUPERVISOR_MB,
                f"{count} x {engines.worker_mb:.0f} MB a worker with its engines (measured), "
                f"{SUPERVISOR_MB:.0f} MB for the rest (assumed)",
            ),
            "network": _network(options),
        },
    )


def gpu_server(card: Card, specs: Sequence[InputSpec], batch: int, options: Options) -> Server:
    """A server with one card. Streams in other codecs than H.264 are counted by what they would fill."""
    h264 = card.decode_rate("h264", options.video_mhz)
    if h264 is None:
        raise ValueError(f"{card.name}: a card without H.264")
    engine = card.engine_rate()
    if options.engine_rate is not None:
        engine = Figure(options.engine_rate, "pictures/s", "given", "--engine-rate")
    cores = options.cores or GPU_SERVER_CORES
    fixed = GPU_CONTEXT_MB + RESERVE_MB + len(specs) * GPU_ENGINE_MB + GPU_BUFFERS * batch * slot_mb(specs)
    decoders = f"H.264: {h264.value:,.0f} {h264.unit}; {h264.source}"
    amounts: Mapping[Resource, Amount] = {
        "nvdec": Amount(Figure(1.0, "card", h264.basis, decoders)),
        "engine": Amount(engine),
        "gpu_memory": Amount(
            Figure(card.memory_gb * 1e3, "MB", "derived", f"{card.title}: data sheet"),
            fixed,
            f"{GPU_CONTEXT_MB:.0f} MB context, {GPU_ENGINE_MB:.0f} MB a model, {RESERVE_MB:.0f} MB that no "
            f"decoder gets (assumed), {GPU_BUFFERS} x {batch} slots",
        ),
        "cpu": _cores(
            options.cores, Figure(GPU_SERVER_CORES, "cores", "assumed", "a server with one card")
        ),
        "interpreter": _interpreters(1, "a card"),
        "memory": _memory(
            options.memory_gb,
            Figure(GPU_SERVER_GB, "GB", "assumed", "a server with one card"),
            WORKER_MB + SUPERVISOR_MB,
            f"{WORKER_MB:.0f} MB a worker, {SUPERVISOR_MB:.0f} MB for the rest (assumed)",
        ),
        "network": _network(options),
    }  # fmt: skip
    return Server(f"one {card.title}, {cores} cores", amounts)


def _cores(given: int | None, known: Figure) -> Amount:
    if given is not None:
        known = Figure(float(given), "cores", "given", "--cores")
    return Amount(known, SUPERVISOR_CORES, f"{SUPERVISOR_CORES:g} for supervisor and Redis (assumed)")


def _interpreters(count: int, what: str) -> Amount:
    text = f"one Python interpreter {what}; reading and bookkeeping hold it"
    return Amount(Figure(float(count), "interpreters", "config", text))


def _memory(given_gb: float | None, known: Figure, fixed_mb: float, why: str) -> Amount:
    value, basis, source = known.value, known.basis, known.source
    if given_gb is not None:
        value, basis, source = given_gb, "given", "--memory-gb"
    return Amount(Figure(value * 1e3, "MB", basis, source), fixed_mb, why)


def _network(options: Options) -> Amount:
    given = options.network_mbit is not None
    basis: Basis = "given" if given else "assumed"
    value = options.network_mbit if options.network_mbit is not None else NETWORK_MBIT
    return Amount(Figure(value, "Mbit/s", basis, "--network-mbit" if given else "one gigabit"))
