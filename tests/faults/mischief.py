"""Random faults of sources and of Redis, for as long as somebody likes to watch."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import redis

from tests.faults.redis_scene import REDIS_FAULTS, Stage
from tests.faults.sources import CAMERA_TROUBLES, KILLED, WAYS, Hazard, Troupe

REST_S, FAULT_S = (5.0, 40.0), (3.0, 20.0)
REDIS_REST_S = (60.0, 180.0)


class Mischief(threading.Thread):
    """Lets hazards strike and heal at times drawn from ``rng``, each by itself, until it is told to stop."""

    def __init__(self, hazards: Sequence[Hazard], stage: Stage, seed: int) -> None:
        super().__init__(name="mischief")
        self._hazards = hazards
        self._stage = stage
        self._rng = random.Random(seed)
        self.stop = threading.Event()
        self.struck_redis = threading.Event()
        """Set behind the first fault of Redis: however slow the machine is, a run has one."""
        self.redis: Counter[str] = Counter(dict.fromkeys(REDIS_FAULTS, 0))
        self.troubles: list[str] = []

    def run(self) -> None:
        rng, now = self._rng, time.monotonic()
        due = [(now + rng.uniform(0, REST_S[1]), hazard, False) for hazard in self._hazards]
        redis_due, order = now + rng.uniform(10, REDIS_REST_S[0]), self._shuffled()
        while not self.stop.wait(0.2):
            now = time.monotonic()
            for place, (at, hazard, active) in enumerate(due):
                if now >= at:
                    (hazard.heal if active else hazard.strike)()
                    due[place] = (now + rng.uniform(*(REST_S if active else FAULT_S)), hazard, not active)
            if now >= redis_due:
                self._strike_redis(next(order))
                redis_due = time.monotonic() + rng.uniform(*REDIS_REST_S)
        for _, hazard, active in due:
            if active:
                hazard.heal()

    def _shuffled(self) -> Iterator[str]:
        while True:
            names = list(REDIS_FAULTS)
            self._rng.shuffle(names)
            yield from names

    def _strike_redis(self, name: str) -> None:
        try:
            self.redis[name] += REDIS_FAULTS[name](self._stage)
        except (pytest.fail.Exception, AssertionError, OSError, redis.RedisError) as error:
            self.troubles.append(f"Redis {name}: {error}")
        finally:
            self.struck_redis.set()


def hazards(troupe: Troupe, streams: int) -> list[Hazard]:
    """So many streams, each with a fault of the matrix, all of them in turn."""
    names = [*CAMERA_TROUBLES, *WAYS, KILLED]
    found = []
    for number in range(streams):
        name = names[number % len(names)]
        if name in CAMERA_TROUBLES:
            hazard = troupe.troubled_camera(name)
        elif name in WAYS:
            strike, kind, silent = WAYS[name]
            hazard = troupe.bad_way(name, strike, kind, silent=silent)
        else:
            hazard = troupe.killed_server(name, 1)
        (url,) = hazard.streams.values()
        hazard.streams = {f"cam-{number:02}": url}
        found.append(hazard)
    return found
