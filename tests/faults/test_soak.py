"""A soak of some seconds: it runs, faults strike, nothing is lost. ``make soak-faults`` takes an hour."""

import argparse

import pytest

from tests.soak import soak


@pytest.mark.timeout(300)
def test_a_short_soak_with_faults_loses_nothing() -> None:
    done = soak(argparse.Namespace(minutes=0.3, streams=6, seed=2, faults=True))
    assert done.verdict is not None
    assert done.verdict.good, str(done.verdict)
    assert done.verdict.accepted > 50
    assert done.struck.total() > 0
    assert (done.code, done.troubles, done.uncovered) == (0, [], [])
    assert [line.name for line in done.lines()] == ["threads", "open files", "memory, MB"]
