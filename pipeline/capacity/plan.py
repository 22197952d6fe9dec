"""A capacity plan: every stream's needs on a server, how many more fit, what is full first, what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pipeline.backends.nvdec_memory import FULL_HD_MB, LEAST_MB
from pipeline.capacity import demand
from pipeline.capacity.cards import CARDS, Card
from pipeline.capacity.demand import Choice, CpuCost, Rates, Seen
from pipeline.capacity.figures import Basis, Figure, weakest
from pipeline.capacity.fit import Fit, Need, fit
from pipeline.capacity.here import Engines
from pipeline.capacity.money import Bill, bill, core_a_stream
from pipeline.capacity.options import Options
from pipeline.capacity.probe import Probe
from pipeline.capacity.servers import slot_mb
from pipeline.capacity.supply import Resource, Server
from pipeline.flow.frames import InputSpec

NEEDS: Mapping[Resource, str] = {
    "nvdec": "plan, and size of picture",
    "engine": "plan",
    "gpu_memory": "assumed",
    "cpu": f"reading measured here, {demand.SERVICE_MS:g} ms assumed",
    "interpreter": f"reading measured here, {demand.SERVICE_MS:g} ms assumed",
    "memory": "packets measured, the rest assumed",
    "network": "measured",
}
"""What a stream's need of each rests on."""
READ_MS = 2.0
"""CPU of reading a stream-second where it could not be measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stream that was seen. ``need`` is in the units of the server's figures; ``decode`` and ``engine`` are
    shares of the card's parts, or of the server's cores. ``alone`` is how many such streams fit on an empty
    server. ``basis`` is the weakest of what its cost is made of."""

    probe: Probe
    seen: Seen
    choice: Choice
    rates: Rates
    need: Need
    decode: float
    engine: float
    basis: Basis
    alone: int | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A stream that is in no sum, and why."""

    probe: Probe
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """``fit`` is of the seen streams together. ``ours`` and ``baseline`` are for ``options.streams`` mean
    streams; ``ours`` is None when the server carries none, or nothing was seen. ``figures`` are the numbers
    that the needs are made of."""

    options: Options
    server: Server
    rows: Sequence[Row]
    unknown: Sequence[Unknown]
    fit: Fit
    figures: Mapping[str, Figure]
    ours: Bill | None
    baseline: Bill

    def need_basis(self, resource: Resource) -> str:
        """What a stream's need of a resource rests on, in words."""
        if resource == "cpu" and self.options.target == "cpu":
            rows = weakest("measured", *(row.basis for row in self.rows))
            return f"{rows}, {demand.SERVICE_MS:g} ms assumed"
        return NEEDS[resource]

    @property
    def more(self) -> int | None:
        """How many more mean streams fit, once the unknown ones are there and like the others."""
        more = self.fit.more
        return None if more is None else max(0, more - len(self.unknown))


def make(
    options: Options,
    server: Server,
    probes: Sequence[Probe],
    specs: Mapping[str, InputSpec],
    engines: Engines | None,
) -> Plan:
    """The plan for what was probed. ``engines`` are this machine's, for a server without a card."""
    card = None if options.target == "cpu" else CARDS[options.target]
    unknown = [Unknown(probe, probe.reason, probe.text) for probe in probes if probe.seen is None]
    costs = CostBook(probes, engines.ms if engines else {})
    rows: list[Row] = []
    for probe in probes:
        if probe.seen is None or probe.choice is None:
            continue
        row = _row(options, server, card, probe, probe.seen, probe.choice, costs, specs)
        if row is None:
            codec = probe.seen.codec
            text = f"{server.title}: cannot decode {codec}; device auto would decode it in software"
            unknown.append(Unknown(probe, "unsupported", text))
        else:
            rows.append(row)
    found = fit(server, [row.need for row in rows], options.usable)
    cores = server.has["cpu"].figure.value
    return Plan(
        options=options,
        server=server,
        rows=rows,
        unknown=unknown,
        fit=found,
        figures=_figures(card, options, costs, rows) | _engine_figures(engines),
        ours=bill(options.streams, found.carries, cores, 0 if card is None else 1, options.prices),
        baseline=core_a_stream(options.streams, cores, options.prices),
    )


