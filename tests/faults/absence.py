"""The running service whose Redis stays away until the outbox takes no more, and no sample is screened."""

import time
from pathlib import Path
from typing import Any

from tests.faults.redis_scene import RedisScene, Stage, perform
from tests.faults.scene import CALM
from tests.fixtures.proxy import proxied
from tests.fixtures.redis import RedisFactory, until

AWAY = "Redis: away too long for the outbox"
STREAMS = (*CALM, *(f"more-{number}" for number in range(10)))
LABELS = {"note": "x" * 15_000}
"""Sixty such events fill the smallest outbox."""
MAX_BYTES = 1_000_000
STILL_S = 5.0


def absent(folder: Path, factory: RedisFactory) -> RedisScene:
    """Redis is killed, and comes back only when all streams have been waiting for a while."""
    server = factory()
    with proxied(server.port) as unused:
        return perform(
            folder,
            server.url,
            server,
            unused,
            {AWAY: _stay_away},
            STREAMS,
            labels=LABELS,
            outbox={"max_bytes": MAX_BYTES},
        )


def _stay_away(stage: Stage) -> int:
    logged = len(stage.service.command.errors)
    stage.server.kill()
    stage.down("refused", "lost")
    until(lambda: _outbox(stage).get("state") == "blocked", 90, lambda: f"not at its limit: {_outbox(stage)}")
    assert "bring Redis back or raise outbox.max_bytes" in _outbox(stage)["error"]
    assert _outbox(stage)["bytes"] <= MAX_BYTES
    since = _stands_still(stage)
    stage.waited_s = time.time() - since
    struck = stage.logged("the outbox accepts nothing", logged)
    stage.server.start()
    return struck


def _outbox(stage: Stage) -> dict[str, Any]:
    return dict(stage.status().get("outbox", {}))


def _stands_still(stage: Stage) -> float:
    """Wait until no stream has been screened for a while, for what waits to be recorded has its bound, too.

    Gives since when, in Unix seconds."""
    seen, since = 0.0, time.time()

    def still() -> bool:
        nonlocal seen, since
        now = stage.status()
        screened = sum(row["coverage"]["screened_s"] for row in now.get("streams", []))
        if now and screened != seen:
            seen, since = screened, float(now["time"])
        return time.time() - since > STILL_S

    until(still, 90, lambda: "the streams do not wait for the outbox")
    return since
