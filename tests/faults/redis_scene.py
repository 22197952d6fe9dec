"""The same running service, its Redis behind a proxy: faults of Redis."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import status
from pipeline.client import read
from pipeline.events import Event
from tests.faults.scene import CALM, Moment, Service, closed, delivered
from tests.faults.sources import Troupe
from tests.fixtures.proxy import Proxy, proxied
from tests.fixtures.redis import RedisServer, free_port, until

KEY = "framewarden:segments"
BACK_S = 20.0
"""The publisher tries again after 10 s at most."""


@dataclass
class Stage:
    """The service, the real server, and the proxy between them. ``waited_s``: for so long the fault kept
    every stream from being screened."""

    service: Service
    server: RedisServer
    proxy: Proxy
    waited_s: float = 0.0

    def status(self) -> dict[str, Any]:
        """What the service says of itself; nothing while that is being replaced."""
        try:
            return dict(status.read(self.service.folder / "state"))
        except status.StatusError:
            return {}

    def said(self) -> tuple[str, str, int]:
        """State and error of the publisher by the status, and how many events wait."""
        redis = self.status().get("redis", {"state": "", "error": "", "pending": 0})
        return redis["state"], redis["error"], redis["pending"]

    def well(self) -> float:
        """Wait until a status of a time after now says that all was delivered; gives the seconds."""
        asked, began = time.time(), time.monotonic()

        def well() -> bool:
            now = self.status()
            return now.get("time", 0.0) > asked and delivered(now)

        until(well, 60, lambda: f"not delivered: {self.said()}")
        return time.monotonic() - began

    def logged(self, text: str, since: int) -> int:
        """Lines of the log with this text, from this line on."""
        return sum(text in line for line in self.service.command.errors[since:])

    def down(self, *words: str) -> int:
        """Wait until the status says that Redis is away, in one of these words; that is the strike."""

        def told() -> bool:
            state, error, _ = self.said()
            return state != "connected" and any(word in error for word in words)

        until(told, 30, lambda: f"{words} not said: {self.said()}")
        return 1


Fault = Callable[[Stage], int]


def restarted(stage: Stage) -> int:
    stage.server.stop()
    struck = stage.down("lost", "refused")
    stage.server.start()
    return struck


def killed(stage: Stage) -> int:
    stage.server.kill()
    struck = stage.down("lost", "refused")
    stage.server.start()
    return struck


def full(stage: Stage) -> int:
    with stage.server.client() as client:
        client.config_set("maxmemory", "1mb")
        struck = stage.down("oom")
        client.config_set("maxmemory", "0")
    return struck


def emptied(stage: Stage) -> int:
    with stage.server.client() as client:
        struck = int(client.flushall())
        until(lambda: client.exists(KEY), 30)
    return struck


def deleted(stage: Stage) -> int:
    with stage.server.client() as client:
        struck = int(client.delete(KEY))
        until(lambda: client.exists(KEY), 30)
    return struck


def read_only(stage: Stage) -> int:
    with stage.server.client() as client:
        client.replicaof("127.0.0.1", free_port())
        struck = stage.down("readonly")
        client.replicaof("NO", "ONE")
    return struck


def loading(stage: Stage) -> int:
    with stage.server.loading():
        return stage.down("loading")


def password_changed(stage: Stage) -> int:
    """Rotated, and rotated back; counted is how often the old one was refused."""
    with stage.server.client() as client:
        client.config_resetstat()
        client.config_set("requirepass", "rotated")
        client.client_kill_filter(_type="normal", skipme=True)
        stage.down("auth")
        client.config_set("requirepass", stage.server.password)
        return int(client.info("errorstats")["errorstat_WRONGPASS"]["count"])


def cut_before_the_reply(stage: Stage) -> int:
    stage.proxy.cut_reply_after(b"EXEC")
    until(lambda: stage.proxy.struck["cut_reply"], 30)
    return stage.proxy.struck["cut_reply"]


def swallowed(stage: Stage) -> int:
    stage.proxy.black_hole = True
    stage.down("timeout")
    stage.proxy.heal()
    return stage.proxy.struck["black_hole"]


def reset(stage: Stage) -> int:
    stage.proxy.reset()
    return stage.proxy.struck["reset"]


def half_closed(stage: Stage) -> int:
    stage.proxy.half_close()
    return stage.proxy.struck["half_close"]


def unreachable(stage: Stage) -> int:
    stage.proxy.refuse = True
    stage.proxy.reset()
    stage.down("lost", "refused")
    until(lambda: stage.proxy.struck["refuse"], 30)
    stage.proxy.heal()
    return stage.proxy.struck["refuse"]


def slow(stage: Stage) -> int:
    """Two seconds for each answer."""
    stage.proxy.latency_s = 2.0
    until(lambda: stage.proxy.struck["latency"] >= 2, 30)
    stage.proxy.heal()
    return stage.proxy.struck["latency"]


REDIS_FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        restarted, killed, full, emptied, deleted, read_only, loading, password_changed, cut_before_the_reply,
        swallowed, reset, half_closed, unreachable, slow,
    )
}  # fmt: skip


@dataclass
class Act:
    """One fault of Redis: what was held and lost before and after it, and when Redis was well again."""

    struck: int
    before: Moment
    after: Moment
    back_s: float
    accepted: range
    """Which of the run's events were accepted meanwhile."""
    waited_s: float


