"""What Redis and the disk can do to a running service: fault by invariant, each a cell of its own.

``make test`` has a few; ``make faults`` sets ``FAULTS_FULL`` and has all. ``tests/service`` tries the same
faults on the publisher alone, quicker and with more events."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from tests.faults.absence import AWAY, absent
from tests.faults.cells import INVARIANTS, full, left, note, off_by, others
from tests.faults.certificates import CERTIFICATES, certificates
from tests.faults.disk_faults import DISK_FAULTS
from tests.faults.failover import CLUSTER, SENTINEL, cluster, sentinel
from tests.faults.matrix import NOT_ASKED
from tests.faults.redis_scene import BACK_S, REDIS_FAULTS, Act, RedisScene, play
from tests.faults.scene import MAX_GAP_S
from tests.fixtures.history import compare
from tests.fixtures.redis import RedisFactory, RedisServer

Performance = Callable[[Path, RedisFactory], RedisScene]
STAGE_FAULTS = {f"Redis: {name.replace('_', ' ')}": fault for name, fault in REDIS_FAULTS.items()} | {
    f"Disk: {name}": fault for name, fault in DISK_FAULTS.items()
}
QUICK = ("Redis: killed", "Redis: emptied", "Redis: cut before the reply", "Disk: deleted outbox")
FAULTS = tuple(STAGE_FAULTS) if full() else QUICK
SCENES: dict[Performance, tuple[str, ...]] = {
    sentinel: (SENTINEL,),
    cluster: (CLUSTER,),
    absent: (AWAY,),
    certificates: CERTIFICATES,
}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisScene]:
    """The service through all the faults."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "redis").mkdir()
    server = RedisServer(folder / "redis", {"requirepass": "kept"})
    server.start()
    try:
        yield play(folder, server, {name: STAGE_FAULTS[name] for name in FAULTS})
    finally:
        server.kill()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("invariant", INVARIANTS)
def test_delivery_when(
    fault: str, invariant: str, scene: RedisScene, record_property: Callable[[str, object], None]
) -> None:
    note(record_property, fault, invariant, partial(judge, scene, fault, invariant))


@pytest.mark.skipif(not full(), reason="by make faults; tests/service has them with the publisher alone")
@pytest.mark.parametrize("performance", SCENES, ids=lambda one: str(one.__name__))
def test_delivery_goes_on_after(
    performance: Performance,
    redis_factory: RedisFactory,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    scene = performance(tmp_path, redis_factory)
    failed = []
    for fault, invariant in product(SCENES[performance], INVARIANTS):
        if (fault, invariant) in NOT_ASKED:
            continue
        try:
            note(record_property, fault, invariant, partial(judge, scene, fault, invariant))
        except AssertionError as error:
            failed.append(f"{fault}, {invariant}: {error}")
    assert not failed


def judge(scene: RedisScene, fault: str, invariant: str) -> str:
    """What was measured; fails when the fault broke the invariant."""
    act = scene.acts[fault]
    accepted = [scene.events[place] for place in act.accepted]
    meant = {event.id for event in accepted}
    seen = [event for event in scene.seen if event.id in meant]
    verdict = compare(accepted, seen, folded=fault == AWAY)
    match invariant:
        case "struck":
            assert act.struck > 0
            return f"{act.struck} times"
        case "delivered":
            assert any(event.state == "closed" for event in accepted)
            assert not verdict.lost, str(verdict)
            folded = len(accepted) - len(seen)
            assert folded or fault != AWAY, "no update had to go"
            return f"{verdict.accepted} events" + (f", {folded} updates folded" if folded else "")
        case "unique":
            assert not verdict.duplicated, str(verdict)
            return "for readers of the kit"
        case "ordered":
            assert not verdict.reordered, str(verdict)
            return f"{verdict.accepted} events"
        case "coverage":
            return coverage(scene, act)
        case "back":
            assert act.back_s <= BACK_S
            return f"in {act.back_s:.1f} s"
        case "nothing left":
            return left(act.before, act.after)
        case "alive":
            assert act.before.pids == act.after.pids, "a process was replaced"
            assert scene.code == 0, scene.stderr[-2000:]
            return f"{len(act.after.pids)} processes"
        case "others":
            return others(act.before, act.after)
    raise AssertionError(f"{invariant} is not judged")


def coverage(scene: RedisScene, act: Act) -> str:
    """The four seconds of each stream add up, and the time in which it could not be screened is among
    them."""
    worst, dropped = 0.0, []
    envelopes = [json.loads(event.body) for event in scene.events]
    for stream in {event.stream for event in scene.events}:
        own = [one for one in envelopes if one["data"]["stream"]["id"] == stream]
        worst = max(worst, off_by(own))
        dropped.append(float(own[-1]["data"]["dropped_s"]))
    said = f"{worst * 1e3:.0f} ms off"
    if not act.waited_s:
        return said
    least = act.waited_s - 2 * MAX_GAP_S
    assert min(dropped) >= least, (
        f"{act.waited_s:.1f} s not screened, {min(dropped):.1f} s said to be dropped"
    )
    return f"{said}; {min(dropped):.1f} s or more dropped, as all waited for {act.waited_s:.1f} s"
