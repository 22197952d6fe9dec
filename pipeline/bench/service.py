"""The real ``framewarden run`` on many live streams, watched from outside while a window of time passes."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline import status
from pipeline.bench import child, processes, said
from pipeline.bench.child import BenchError, Child
from pipeline.bench.material import Shown
from pipeline.bench.peers import Say
from pipeline.bench.said import Account, Ended
from pipeline.status import StatusError

READY_S = 60.0
"""Streams have this long to come up, and half a second more each; then it is a promise broken."""
LOOK_S = 0.5
READ_S = 2.0
"""How often memory and the workers' latencies are read in the window."""
SNAPSHOT_S = 20.0
SPARE_S = 120.0
"""A run ends by itself this long after its window, in case nobody is left to end it."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What is to be run: ``urls`` as live streams. ``warm_s`` seconds pass, once all are up, before the
    window of ``seconds`` begins. ``server_pid``: the process that serves them, if it is ours. ``flagged``:
    places in ``urls`` of those that show something to flag, and ``shown`` when they do, where that is known.
    ``spread``: priorities 0 to 9 in turn."""

    urls: Sequence[str]
    model: str
    seconds: float
    warm_s: float
    server_pid: int | None = None
    flagged: frozenset[int] = frozenset()
    spread: bool = False
    shown: Shown | None = None

    def id(self, place: int) -> str:
        """The stream's id in the config and the status."""
        return f"s{place + 1:03}"

    def priority(self, place: int) -> int:
        """0 is the first to be cut under overload."""
        return place % 10 if self.spread else 5

    def config(self, state_dir: Path) -> str:
        """The config file, as JSON (which is YAML)."""
        paced = {} if self.server_pid is not None else {"pace": "realtime", "loop": True}
        streams = [
            {"id": self.id(place), "url": url, "priority": self.priority(place), **paced}
            for place, url in enumerate(self.urls)
        ]
        return json.dumps(
            {"node": "bench", "state_dir": str(state_dir), "model": self.model, "streams": streams}
        )


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen. ``before`` and ``after`` are status snapshots at its ends, ``seconds`` between the two
    readings of CPU time; ``machine_s`` is CPU of the whole machine, ``thread_s`` of the worker's thread that
    used most. ``lost`` counts seconds of coverage events in it by cause. ``accounts`` are what streams said
    of all their time when the run ended, ``ended`` the segments that ended by themselves; ``ready_s`` is how
    long it took until all were up. ``workers`` are the workers' rows of the status, read again and again in
    the window."""

    streams: Streams
    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float
    used: dict[str, float]
    server_s: float
    memory_mb: float
    machine_s: float
    thread_s: float
    ready_s: float = 0.0
    lost: dict[str, float] = field(default_factory=dict)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    ended: Sequence[Ended] = ()
    workers: Sequence[Sequence[Mapping[str, Any]]] = ()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes of the run in the window."""
        return sum(self.used.values())


def watch(streams: Streams, say: Say) -> Window:
    """Run the streams for the window, then end the run.

    :raises BenchError: the run ended by itself."""
    with tempfile.TemporaryDirectory(prefix="framewarden-bench-") as folder:
        state_dir, file, out = (Path(folder) / name for name in ("state", "bench.yaml", "events.jsonl"))
        file.write_text(streams.config(state_dir))
        ready_s = READY_S + len(streams.urls) / 2
        for_s = ready_s + streams.warm_s + streams.seconds + SPARE_S
        command = child.python("pipeline", "run", file, "--for", f"{for_s:.0f}", "--json")
        begun = time.monotonic()
        with Child(command, out=out) as run:
            name = "1 stream" if len(streams.urls) == 1 else f"{len(streams.urls)} streams"
            say(f"{name}: starting")
            _until(run, state_dir, ready_s, lambda now: all(row["frames"] for row in now["streams"]))
            ready_s = time.monotonic() - begun
            say(f"{name}: warming up for {streams.warm_s:g} s")
            _pass(run, streams.warm_s)
            say(f"{name}: measuring for {streams.seconds:g} s")
            window = _measure(run, streams, state_dir)
        told = said.read(out, window.before["time"], window.after["time"])
        return replace(window, ready_s=ready_s, lost=told.lost, accounts=told.accounts, ended=told.ended)


def _measure(run: Child, streams: Streams, state_dir: Path) -> Window:
    begun, unix, machine_s = time.monotonic(), time.time(), processes.machine_s()
    first, served = processes.used(run.pid), _served(streams)
    before = _until(run, state_dir, SNAPSHOT_S, lambda now: now["time"] >= unix)
    memory_mb, workers = first.memory_mb, list[list[dict[str, Any]]]()
    while (left := begun + streams.seconds - time.monotonic()) > 0:
        _pass(run, min(left, READ_S))
        memory_mb = max(memory_mb, processes.used(run.pid).memory_mb)
        with contextlib.suppress(StatusError):
            workers.append(status.read(state_dir)["workers"])
    seconds, unix, machine_s = time.monotonic() - begun, time.time(), processes.machine_s() - machine_s
    last, served = processes.used(run.pid), _served(streams) - served
    after = _until(run, state_dir, SNAPSHOT_S, lambda now: now["time"] >= unix)
    threads = (spent - first.threads_s.get(thread, 0.0) for thread, spent in last.threads_s.items())
    return Window(
        streams=streams,
        before=before,
        after=after,
        seconds=seconds,
        used={part: last.cpu_s[part] - first.cpu_s[part] for part in last.cpu_s},
        server_s=served,
        memory_mb=max(memory_mb, last.memory_mb),
        machine_s=machine_s,
        thread_s=max(threads, default=0.0),
        workers=workers,
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


def _served(streams: Streams) -> float:
    return 0.0 if streams.server_pid is None else processes.used(streams.server_pid).total_s
