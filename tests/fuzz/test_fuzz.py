"""A hundred seeded cases of hostile input, and the proof that the harness notices what it looks for."""

from pathlib import Path

import pytest

from tests.fuzz.mutate import damaged, misspelt
from tests.fuzz.parent import Child, Finding, Tally
from tests.fuzz.screened import screen

SEED = 2026
CASES = {"film": 40, "http": 12, "rtsp": 10, "config": 16, "event": 10, "manifest": 6, "onnx": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_the_quick_run_is_a_hundred_cases() -> None:
    assert sum(CASES.values()) == 100


@pytest.mark.parametrize("target", CASES)
def test_hostile_input_ends_in_success_or_a_typed_error(target: str, folder: Path) -> None:
    with Child(folder) as child:
        tally = child.run((target, SEED + number) for number in range(CASES[target]))
    assert tally.findings == []
    assert tally.cases == CASES[target]
    assert set(tally.outcomes[target]) - {"good", "pictures"}, "damage that changes nothing tests nothing"


@pytest.mark.parametrize("target", ["film", "http", "rtsp"])
def test_some_cases_come_as_far_as_pictures(target: str, folder: Path) -> None:
    with Child(folder) as child:
        outcomes = child.run((target, number) for number in range(6)).outcomes[target]
    assert any(outcome.startswith("pictures") for outcome in outcomes), outcomes


def test_damaged_films_go_through_the_command_too(folder: Path) -> None:
    tally, films = Tally(), folder / "films"
    screen(folder, films, range(SEED, SEED + 10), tally)
    assert tally.findings == []
    assert tally.outcomes["screen"].keys() == {"ended", "failed"}
    assert tally.cases == 10


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("crash", "crash", "SIGSEGV"),
        ("hang", "hang", "no answer"),
        ("untyped", "error", "ZeroDivisionError: planted"),
        ("hungry", "memory", "MB"),
        ("leak", "error", "threads left behind"),
    ],
)
def test_a_planted_fault_is_found_with_its_seed_and_the_run_goes_on(
    fault: str, kind: str, said: str, folder: Path
) -> None:
    with Child(folder, seconds=2.0 if fault == "hang" else 20.0) as child:
        tally = child.run([(f"planted-{fault}", 7), ("planted-typed", 8)])
    (finding,) = tally.findings
    assert finding == Finding(f"planted-{fault}", 7, kind, finding.text)
    assert said in finding.text
    assert tally.outcomes["planted-typed"] == {"SourceCorrupt": 1}


def test_the_same_seed_makes_the_same_damage() -> None:
    import random

    data, text = bytes(range(256)) * 20, "key: value\nother: [1, 2]\n" * 5
    assert {damaged(data, random.Random("a:1")) for _ in range(3)} == {damaged(data, random.Random("a:1"))}
    assert len({damaged(data, random.Random(f"a:{n}")) for n in range(20)}) > 15
    assert {misspelt(text, random.Random("a:1")) for _ in range(3)} == {misspelt(text, random.Random("a:1"))}
