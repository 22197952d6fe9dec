"""A soak of some seconds: it runs, faults strike, nothing is lost. ``make soak-faults`` takes an hour."""

import argparse
from collections import Counter
from typing import Any, cast

import pytest

from tests.faults.mischief import Mischief
from tests.faults.redis_scene import Stage
from tests.fixtures.redis import RedisServer
from tests.soak import Soak, soak


@pytest.mark.timeout(300)
def test_a_short_soak_with_faults_loses_nothing() -> None:
    """This seed strikes six sources in the first six seconds and Redis after ten, on a slow machine later."""
    done = soak(argparse.Namespace(minutes=0.3, streams=6, seed=1990, faults=True))
    assert done.verdict is not None
    assert done.verdict.good, str(done.verdict)
    assert done.verdict.accepted > 50
    struck = [name for name, count in done.struck.items() if count]
    redis = [name for name in struck if name.startswith("Redis: ")]
    assert redis, struck
    assert len(struck) - len(redis) >= 3, struck
    assert (done.code, done.troubles, done.uncovered) == (0, [], [])
    assert [line.name for line in done.lines()] == ["threads", "open files", "memory, MB"]


def test_a_fault_of_redis_that_never_struck_in_an_hour_is_a_failure() -> None:
    def failures(minutes: float) -> str:
        done = Soak(streams=1, minutes=minutes, seed=1, faults=True, code=0)
        done.readings = [(5.0 * number, 20, 30, 200.0) for number in range(20)]
        done.count_redis(Counter({"killed": 3, "slow": 0}))
        return "; ".join(done.failures())

    assert failures(60) == "never struck: Redis: slow"
    assert failures(10) == ""


def test_a_fault_that_meets_an_error_of_redis_is_a_trouble_and_no_end(
    redis_server: RedisServer,
) -> None:
    """Mischief goes on: who was struck has to be healed."""
    stage = Stage(cast(Any, None), redis_server, cast(Any, None))
    mischief = Mischief([], stage, seed=1)
    redis_server.kill()
    mischief._strike_redis("emptied")
    (trouble,) = mischief.troubles
    assert trouble.startswith("Redis emptied: ")
    assert "refused" in trouble
