"""The table's columns, and what each of them demands of a source fault."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pipeline.events import Event
from tests.faults.scene import BACK_S, CALM, MAX_GAP_S, Moment, Scene, closed
from tests.faults.sources import GOP_S
from tests.fixtures.history import Verdict, compare

INVARIANTS = (
    "struck",
    "delivered",
    "unique",
    "ordered",
    "coverage",
    "back",
    "nothing left",
    "alive",
    "others",
)
ADDS_UP_S, ADDS_UP_BUSY_S = 0.1, 0.25
GREW_MB = 32.0
"""Room for what an allocator keeps: a leak of one decoder context or of one ring would be more."""
PARTS = ("screened_s", "late_s", "dropped_s", "lost_s")


def full() -> bool:
    """``make faults`` has a machine of its own: speed is judged, too. ``make test`` may run beside others."""
    return os.environ.get("FAULTS_FULL") == "1"


def note(tell: Callable[[str, object], None], fault: str, invariant: str, judged: Callable[[], str]) -> None:
    """Judge a cell, and have pytest's report carry what came of it: ``cell``, or ``red`` and why."""
    try:
        tell("cell", (fault, invariant, judged()))
    except AssertionError as error:
        tell("red", (fault, invariant, str(error)[:300]))
        raise


def judge(scene: Scene, fault: str, invariant: str) -> str:
    """What was measured, in few words. Fails when the fault broke the invariant."""
    return JUDGES[invariant](scene, fault)


def _struck(scene: Scene, fault: str) -> str:
    count = scene.struck[fault]
    assert count > 0, f"{fault} never struck"
    return f"{count} times"


def _delivered(scene: Scene, fault: str) -> str:
    found, again = 0, closed(scene.healed_at)
    for stream in scene.hazards[fault].streams:
        ends = [event for event in scene.events if event.stream == stream and event.state == "closed"]
        assert any(map(again, ends)), f"{stream} closed no segment after the fault"
        found += len(ends)
    verdict = _verdict(scene, fault)
    assert not verdict.lost, str(verdict)
    assert not verdict.strange, str(verdict)
    return f"{found} segments"


def _unique(scene: Scene, fault: str) -> str:
    verdict = _verdict(scene, fault)
    assert not verdict.duplicated, str(verdict)
    accepted = [event.id for event in scene.events]
    assert len(accepted) == len(set(accepted)), "an id was used twice"
    return f"{verdict.accepted} events"


def _ordered(scene: Scene, fault: str) -> str:
    verdict = _verdict(scene, fault)
    assert not verdict.reordered, str(verdict)
    revisions: dict[str, int] = {}
    for event in _of(scene.events, scene, fault):
        if event.segment_id is not None:
            assert event.rev == revisions.get(event.segment_id, 0) + 1, f"{event.id} is not the next revision"
            revisions[event.segment_id] = event.rev
    return f"{len(revisions)} segments"


def off_by(envelopes: list[dict[str, Any]]) -> float:
    """By how many seconds a stream's four parts miss the wall time from when it was added to its last event.

    ``envelopes`` are all of the stream's, in order."""
    gaps = [one["data"] for one in envelopes if one["type"] == "framewarden.coverage.v1"]
    last = [one for one in envelopes if one["type"] == "framewarden.stream.v1"][-1]
    stream = last["data"]["stream"]["id"]
    assert last["data"]["state"] == "ended", f"{stream} did not end: {last['data']['state']}"
    assert gaps, f"{stream}: nothing says when it was added"
    assert gaps[0]["cause"] == "not_started", f"{stream}: its first seconds are said to be {gaps[0]['cause']}"
    total = sum(last["data"][part] for part in PARTS)
    wall = _unix(last["time"]) - _unix(gaps[0]["wall"]["from"])
    worst = max(abs(total - wall), abs(total - last["data"]["duration_s"]))
    assert worst <= (ADDS_UP_S if full() else ADDS_UP_BUSY_S), (
        f"{stream}: {total:.3f} s accounted for, {wall:.3f} s have passed"
    )
    return float(worst)


