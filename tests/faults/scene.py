"""One running service among faults: before, while they strike, after they are healed, and its end.

Everything that a fault may hurt is measured here, once; ``cells.py`` says what it must be."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import status
from pipeline.events import Event
from tests.faults.sources import Hazard, Troupe, hazards
from tests.fixtures.lifecycle import worker_pids
from tests.fixtures.own_model import write_manifest
from tests.fixtures.redis import RedisServer, until
from tests.fixtures.service import Command
from tests.fixtures.tiny_onnx import mean_colour_model

ROOT = Path(__file__).resolve().parents[2]
MAX_GAP_S = 1.0
CALM = ("calm-1", "calm-2")
BACK_S = 10.0
"""A stream whose server is back is back itself within so many seconds."""


@dataclass(frozen=True)
class Moment:
    """What a process tree holds, and the status rows, at one time."""

    unix: float
    pids: tuple[int, ...]
    threads: int
    files: int
    memory_mb: float
    held_up_s: float
    """How long the machine has held up somebody who does nothing, so far."""
    delivered: bool
    """Whether Redis has all that the outbox accepted."""
    rows: dict[str, dict[str, Any]]

    def lost_s(self, stream: str, *, own: bool = True) -> float:
        """Seconds that were not screened so far; without ``own``, only what did not come from the source."""
        seconds = self.rows[stream]["coverage"]
        return float(seconds["lost_s"] + (seconds["late_s"] + seconds["dropped_s"] if own else 0.0))


@dataclass
class Scene:
    """What was seen. ``hazards`` by name; times are Unix seconds; ``entries`` is what Redis holds."""

    hazards: dict[str, Hazard]
    before: Moment
    during: Moment
    after: Moment
    struck: dict[str, int]
    struck_at: float
    healed_at: float
    code: int
    events: list[Event]
    entries: list[str]
    stderr: str
    _envelopes: list[dict[str, Any]] = field(default_factory=list)

    def of(self, stream: str, kind: str = "") -> list[dict[str, Any]]:
        """The envelopes of a stream, of this type or of all."""
        if not self._envelopes:
            self._envelopes = [json.loads(event.body) for event in self.events]
        return [
            one
            for one in self._envelopes
            if one["data"]["stream"]["id"] == stream and one["type"].startswith(kind)
        ]


class Yardstick(threading.Thread):
    """Does nothing but wait, a little at a time: what it is late by, the machine is to blame for.

    On a machine that is shared, a stream may be late although no fault has touched it."""

    STEP_S, FREE_S = 0.02, 0.03

    def __init__(self) -> None:
        super().__init__(name="yardstick", daemon=True)
        self.stop = threading.Event()
        self.held_up_s = 0.0

    def run(self) -> None:
        before = time.monotonic()
        while not self.stop.wait(self.STEP_S):
            now = time.monotonic()
            late = now - before - self.STEP_S
            self.held_up_s += late if late > self.FREE_S else 0.0
            before = now


class Service:
    """``framewarden run --json`` on these streams, with a model that flags red. ``labels`` are of every
    stream, ``keys`` of the config."""

    def __init__(
        self,
        folder: Path,
        streams: dict[str, str],
        redis_url: str,
        labels: dict[str, str] | None = None,
        **keys: Any,
    ) -> None:
        self.folder = folder
        mean_colour_model(folder / "mine.onnx")
        model = write_manifest(folder, categories={"red": ["red"]})
        entries = [
            {"id": name, "url": url, "open_timeout_s": 3, "read_timeout_s": 2, "labels": labels or {}}
            for name, url in streams.items()
        ]
        config = {
            "state_dir": "state",
            "model": str(model),
            "device": "cpu",
            "workers": 1,
            "log": {"format": "json"},
            "sampling": {"max_gap_s": MAX_GAP_S, "audit": 0},
            "redis": {"url": redis_url},
            "streams": entries,
            **keys,
        }
        (folder / "run.yaml").write_text(json.dumps(config))
        command = [sys.executable, "-m", "pipeline", "run", str(folder / "run.yaml"), "--json"]
        self.command = Command(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        )

        self._yardstick = Yardstick()
        self._yardstick.start()

    @property
    def pid(self) -> int:
        return self.command.process.pid

    def moment(self) -> Moment:
        """As of the next snapshot that the service writes."""
        asked = time.time()
        found: dict[str, Any] = {}

        def written() -> bool:
            assert self.command.process.poll() is None, self.command.stderr[-4000:]
            try:
                found.update(status.read(self.folder / "state"))
            except status.StatusError:
                return False
            return float(found["time"]) >= asked

        until(written, 60, lambda: "the service writes no status")
        pids = (self.pid, *worker_pids(self.pid))
        held = [holdings(pid) for pid in pids]
        return Moment(
            found["time"],
            pids,
            sum(one[0] for one in held),
            sum(one[1] for one in held),
            sum(one[2] for one in held),
            self._yardstick.held_up_s,
            delivered(found),
            {row["id"]: row for row in found["streams"]},
        )

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.command.process.send_signal(signal.SIGTERM)
        return self.command.end()

    def kill(self) -> None:
        if self.command.process.poll() is None:
            self.command.process.kill()
        self.command.end()
        self._yardstick.stop.set()
        self._yardstick.join(10)

    def events(self) -> list[Event]:
        """All that the outbox accepted so far."""
        return [Event.from_json(line) for line in list(self.command.lines)]

    def each(self, streams: list[str], wanted: Callable[[Event], bool], seconds: float, why: str) -> set[str]:
        """Wait until every stream has an event as wanted; gives those that had none in that time."""
        missing, deadline, looked = set(streams), time.monotonic() + seconds, 0
        while missing and time.monotonic() < deadline:
            lines = self.command.lines[looked:]
            looked += len(lines)
            for event in map(Event.from_json, lines):
                if wanted(event):
                    missing.discard(event.stream)
            assert self.command.process.poll() is None, self.command.stderr[-4000:]
            _pause()
        if missing:
            sys.stderr.write(f"{why}: not so in {seconds:g} s: {sorted(missing)}\n")
        return missing


def _pause() -> None:
    threading.Event().wait(0.1)


def holdings(pid: int) -> tuple[int, int, float]:
    """Threads, open files and megabytes of a process: what it has allocated, in memory or swapped out.

    Not what is resident: of programs and files the system keeps as much in memory as it sees fit.

    :raises OSError: there is no such process any more."""
    base = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (base / "status").read_text().splitlines())
    if "RssAnon" not in status:
        raise ProcessLookupError(f"process {pid} has ended")
    allocated_kb = sum(int(status[field].split()[0]) for field in ("RssAnon", "VmSwap"))
    return len(list((base / "task").iterdir())), len(list((base / "fd").iterdir())), allocated_kb * 1024 / 1e6


def delivered(said: dict[str, Any]) -> bool:
    """Whether a status says that Redis has all that the outbox accepted."""
    return (said["redis"]["state"], said["redis"]["pending"]) == ("connected", 0)


def closed(since: float = 0.0) -> Callable[[Event], bool]:
    """Whether an event closes a segment and was made after ``since``."""
    return lambda event: event.state == "closed" and made_at(event) > since


def made_at(event: Event) -> float:
    """When the event was made, in Unix seconds."""
    return datetime.fromisoformat(json.loads(event.body)["time"]).timestamp()


def play(folder: Path, redis_server: RedisServer, *, many: int, fault_s: float) -> Scene:
    """All faults at once for ``fault_s``, on one service; ``many`` streams are lost together."""
    troupe = Troupe(folder)
    try:
        found = hazards(troupe, many=many)
        calm = {name: troupe.camera().url for name in CALM}
        streams = calm | {stream: url for hazard in found for stream, url in hazard.streams.items()}
        service = Service(folder, streams, redis_server.url)
        try:
            return _acts(service, found, redis_server, list(streams), fault_s)
        finally:
            service.kill()
    finally:
        troupe.close()


def _acts(
    service: Service, found: list[Hazard], redis_server: RedisServer, streams: list[str], fault_s: float
) -> Scene:
    unready = service.each(streams, closed(), 60, "a first closed segment")
    assert not unready, f"never well, so no fault can show: {unready}\n{service.command.stderr[-3000:]}"
    before = service.moment()
    struck_at = time.time()
    for hazard in found:
        hazard.strike()
    end = time.monotonic() + fault_s
    while time.monotonic() < end:
        _pause()
    during = service.moment()
    for hazard in found:
        hazard.heal()
    healed_at = time.time()
    service.each(streams, closed(healed_at + 1.0), 40, "a closed segment after the faults")
    settled = time.monotonic() + 20
    after = service.moment()
    while (after.threads > before.threads or after.files > before.files) and time.monotonic() < settled:
        after = service.moment()
    code = service.end()
    with redis_server.client() as client:
        raw = [*client.xrange("framewarden:segments"), *client.xrange("framewarden:health")]
    return Scene(
        {hazard.name: hazard for hazard in found},
        before,
        during,
        after,
        {hazard.name: hazard.struck() for hazard in found},
        struck_at,
        healed_at,
        code,
        service.events(),
        [fields["event"] for _, fields in raw],
        service.command.stderr,
    )
