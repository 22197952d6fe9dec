"""The table itself: what is missing is red; and lines fitted to what a service holds."""

import random
from pathlib import Path

import pytest

from tests.faults.cells import INVARIANTS
from tests.faults.lines import fit
from tests.faults.matrix import ASSERTED, NOT_ASKED, asserted_by, cells, faults
from tests.faults.report import Table, render

ROOT = Path(__file__).resolve().parents[2]


def test_a_cell_that_no_test_has_shown_is_red() -> None:
    table = Table()
    assert len(table.red()) == len(cells())
    for fault, invariant in cells()[1:]:
        table.passed(fault, invariant, "5 times")
    assert [cell[:2] for cell in table.red()] == [cells()[0]]
    page = render(table)
    assert page.count("✗") == 2  # in the table, and where it is explained
    assert "**1 red**" in page


def test_a_cell_is_red_when_one_of_several_tests_failed() -> None:
    table = Table()
    for fault, invariant in cells():
        table.passed(fault, invariant, "")
    assert table.red() == []
    table.failed("Disk: full", "delivered", "some test")
    table.passed("Disk: full", "delivered", "")
    assert table.red() == [("Disk: full", "delivered", "some test")]


def test_every_fault_has_a_cell_for_every_invariant_or_a_reason_why_not() -> None:
    assert {*cells(), *NOT_ASKED} == {(fault, invariant) for fault in faults() for invariant in INVARIANTS}
    assert all(NOT_ASKED.values())


@pytest.mark.parametrize("start", ASSERTED)
def test_the_tests_that_the_matrix_names_are_there(start: str) -> None:
    file, _, name = start.partition("::")
    assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text()
    assert list(asserted_by(start))


def test_a_test_gives_cells_only_to_its_own_fault() -> None:
    test = "tests/service/test_redis_faults.py::test_nothing_is_lost_repeated_or_turned_around_and_it_goes_on"
    (fault,) = {fault for fault, _ in asserted_by(f"{test}_by_itself[half_closed]")}
    assert fault == "Redis: half closed"
    assert list(asserted_by("tests/test_outbox.py::test_other")) == []


def readings(rise_mb_an_hour: float, noise_mb: float) -> list[tuple[float, int, int, float]]:
    """An hour, every five seconds, of which the first minutes rise steeply: caches fill."""
    rng = random.Random(3)
    return [
        (at, 20, 30, 200 + min(at, 200.0) / 10 + rise_mb_an_hour * at / 3600 + rng.gauss(0, noise_mb))
        for at in range(0, 3605, 5)
    ]


@pytest.mark.parametrize(("rise", "grows"), [(0.0, False), (0.8, False), (2.0, True), (30.0, True)])
def test_a_line_fails_when_it_rises_above_its_limit_behind_the_warm_up(rise: float, grows: bool) -> None:
    line = fit("memory", readings(rise, 0.2), 3, limit=1.0)
    assert line.an_hour == pytest.approx(rise, abs=0.1)
    assert line.grows is grows


def test_a_line_that_only_scatters_does_not_grow() -> None:
    rng = random.Random(4)
    flat = [(float(at), 20, 30, 200 + rng.gauss(0, 3.0)) for at in range(0, 125, 5)]
    assert not fit("memory", flat, 3, limit=1.0).grows