def _coverage(scene: Scene, fault: str) -> str:
    worst, hazard = 0.0, scene.hazards[fault]
    for stream in hazard.streams:
        worst = max(worst, off_by(scene.of(stream)))
        if hazard.silent:
            away = scene.healed_at - scene.struck_at - 2 * MAX_GAP_S
            lost = scene.after.lost_s(stream) - scene.before.lost_s(stream)
            assert lost >= away, f"{stream}: away for {away:.1f} s at least, but only {lost:.1f} s are lost"
    return f"{worst * 1e3:.0f} ms off"


def _back(scene: Scene, fault: str) -> str:
    """Connected soon after the fault ended, if it was not all the time."""
    slowest = 0.0
    for stream in scene.hazards[fault].streams:
        states = [
            (_unix(one["time"]), one["data"]["state"]) for one in scene.of(stream, "framewarden.stream.v1")
        ]
        up = [state in ("connected", "recovered") for at, state in states if at <= scene.healed_at]
        later = [at for at, state in states if at > scene.healed_at and state == "recovered"]
        if up and up[-1] and not later:
            continue
        assert later, f"{stream} did not come back"
        slowest = max(slowest, later[-1] - scene.healed_at)
    assert slowest <= BACK_S, f"back only after {slowest:.1f} s"
    return f"in {slowest:.1f} s" if slowest else "was never away"


def left(before: Moment, after: Moment) -> str:
    """Threads, files and memory are what they were."""
    assert after.threads <= before.threads, f"threads: {before.threads} before, {after.threads} after"
    assert after.files <= before.files, f"open files: {before.files} before, {after.files} after"
    grew = after.memory_mb - before.memory_mb
    assert grew <= GREW_MB, f"memory: {before.memory_mb:.0f} MB before, {after.memory_mb:.0f} after"
    return (
        f"{after.threads - before.threads:+d} threads, {after.files - before.files:+d} files, {grew:+.0f} MB"
    )


def _alive(scene: Scene, fault: str) -> str:
    assert scene.before.pids == scene.during.pids == scene.after.pids, "a process was replaced"
    assert scene.code == 0, scene.stderr[-2000:]
    return f"{len(scene.before.pids)} processes"


def others(before: Moment, after: Moment) -> str:
    """Streams that no fault struck: nothing lost, late or dropped, no longer gap, and as soon as before; but
    for a keyframe that comes one later, as on any busy machine, and for what the machine was held up."""
    said, held_up = [], after.held_up_s - before.held_up_s
    for stream in CALM:
        more = after.lost_s(stream, own=full()) - before.lost_s(stream, own=full())
        assert more <= 2 * GOP_S + held_up, f"{stream} was not screened for {more:.2f} s"
        if not full():
            said.append(f"{more:.2f} s lost")
            continue
        early, late = _gap_worst(before, stream), _gap_worst(after, stream)
        assert late <= max(early, MAX_GAP_S * 1.05) + GOP_S + held_up, f"{stream}: a gap of {late} s"
        early_ms, late_ms = _p99(before, stream), _p99(after, stream)
        most_ms = max(2 * early_ms, early_ms + 400) + held_up * 1e3
        assert late_ms <= most_ms, f"{stream}: p99 was {early_ms:.0f} ms, is {late_ms:.0f}"
        said.append(f"{late:.2f} s, {late_ms:.0f} ms")
    return "; ".join(said) + (f" (machine held up {held_up:.1f} s)" if held_up >= ADDS_UP_S else "")


JUDGES: dict[str, Callable[[Scene, str], str]] = {
    "struck": _struck,
    "delivered": _delivered,
    "unique": _unique,
    "ordered": _ordered,
    "coverage": _coverage,
    "back": _back,
    "nothing left": lambda scene, fault: left(scene.before, scene.after),
    "alive": _alive,
    "others": lambda scene, fault: others(scene.before, scene.after),
}


def _gap_worst(moment: Moment, stream: str) -> float:
    return float(moment.rows[stream]["gap_worst_s"])


def _p99(moment: Moment, stream: str) -> float:
    return float(moment.rows[stream]["latency_ms"]["p99"])


def _of(events: list[Event], scene: Scene, fault: str) -> list[Event]:
    return [event for event in events if event.stream in scene.hazards[fault].streams]


def _verdict(scene: Scene, fault: str) -> Verdict:
    """What became of the events of the streams that the fault struck; whole, not by the reader's mercy."""
    seen = _of([Event.from_json(body) for body in scene.entries], scene, fault)
    return compare(_of(scene.events, scene, fault), seen)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
