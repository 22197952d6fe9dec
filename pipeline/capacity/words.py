"""A plan in words, tables and JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline.bench.report import Table
from pipeline.capacity.cards import CARDS
from pipeline.capacity.demand import Seen
from pipeline.capacity.figures import Basis, Figure
from pipeline.capacity.fit import Bound
from pipeline.capacity.money import DEFAULT, Bill
from pipeline.capacity.plan import Plan, Row
from pipeline.capacity.supply import TITLES

VERSION = 1


def says(plan: Plan) -> Iterator[str]:
    """What came out, a sentence each."""
    count, usable = len(plan.rows), f"{plan.options.usable:.0%}"
    yield f"On {plan.server.title}, of which {usable} is planned with:"
    if not count:
        yield "Nothing could be seen of any stream, so there is nothing to plan with."
        return
    who = f"{count} stream{'s' if count != 1 else ''}"
    if plan.fit.first is None or plan.fit.carries is None:
        yield f"{who} fit; no bound is in sight."
    else:
        bound = next(bound for bound in plan.fit.bounds if bound.resource == plan.fit.first)
        yield (
            f"{who} {'fit' if plan.fit.fits else 'do NOT fit'}; {plan.more} more such stream"
            f"{'s' if plan.more != 1 else ''} would. First bound: {TITLES[bound.resource]} "
            f"({_percent(bound.share)} used, {_percent(bound.each)} a stream, {bound.carries} in all)."
        )
    if plan.unknown:
        known_like = "counted as like the others in what still fits, and in no other sum"
        yield f"{len(plan.unknown)} more: unknown; {known_like}."
    if any(row.probe.kind == "file" for row in plan.rows):
        yield "Files are counted as played at their own speed; they are read as fast as what is left allows."
    if any(not row.choice.sure for row in plan.rows):
        yield "Of some streams too little was seen to be sure of their plan: give --probe-seconds more."


def tables(plan: Plan) -> Iterator[Table]:
    """Streams, unknown ones, bounds, the bill, and where the numbers come from."""
    gpu = plan.options.target != "cpu"
    if plan.rows:
        decode = "NVDEC" if gpu else "CPU decode"
        titles = ("stream", "source", "plan", "decoded/s", "scored/s", decode, "engine")
        rest = (*(("GPU MB",) if gpu else ()), "memory MB", "Mbit/s", "alone fit")
        yield Table((*titles, *rest), [_row(row, gpu) for row in plan.rows], "streams")
    if plan.unknown:
        rows = [(one.probe.stream.id, one.probe.shown, one.reason, one.text) for one in plan.unknown]
        yield Table(("stream", "source", "reason", "said"), rows, "unknown")
    yield Table(
        (
            "resource",
            "used",
            "a stream",
            "carries",
            "more",
            "there is",
            "which is",
            "a stream's need is",
            "from",
        ),
        [_bound(plan, bound) for bound in plan.fit.bounds],
        "bounds",
    )
    yield Table(
        ("", "servers", "cores", "watts", "cost a month"),
        [
            (f"framewarden, {plan.server.title}", *_bill(plan.ours)),
            ("one core a stream", *_bill(plan.baseline)),
        ],
        f"{plan.options.streams} such streams",
    )
    yield Table(
        ("figure", "value", "unit", "basis", "from"),
        [
            (name, f"{one.value:,.3g}", one.unit, one.basis, one.source)
            for name, one in {**plan.figures, **prices(plan)}.items()
        ],
        "figures",
    )


def prices(plan: Plan) -> dict[str, Figure]:
    """What the bill is made of."""
    ours = plan.options.prices
    figures = {
        "core price": _price(ours.core_hour, DEFAULT.core_hour, "an hour", "--core-price"),
        "core watts": _price(ours.core_watts, DEFAULT.core_watts, "W", "--core-watts"),
    }
    if plan.options.target != "cpu":
        usual = CARDS[plan.options.target].price_hour
        figures["card price"] = _price(ours.card_hour, usual, "an hour", "--card-price")
    return figures


def _price(value: float, usual: float, unit: str, option: str) -> Figure:
    basis: Basis = "assumed" if value == usual else "given"
    return Figure(value, unit, basis, f"{option}{' gives your own' if value == usual else ''}")


def as_json(plan: Plan) -> dict[str, Any]:
    """For programs."""
    return {
        "version": VERSION,
        "target": plan.options.target,
        "server": plan.server.title,
        "usable": plan.options.usable,
        "fits": plan.fit.fits and bool(plan.rows),
        "first_bound": plan.fit.first,
        "carries": plan.fit.carries,
        "more": plan.more,
        "streams": [_stream_json(row) for row in plan.rows],
        "unknown": [
            {"id": one.probe.stream.id, "url": one.probe.shown, "reason": one.reason, "text": one.text}
            for one in plan.unknown
        ],
        "bounds": [
            asdict(bound)
            | {
                "has": plan.server.has[bound.resource].as_json(),
                "need_basis": plan.need_basis(bound.resource),
            }
            for bound in plan.fit.bounds
        ],
        "bill": {
            "framewarden": plan.ours.as_json() if plan.ours else None,
            "core_a_stream": plan.baseline.as_json(),
        },
        "figures": {name: figure.as_json() for name, figure in {**plan.figures, **prices(plan)}.items()},
    }


def _stream_json(row: Row) -> dict[str, Any]:
    return {
        "id": row.probe.stream.id,
        "url": row.probe.shown,
        "kind": row.probe.kind,
        "files": row.probe.files,
        "models": list(row.probe.models),
        "seen": asdict(row.seen),
        "max_gap_s": row.probe.rules.max_gap_s,
        "plan": row.choice.plan,
        "why": row.choice.why,
        "sure": row.choice.sure,
        "rates": asdict(row.rates),
        "need": dict(row.need),
        "decode_share": row.decode,
        "engine_share": row.engine,
        "alone": row.alone,
        "basis": row.basis,
    }


def _row(row: Row, gpu: bool) -> tuple[str | int | float | None, ...]:
    need = row.need
    return (
        row.probe.stream.id,
        source(row.seen),
        f"{row.choice.plan}{'' if row.choice.sure else '?'}: {row.choice.why}",
        f"{row.rates.decoded:.2f}",
        f"{row.rates.samples:.2f}",
        _percent(row.decode),
        _percent(row.engine),
        *((f"{need['gpu_memory']:.0f}",) if gpu else ()),
        f"{need['memory']:.0f}",
        f"{need['network']:.1f}",
        row.alone,
    )


def source(seen: Seen) -> str:
    """A stream in a few words."""
    gop = f"GOP {seen.gop_s:.3g} s" if seen.gop_s else f"no 2nd keyframe in {seen.watched_s:.3g} s"
    return f"{seen.codec} {seen.width}x{seen.height} {seen.fps:.4g}/s {gop} {seen.bits / 1e6:.3g} Mbit/s"


def _bound(plan: Plan, bound: Bound) -> tuple[str | int | float | None, ...]:
    amount = plan.server.has[bound.resource]
    figure = amount.figure
    why = f"{figure.source}; before the first stream: {amount.why_fixed}" if amount.fixed else figure.source
    return (
        TITLES[bound.resource],
        _percent(bound.share),
        _percent(bound.each),
        bound.carries,
        bound.more,
        f"{figure.value:,.0f} {figure.unit}",
        figure.basis,
        plan.need_basis(bound.resource),
        why,
    )


def _bill(bill: Bill | None) -> tuple[str | int | float | None, ...]:
    if bill is None:
        return (None, None, None, None)
    return (bill.servers, f"{bill.cores:,.0f}", f"{bill.watts:,.0f}", f"{bill.month:,.0f}")


def _percent(share: float) -> str:
    if share >= 100:
        return "over 100 x"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
