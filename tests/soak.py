"""``python -m tests.soak``: a service for a long time, and what it holds meanwhile. 1 when something grows or
is lost.

Good cameras by default; with ``--faults`` each misbehaves now and then, Redis too. Allocated memory, threads
and open files of the whole process tree are read every few seconds, and a line is fitted to each."""

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.client import read
from tests.faults.cells import off_by
from tests.faults.lines import Line, fit
from tests.faults.mischief import Mischief, hazards
from tests.faults.redis_scene import Stage
from tests.faults.report import machine
from tests.faults.scene import Service, closed, holdings
from tests.faults.soak_report import render
from tests.faults.sources import Troupe
from tests.fixtures.history import Verdict, compare
from tests.fixtures.lifecycle import worker_pids
from tests.fixtures.proxy import proxied
from tests.fixtures.redis import RedisServer, until

SAMPLE_S = 5.0
MB_AN_HOUR = 1.0
COUNT_AN_HOUR = 1.0
ALL_MINUTES = 60.0
"""In so long every fault of Redis has its turn; in a shorter run none that had none is missed."""


@dataclass
class Soak:
    """What came of it."""

    streams: int
    minutes: float
    seed: int
    faults: bool
    readings: list[tuple[float, int, int, float]] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    verdict: Verdict | None = None
    segments: int = 0
    uncovered: list[str] = field(default_factory=list)
    workers: set[int] = field(default_factory=set)
    at_once: int = 0
    code: int | None = None
    troubles: list[str] = field(default_factory=list)

    def count_redis(self, struck: Mapping[str, int]) -> None:
        """How often each fault of Redis struck; the zeros, too, where none should be."""
        for name, count in struck.items():
            if count or self.minutes >= ALL_MINUTES:
                self.struck[f"Redis: {name}"] += count

    def lines(self) -> list[Line]:
        """Fitted behind the warm-up."""
        names = (("threads", COUNT_AN_HOUR), ("open files", COUNT_AN_HOUR), ("memory, MB", MB_AN_HOUR))
        return [fit(name, self.readings, place + 1, limit) for place, (name, limit) in enumerate(names)]

    def failures(self) -> list[str]:
        """What is wrong, in words."""
        found = [f"{line.name} grow by {line.an_hour:.2f} an hour" for line in self.lines() if line.grows]
        if self.verdict is not None and not self.verdict.good:
            found.append(str(self.verdict))
        if self.code != 0:
            found.append(f"exit code {self.code}")
        if self.faults and (never := [name for name, count in self.struck.items() if not count]):
            found.append(f"never struck: {', '.join(never)}")
        if died := len(self.workers) - self.at_once:
            found.append(f"{died} times a worker died")
        return found + self.uncovered + self.troubles


def soak(asked: argparse.Namespace) -> Soak:
    """Run the service for ``asked.minutes``."""
    done = Soak(asked.streams, asked.minutes, asked.seed, asked.faults)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="framewarden-soak-")))
        (folder / "redis").mkdir()
        server = RedisServer(folder / "redis", {"requirepass": "kept"})
        server.start()
        stack.callback(server.kill)
        troupe = Troupe(folder)
        stack.callback(troupe.close)
        found = hazards(troupe, asked.streams) if asked.faults else []
        urls = [url for hazard in found for url in hazard.streams.values()]
        urls = urls or [troupe.camera().url for _ in range(asked.streams)]
        streams = {f"cam-{number:02}": url for number, url in enumerate(urls)}
        proxy = stack.enter_context(proxied(server.port))
        service = Service(folder, streams, server.url_at(proxy.port))
        stack.callback(service.kill)
        service.each(list(streams), closed(), 90, "a first closed segment")
        stage = Stage(service, server, proxy)
        mischief = Mischief(found, stage, asked.seed)
        if asked.faults:
            mischief.start()
        try:
            _watch(service, done)
            if asked.faults:
                mischief.struck_redis.wait(120)
        finally:
            mischief.stop.set()
            if asked.faults:
                mischief.join(120)
        proxy.heal()
        _judge(stage, list(streams), done)
        for hazard in found:
            done.struck[hazard.name] += hazard.struck()
        if asked.faults:
            done.count_redis(mischief.redis)
            done.troubles += mischief.troubles
    return done


def _watch(service: Service, done: Soak) -> None:
    """Read what the processes hold until the time is over or the service ends."""
    began, said, clock = time.monotonic(), 0.0, threading.Event()
    while (passed := time.monotonic() - began) < done.minutes * 60 and service.command.process.poll() is None:
        workers = worker_pids(service.pid)
        done.workers.update(workers)
        done.at_once = max(done.at_once, len(workers))
        try:
            held = [holdings(pid) for pid in (service.pid, *workers)]
        except OSError:  # one has just died: that counts, its memory does not
            clock.wait(SAMPLE_S)
            continue
        totals = [sum(column) for column in zip(*held, strict=True)]
        done.readings.append((passed, int(totals[0]), int(totals[1]), float(totals[2])))
        if passed - said >= 60:
            said = passed
            each = " + ".join(f"{one[2]:.1f}" for one in held)
            holds = f"{totals[0]} threads, {totals[1]} files, {totals[2]:.1f} MB ({each})"
            sys.stderr.write(f"{passed / 60:.0f} min: {holds}\n")
        clock.wait(SAMPLE_S)


def _judge(stage: Stage, streams: list[str], done: Soak) -> None:
    """Whether all goes on, nothing was lost, and each stream's seconds add up."""
    service = stage.service
    missing = service.each(streams, closed(time.time()), 60, "a closed segment at the end")
    done.troubles += [f"{stream} did not go on after the faults" for stream in sorted(missing)]
    until(lambda: caught_up(stage), 180, lambda: f"not all was delivered at the end: {stage.said()}")
    done.code = service.end()
    events = service.events()
    done.segments = sum(event.state == "closed" for event in events)
    done.verdict = compare(events, [event for _, event in read(stage.server.url)])
    envelopes = [json.loads(event.body) for event in events]
    for stream in streams:
        try:
            off_by([one for one in envelopes if one["data"]["stream"]["id"] == stream])
        except AssertionError as error:
            done.uncovered.append(str(error))


def caught_up(stage: Stage) -> bool:
    """Whether hardly more waits than comes in between two looks: what floods goes on to the very end."""
    state, _, waiting = stage.said()
    return state == "connected" and waiting <= 500


def main(args: Sequence[str] | None = None) -> int:
    """Run it, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--faults", action="store_true", help="random faults from the matrix")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="Markdown file to write")
    asked = parser.parse_args(args)
    done = soak(asked)
    command = (
        f"python -m tests.soak --minutes {asked.minutes:g} --streams {asked.streams} --seed {asked.seed}"
    )
    text = render(
        command + (" --faults" if asked.faults else ""),
        done.lines(),
        verdict=done.verdict,
        segments=done.segments,
        struck=done.struck,
        failures=done.failures(),
        machine=machine(),
    )
    if asked.report:
        asked.report.parent.mkdir(parents=True, exist_ok=True)
        asked.report.write_text(text)
    sys.stderr.write(text)
    return 1 if done.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
