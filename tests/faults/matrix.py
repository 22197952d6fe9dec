"""Which faults there are, and which test judges which invariant of each: the table must have a cell for all.

Cells come from two kinds of tests. Those of ``tests/faults`` say their cell themselves. Those of other files
assert several invariants in one test; they are listed here by name, with what they assert."""

import re
from collections.abc import Iterator

from tests.faults.absence import AWAY
from tests.faults.cells import INVARIANTS
from tests.faults.certificates import CERTIFICATES
from tests.faults.redis_scene import REDIS_FAULTS
from tests.faults.sources import SOURCE_FAULTS

CARRIED = ("struck", "delivered", "unique", "ordered", "back", "nothing left", "alive")
"""What ``test_nothing_is_lost…`` asserts with the history checker, on the publisher alone."""
KEPT = ("struck", "delivered", "unique", "ordered", "back", "alive")
"""What a test of the outbox on a bad disk asserts: the list of what was accepted, and that it goes on."""
REDIS = "tests/service/test_redis_faults.py::"
DISK = "tests/test_outbox_disk.py::"
RUN = "tests/service/test_outbox_in_a_run.py::"

ASSERTED: dict[str, tuple[str, tuple[str, ...]]] = {
    REDIS + "test_a_failover_by_sentinel": ("Redis: a Sentinel failover", CARRIED),
    REDIS + "test_a_cluster_whose_node_is_killed": ("Redis: a killed node of a cluster", CARRIED),
    REDIS + "test_an_absence_too_long_for_the_outbox": (AWAY, CARRIED),
    DISK + "test_a_full_disk_refuses": ("Disk: full", KEPT),
    DISK + "test_a_read_only_disk": ("Disk: read-only", KEPT),
    DISK + "test_a_torn_last_page": ("Disk: torn last page (what it still held)", KEPT),
    DISK + "test_a_damaged_database": ("Disk: damaged database (what it still held)", KEPT),
    DISK + "test_a_deleted_outbox": ("Disk: deleted outbox", KEPT),
    DISK + "test_writers_in_threads_and_processes": ("Disk: deleted outbox", KEPT),
    RUN + "test_a_full_outbox_is_said": (AWAY, KEPT),
    RUN + "test_a_deleted_outbox_loses_nothing": ("Disk: deleted outbox", ("delivered", "alive")),
    **{
        f"{REDIS}test_nothing_is_lost_repeated_or_turned_around_and_it_goes_on_by_itself[{name}]": (
            f"Redis: {name.replace('_', ' ')}",
            CARRIED,
        )
        for name in REDIS_FAULTS
        if name != "slow"
    },
    REDIS + "test_a_server_that_takes_two_seconds": ("Redis: slow", CARRIED),
}
_WHOLE = ("coverage", "nothing left", "others")
NOT_ASKED: dict[tuple[str, str], str] = {
    (f"Disk: {fault}", invariant): f"judged on the outbox alone: {why}"
    for fault, why in {
        "torn last page (what it still held)": "it takes a crash, which no running service outlives",
        "read-only": "a disk cannot be remounted so while a service has files open on it for writing (EBUSY)",
    }.items()
    for invariant in _WHOLE
}
"""Cells that cannot be, and why: shown as such, never as green."""
NOT_ASKED[AWAY, "others"] = "all streams share the outbox: at its limit each waits, as its coverage says"
CRASH = (
    "tests/service/test_lifecycle.py::test_a_crash_costs_its_worker_a_moment_and_the_other_workers_nothing"
)
"""No cell: here its bound is plain seconds, for nothing runs beside it."""
FILES = (
    "tests/faults/test_sources.py",
    "tests/faults/test_delivery.py",
    CRASH,
    *dict.fromkeys(test.partition("::")[0] for test in ASSERTED),
)


def faults() -> list[str]:
    """The rows, in order."""
    redis = [f"Redis: {name.replace('_', ' ')}" for name in REDIS_FAULTS]
    return list(
        dict.fromkeys([*SOURCE_FAULTS, *redis, *CERTIFICATES, *(fault for fault, _ in ASSERTED.values())])
    )


def asserted_by(nodeid: str) -> Iterator[tuple[str, str]]:
    """The cells that this test of another file asserts."""
    for start, (fault, invariants) in ASSERTED.items():
        if nodeid == start or re.match(re.escape(start) + r"\w*(\[.*)?$", nodeid):
            yield from ((fault, invariant) for invariant in invariants)


def cells() -> list[tuple[str, str]]:
    """Every cell that must be there."""
    every = [(fault, invariant) for fault in faults() for invariant in INVARIANTS]
    return [cell for cell in every if cell not in NOT_ASKED]
