"""The real ``framewarden run`` on many live streams, watched from outside while a window of time passes."""

import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import status
from pipeline.bench import child, processes
from pipeline.bench.child import BenchError, Child
from pipeline.bench.peers import Say
from pipeline.bench.processes import Used
from pipeline.status import StatusError

READY_S = 60.0
"""Streams have this long to come up, and half a second more each; then it is a promise broken."""
LOOK_S = 0.5
MEMORY_S = 2.0
SNAPSHOT_S = 20.0
SPARE_S = 120.0
"""A run ends by itself this long after its window, in case nobody is left to end it."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What is to be run: ``urls`` as live streams. ``warm_s`` seconds pass, once all are up, before the
    window of ``seconds`` begins. ``server_pid``: the process that serves them, if it is ours."""

    urls: Sequence[str]
    model: str
    seconds: float
    warm_s: float
    server_pid: int | None = None

    def config(self, state_dir: Path) -> str:
        """The config file, as JSON (which is YAML)."""
        paced = {} if self.server_pid is not None else {"pace": "realtime", "loop": True}
        streams = [
            {"id": f"s{number:03}", "url": url, **paced} for number, url in enumerate(self.urls, start=1)
        ]
        return json.dumps(
            {"node": "bench", "state_dir": str(state_dir), "model": self.model, "streams": streams}
        )


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen. ``before`` and ``after`` are status snapshots at its ends, ``seconds`` between the two
    readings of CPU time; ``lost`` counts seconds of coverage events in it by cause."""

    streams: Streams
    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float
    used: dict[str, float]
    server_s: float
    memory_mb: float
    lost: dict[str, float]

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes of the run in the window."""
        return sum(self.used.values())


def watch(streams: Streams, say: Say) -> Window:
    """Run the streams for the window, then end the run.

    :raises BenchError: the run ended by itself."""
    with tempfile.TemporaryDirectory(prefix="framewarden-bench-") as folder:
        state_dir, file = Path(folder) / "state", Path(folder) / "bench.yaml"
        file.write_text(streams.config(state_dir))
        ready_s = READY_S + len(streams.urls) / 2
        for_s = ready_s + streams.warm_s + streams.seconds + SPARE_S
        command = child.python("pipeline", "run", file, "--for", f"{for_s:.0f}", "--json")
        with Child(command) as run:
            name = "1 stream" if len(streams.urls) == 1 else f"{len(streams.urls)} streams"
            say(f"{name}: starting")
            _until(run, state_dir, ready_s, lambda now: all(row["frames"] for row in now["streams"]))
            say(f"{name}: warming up for {streams.warm_s:g} s")
            _pass(run, streams.warm_s)
            say(f"{name}: measuring for {streams.seconds:g} s")
            return _measure(run, streams, state_dir)


def _measure(run: Child, streams: Streams, state_dir: Path) -> Window:
    begun, unix = time.monotonic(), time.time()
    first, served = _used(run.pid), _served(streams)
    before = _until(run, state_dir, SNAPSHOT_S, lambda now: now["time"] >= unix)
    memory_mb = first.memory_mb
    while (left := begun + streams.seconds - time.monotonic()) > 0:
        _pass(run, min(left, MEMORY_S))
        memory_mb = max(memory_mb, _used(run.pid).memory_mb)
    last, seconds, served = _used(run.pid), time.monotonic() - begun, _served(streams) - served
    unix = time.time()
    after = _until(run, state_dir, SNAPSHOT_S, lambda now: now["time"] >= unix)
    return Window(
        streams=streams,
        before=before,
        after=after,
        seconds=seconds,
        used={part: last.cpu_s[part] - first.cpu_s[part] for part in last.cpu_s},
        server_s=served,
        memory_mb=max(memory_mb, last.memory_mb),
        lost=_lost(run.out, before["time"], after["time"]),
    )


def _until(
    run: Child, state_dir: Path, timeout_s: float, wanted: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The first snapshot that is as ``wanted``, or the last one when none was in ``timeout_s`` seconds."""
    until, found = time.monotonic() + timeout_s, None
    while found is None or time.monotonic() < until:
        with contextlib.suppress(StatusError):
            found = status.read(state_dir)
            if wanted(found):
                return found
        if found is None and time.monotonic() > until:
            raise BenchError(f"the run wrote no status in {timeout_s:g} s: {_said(run)}")
        _pass(run, LOOK_S)
    return found


def _pass(run: Child, seconds: float) -> None:
    """Let time pass. :raises BenchError: the run ended meanwhile."""
    if run.wait(seconds):
        raise BenchError(f"the run ended before its time: {_said(run)}")


def _said(run: Child) -> str:
    return " / ".join(run.err.strip().splitlines()[-3:]) or "it said nothing"


def _used(pid: int) -> Used:
    return processes.used(pid)


def _served(streams: Streams) -> float:
    return 0.0 if streams.server_pid is None else processes.used(streams.server_pid).total_s


def _lost(out: str, since: float, until: float) -> dict[str, float]:
    """Seconds of the coverage events in the run's output, given between two Unix times, by cause."""
    seconds: Counter[str] = Counter()
    for line in out.splitlines():
        with contextlib.suppress(ValueError):  # the last line may be half written
            event = json.loads(line)
            if event["type"] == "framewarden.coverage.v1" and since <= _unix(event["time"]) <= until:
                seconds[event["data"]["cause"]] += event["data"]["seconds"]
    return dict(seconds)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
