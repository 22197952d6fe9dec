"""What ``bench flash`` found, as sentences, tables, plots and JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from pipeline.bench.flash import BEGINS_S, FILM_S, RATE, Found, Recall
from pipeline.bench.report import Cell, Lines, Section, Table

EXPECTED = "length / gap"
NEAR_S = 0.75
"""Told in words: the longest flash below this share of the gap, where much is left to luck."""


def section(found: Sequence[Found], *, runs: int) -> Section:
    """``found`` holds every plan at every gap, each measured ``runs`` times."""
    gaps = sorted({one.case.max_gap_s for one in found})
    by_gap = [[one for one in found if one.case.max_gap_s == gap] for gap in gaps]
    says = [_how(runs), _whole(found), *(_in_words(group) for group in by_gap), _cure()]
    tables = [_cases(found), *(_table(group) for group in by_gap)]
    plots = [_plot(group, adversarial=adversarial) for group in by_gap for adversarial in (False, True)]
    data = {
        "film_s": FILM_S,
        "rate": RATE,
        "runs": runs,
        "cases": [asdict(one) for one in found],
        "says": says,
    }
    return Section("flash", "Recall against the length of a flash", says, tables, data, plots)


def _how(runs: int) -> str:
    return (
        f"A film of {FILM_S:g} s at {RATE} pictures a second, each of which shows its number, went {runs} "
        "times through the real source, sampler and decoder. A flash is seen when one of its pictures is "
        "among those that would be scored. Flashes were tried at every picture after the first "
        f"{BEGINS_S:g} s. Random: the mean over all of them. Worst phase: all begin at that distance "
        "behind a keyframe at which fewest were seen in one half of the runs, and are counted in the other. "
        "Beside them stands what one sample a gap would give, min(1, length / gap)."
    )


def _whole(found: Sequence[Found]) -> str:
    """Whether flashes as long as the promised gap are all seen."""
    long = [one for case in found for one in case.recalls if one.seconds >= case.case.max_gap_s]
    missed = [one for one in long if min(one.random, one.adversarial) < 1.0]
    if not long:
        return "No flash was as long as a promised gap."
    if not missed:
        return (
            "Every flash at least as long as the promised gap was seen, at every phase and with every plan."
        )
    least = min(min(one.random, one.adversarial) for one in missed)
    return f"NOT every flash as long as the promised gap was seen: recall goes down to {least:.3f}."


def _in_words(group: Sequence[Found]) -> str:
    gap_s = group[0].case.max_gap_s
    told = [
        (
            one.case.name,
            max((r for r in one.recalls if r.seconds <= NEAR_S * gap_s), key=_seconds, default=None),
        )
        for one in group
    ]
    parts = [
        f"{name} {100 * r.random:.0f} % ({100 * r.adversarial:.0f} % at the worst phase)"
        for name, r in told
        if r
    ]
    length = next((r.seconds for _, r in told if r), None)
    if length is None:
        return f"Gap {gap_s:g} s: every length tried is near the gap or above."
    return f"Gap {gap_s:g} s, a flash of {length:g} s is seen: {', '.join(parts)}."


def _cure() -> str:
    return (
        "Who knows where the keyframes are can hide a flash between them, and the audit finds few of those. "
        "Against that, plan full or skip (which draw their times), or a gap no longer than the flash that "
        "must not pass."
    )


def _seconds(recall: Recall) -> float:
    return recall.seconds


def _cases(found: Sequence[Found]) -> Table:
    titles = (
        "film and plan",
        "promised gap s",
        "keyframe every s",
        "plan in force",
        "samples a second",
        "worst gap s",
        "sha256 of the film",
    )
    rows: list[tuple[Cell, ...]] = [
        (c.name, c.max_gap_s, c.gop_s, one.plan, one.samples_a_second, one.worst_gap_s, one.sha256)
        for one in found
        for c in (one.case,)
    ]
    return Table(titles, rows, "What was screened")


def _table(group: Sequence[Found]) -> Table:
    titles = ["flash, s", EXPECTED]
    for one in group:
        titles += [one.case.name, "worst phase"]
    rows: list[tuple[Cell, ...]] = []
    for number, first in enumerate(group[0].recalls):
        here = [one.recalls[number] for one in group]
        rates = [f"{rate:.3f}" for one in here for rate in (one.random, one.adversarial)]
        rows.append((f"{first.seconds:g}", f"{first.expected:.3f}", *rates))
    return Table(
        tuple(titles), rows, f"Share of flashes seen with a promised gap of {group[0].case.max_gap_s:g} s"
    )


def _plot(group: Sequence[Found], *, adversarial: bool) -> Lines:
    names = (*(one.case.name for one in group), EXPECTED)
    lines = [[(r.seconds, r.adversarial if adversarial else r.random) for r in one.recalls] for one in group]
    lines.append([(r.seconds, r.expected) for r in group[0].recalls])
    phase = "adversarial" if adversarial else "random"
    title = f"Promised gap {group[0].case.max_gap_s:g} s, {phase} phase"
    return Lines(title, "length of the flash, s", "share seen", names, lines)