class CostBook:
    """CPU costs of pictures: a stream's own where they were measured, else the middle of the others', a
    keyframe's and a picture's by their bytes."""

    def __init__(self, probes: Sequence[Probe], engine_ms: Mapping[str, float]) -> None:
        seen = [probe.seen for probe in probes if probe.seen is not None]
        self._engine_ms = engine_ms
        self.read_ms = _middle([one.read_ms for one in seen])
        self.still_ms_a_kb = _middle(
            [1e3 * one.still_ms / one.keyframe_bytes for one in seen if one.still_ms is not None]
        )
        self.fed_ms_full_hd = _middle(
            [one.fed_ms / one.full_hd for one in seen if one.fed_ms is not None and one.full_hd > 0]
        )
        self.convert_ms = _middle([one.convert_ms for one in seen])

    def of(self, seen: Seen, models: Sequence[str]) -> CpuCost:
        """A stream's costs."""
        own = None not in (seen.still_ms, seen.fed_ms, seen.convert_ms)
        return CpuCost(
            read=self.reading(seen),
            still=_first(seen.still_ms, (self.still_ms_a_kb or 0.0) * seen.keyframe_bytes / 1e3),
            fed=_first(seen.fed_ms, (self.fed_ms_full_hd or 0.0) * seen.full_hd),
            convert=_first(seen.convert_ms, self.convert_ms or 0.0),
            engine=sum(self._engine_ms.get(name, 0.0) for name in models),
            basis="measured" if own else "derived" if self.still_ms_a_kb is not None else "assumed",
        )

    def reading(self, seen: Seen) -> float:
        """CPU ms a stream-second for reading, sampling and bookkeeping."""
        return _first(seen.read_ms, self.read_ms or READ_MS) + demand.SERVICE_MS


def _row(
    options: Options,
    server: Server,
    card: Card | None,
    probe: Probe,
    seen: Seen,
    choice: Choice,
    costs: CostBook,
    specs: Mapping[str, InputSpec],
) -> Row | None:
    """The stream on the server; None: the card cannot decode it."""
    rates = demand.rates(probe.rules, choice, seen)
    slots = slot_mb([specs[name] for name in probe.models])
    need = {
        "interpreter": costs.reading(seen) / 1e3,
        "memory": demand.host_mb(probe.rules, choice, seen, slots, software=card is None),
        "network": seen.bits / 1e6 if seen.remote else 0.0,
    }
    basis: Basis
    if card is None:
        cost = costs.of(seen, probe.models)
        decode, engine = cost.decode_cores(rates), cost.engine_cores(rates)
        need["cpu"], basis = decode + engine, cost.basis
        decode, engine = (part / server.has["cpu"].figure.value for part in (decode, engine))
    else:
        rate = card.decode_rate(seen.codec, options.video_mhz)
        if rate is None:
            return None
        need["cpu"] = costs.reading(seen) / 1e3
        basis = weakest(rate.basis, server.has["engine"].figure.basis)
        need["nvdec"] = decode = demand.nvdec_share(rates, seen, rate.value)
        need["engine"] = rates.samples * len(probe.models)
        need["gpu_memory"] = demand.surfaces_mb(seen)
        engine = need["engine"] / server.has["engine"].figure.value
    typed: Need = {resource: need[resource] for resource in server.has}
    alone = fit(server, [typed], options.usable).carries
    return Row(probe, seen, choice, rates, typed, decode, engine, basis, alone)


def _figures(card: Card | None, options: Options, costs: CostBook, rows: Sequence[Row]) -> dict[str, Figure]:
    """What the needs are made of, by name."""
    figures = {"service": Figure(demand.SERVICE_MS, "CPU ms a stream-second", "assumed", "bookkeeping")}
    if costs.read_ms is not None:
        figures["reading"] = Figure(costs.read_ms, "CPU ms a stream-second", "measured", "the middle stream")
    if card is None:
        for name, value, unit in (
            ("keyframe", costs.still_ms_a_kb, "CPU ms a kB of keyframe"),
            ("picture", costs.fed_ms_full_hd, "CPU ms a picture fed, full HD"),
            ("conversion", costs.convert_ms, "CPU ms a scored picture"),
        ):
            if value is not None:
                figures[name] = Figure(value, unit, "measured", "the middle stream, on this machine")
        return figures
    for codec in sorted({row.seen.codec for row in rows}):
        rate = card.decode_rate(codec, options.video_mhz)
        if rate is not None:
            figures[f"NVDEC {codec}"] = rate
    text = f"not below {LEAST_MB:.0f} MB; grows with the picture"
    figures["surfaces"] = Figure(FULL_HD_MB, "MB a full-HD decoder", "assumed", text)
    figures["watts"] = Figure(card.watts, "W", "derived", f"{card.title}: data sheet")
    return figures


def _engine_figures(engines: Engines | None) -> dict[str, Figure]:
    if engines is None:
        return {}
    return {
        f"engine {name}": Figure(ms, "CPU ms a picture", "measured", f"{engines.engine[name]}, this machine")
        for name, ms in engines.ms.items()
    }


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _first(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
