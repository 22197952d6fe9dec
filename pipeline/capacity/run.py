"""Probes a config's sources, measures what is to be measured, and makes the plan."""

import threading
from collections.abc import Callable

from pipeline.bench.machine import this_machine
from pipeline.capacity import here, plan, servers
from pipeline.capacity.cards import CARDS
from pipeline.capacity.meter import Meter
from pipeline.capacity.options import Options
from pipeline.capacity.probe import Probe, Prober
from pipeline.capacity.words import source
from pipeline.config import Config
from pipeline.engines import load_manifest
from pipeline.service.plan import CORES_PER_WORKER, check_models, models_in_use

Say = Callable[[str], None]


def make(
    config: Config, options: Options, *, seconds: float, meter_s: float, stop: threading.Event, say: Say
) -> plan.Plan | None:
    """The plan; None when ``stop`` was set before it was done. Without a card pictures are measured for at
    most ``meter_s`` seconds of CPU.

    :raises ModelError: a model cannot be used here (without a card: its weights are needed).
    :raises BenchError: its engine failed."""
    names = models_in_use(config)
    card = None if options.target == "cpu" else CARDS[options.target]
    manifests = check_models(config) if card is None else {name: load_manifest(name) for name in names}
    specs = {name: manifest.spec for name, manifest in manifests.items()}
    say(f"probing {len(config.streams)} source{'s' if len(config.streams) != 1 else ''}")
    prober = Prober(config, seconds, specs, Meter(meter_s) if card is None else None)
    probes = prober.probe_all(stop, lambda probe: say(_line(probe)))
    if stop.is_set():
        return None
    if card is not None:
        server = servers.gpu_server(card, list(specs.values()), config.batch.max_size, options)
        return plan.make(options, server, probes, specs, None)
    say("measuring the engine" + ("s" if len(names) > 1 else ""))
    machine = this_machine()
    engines = here.measure(names, min(CORES_PER_WORKER, machine.cores))
    workers = None if config.workers == "auto" else int(config.workers)
    server = servers.cpu_server(machine, engines, options, workers)
    return None if stop.is_set() else plan.make(options, server, probes, specs, engines)


def _line(probe: Probe) -> str:
    return f"  {probe.stream.id}: " + (source(probe.seen) if probe.seen else f"{probe.reason}: {probe.text}")