@dataclass
class RedisScene:
    """``seen`` is what a reader gets who drops repeats, as the consumer kit does."""

    acts: dict[str, Act]
    code: int
    events: list[Event]
    seen: list[Event]
    stderr: str


def play(folder: Path, server: RedisServer, faults: Mapping[str, Fault]) -> RedisScene:
    """These faults, one after the other, while two streams go on."""
    with proxied(server.port) as proxy:
        return perform(folder, server.url_at(proxy.port), server, proxy, faults)


def perform(
    folder: Path,
    url: str,
    server: RedisServer,
    proxy: Proxy,
    faults: Mapping[str, Fault],
    streams: Sequence[str] = CALM,
    ca: Path | None = None,
    **keys: Any,
) -> RedisScene:
    """The service on ``url``, trusting ``ca``; ``server`` and ``proxy`` are what the faults strike. ``keys``
    are of its config."""
    troupe = Troupe(folder)
    try:
        if ca is not None:
            keys["redis"] = {"url": url, "tls": {"ca": str(ca)}}
        service = Service(folder, {name: troupe.camera().url for name in streams}, url, **keys)
        try:
            return _acts(
                Stage(service, server, proxy), faults, partial(read, url, ca=str(ca) if ca else None)
            )
        finally:
            service.kill()
    finally:
        troupe.close()


def _acts(
    stage: Stage, faults: Mapping[str, Fault], published: Callable[[], Iterable[tuple[str, Event]]]
) -> RedisScene:
    service = stage.service
    unready = service.each(list(CALM), closed(), 60, "a first closed segment")
    assert not unready, service.command.stderr[-3000:]
    acts = {name: _act(stage, fault) for name, fault in faults.items()}
    code = service.end()
    return RedisScene(
        acts,
        code,
        service.events(),
        [event for _, event in published()],
        service.command.stderr,
    )


def _let_go(before: Moment, after: Moment) -> bool:
    return after.threads <= before.threads and after.files <= before.files


def _act(stage: Stage, fault: Fault) -> Act:
    service = stage.service
    first, before = len(service.command.lines), service.moment()
    struck = fault(stage)
    at, back_s = time.time(), stage.well()
    service.each([CALM[0]], closed(at), 30, "a closed segment after the fault")
    after, settled = service.moment(), time.monotonic() + BACK_S
    # That segment, too, is to arrive: a publisher with nothing to do has not met a dead server yet.
    while not (after.delivered and _let_go(before, after)) and time.monotonic() < settled:
        after = service.moment()
    accepted = range(first, len(service.command.lines))
    return Act(struck, before, after, back_s, accepted, stage.waited_s)
