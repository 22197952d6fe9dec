"""``framewarden bench streams``: many live streams on the real service, and the number that it carries."""

import mmap
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.bench import films, judge, material, parts, peers, rtsp, service, streams_report
from pipeline.bench.child import BenchError
from pipeline.bench.judge import Few, Finding
from pipeline.bench.machine import cores
from pipeline.bench.material import ORDINARY, Material
from pipeline.bench.parts import Parts
from pipeline.bench.peers import Cost, Say
from pipeline.bench.report import Section
from pipeline.bench.service import Streams
from pipeline.flow.sample import SamplingRules

Kind = Literal["realtime", "rtsp"]

FEW, FEW_S = 10, 60.0
"""So many streams for so many seconds, or for as long as the run itself, give the base of memory. Fewer would
leave to the others what is paid once: a keyframe on each core, a batch of several pictures, an audit; so
would fewer seconds."""
WARM_S, WARM_SHARE = 15.0, 0.25
PEER_S = 60.0
"""Film that peers are measured on, at most. The parts are on as much as the streams show in the window."""
READ_S = 20.0
"""A live stream is read so long to know what reading one costs."""
TRIES = 16


@dataclass(frozen=True, slots=True)
class Options:
    """``count`` streams of ``kind`` for ``seconds``; ``find_limit``: more and more of them. ``flagged`` is
    the share of streams that show something to flag; ``spread``: priorities 0 to 9 in turn."""

    count: int
    seconds: float
    kind: Kind
    find_limit: bool
    model: str
    flagged: float = 0.0
    spread: bool = False

    def label(self, film: Material) -> str:
        """What tells this run from another in the name of its report."""
        words = [str(self.count), f"{self.seconds:g}s", film.name, self.kind]
        words += [f"flagged{100 * self.flagged:g}"] if self.flagged else []
        words += [word for word, on in (("priorities", self.spread), ("limit", self.find_limit)) if on]
        return "-".join(words)


def bench(film: Material, options: Options, say: Say, flagged: Material | None = None) -> Section:
    """Measure parts and peers alone, then the service, then parts and peers once more: a machine is now
    faster, now slower. ``flagged`` is the film of the flagged streams, in the same folder as the other.

    :raises BenchError: what runs does not run, or there is no server to serve with."""
    path, max_gap_s = Path(film.path), SamplingRules().max_gap_s
    other = Path(flagged.path) if flagged is not None else path
    say("reading the films into memory")
    with in_memory({path, other}), _urls(path, options.kind) as (url, server_pid):
        turns = [_alone(film, options, url(path), turn=0, say=say)]
        few = _few(url(path), server_pid, options, say)

        def run(count: int) -> Finding:
            warm_s = min(WARM_S, WARM_SHARE * options.seconds)
            places = chosen(count, options.flagged) if flagged is not None else frozenset()
            urls = [url(other if place in places else path) for place in range(count)]
            paced = options.kind == "realtime"  # who joins a server's film does so at any moment of it
            wanted = Streams(
                urls,
                options.model,
                options.seconds,
                warm_s,
                server_pid,
                flagged=places,
                spread=options.spread,
                shown=material.shown(flagged.seconds) if flagged is not None and paced else None,
            )
            lean = film.name == ORDINARY.name and not places
            found = judge.judge(service.watch(wanted, say), few=few, lean=lean)
            say(f"{count} streams: {found.cores:.2f} cores, {found.broken or 'every promise kept'}")
            return found

        found = climb(run, options.count) if options.find_limit else [run(options.count)]
        try:
            turns.append(_alone(film, options, url(path), turn=1, say=say))
        except BenchError as error:  # what was found in many minutes is not lost for that
            say(f"measuring them once more failed: {error}")
    alone, others = zip(*turns, strict=True)
    return streams_report.section(
        found,
        alone=alone,
        pictures_a_second=1 / films.interval_s(film, max_gap_s),
        others=peers.mean(others),
        kind=options.kind,
        find_limit=options.find_limit,
        flagged=flagged,
    )


def _alone(film: Material, options: Options, url: str, *, turn: int, say: Say) -> tuple[Parts, list[Cost]]:
    """What the parts and the peers cost without the service, in this turn; ``url`` is where streams read."""
    path, model, seconds = Path(film.path), options.model, min(film.seconds, PEER_S)
    say("measuring each part alone")
    whole = min(film.seconds, max(options.seconds, PEER_S))
    each = parts.measure(path, seconds=whole, model=model, threads=cores(), turn=turn)
    every_s = SamplingRules().max_gap_s
    others = peers.measure(
        path, seconds=seconds, every_s=every_s, model=model, start_up=False, say=say, turn=turn
    )
    if options.kind == "rtsp":
        each = replace(each, demux_ms=parts.measure_reading(url, min(READ_S, seconds)))
    return each, others


@contextmanager
def in_memory(paths: Iterable[Path]) -> Iterator[None]:
    """Have the films in memory, and in use there: cameras have no disk that stands still for a moment or
    reads slowly, and a system may drop what nobody has read for a minute."""
    with ExitStack() as held:
        for path in paths:
            with path.open("rb") as file:
                pages = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ)
            held.callback(pages.close)
        yield


def chosen(count: int, share: float) -> frozenset[int]:
    """Which of ``count`` streams are flagged: the share of them, at least one, evenly spread."""
    number = max(1, round(share * count))
    return frozenset(place * count // number for place in range(number))


def _few(url: str, server_pid: int | None, options: Options, say: Say) -> Few | None:
    """Memory of a run with few streams, when there is to be another with more."""
    count = FEW if options.find_limit else min(FEW, options.count - 1)
    if count < 1:
        return None
    streams = Streams([url] * count, options.model, min(FEW_S, options.seconds), 0.0, server_pid)
    return Few(count, service.watch(streams, say).memory_mb)


@contextmanager
def _urls(film: Path, kind: Kind) -> Iterator[tuple[Callable[[Path], str], int | None]]:
    """What the URL of a film in this film's folder is, and the process id of the server that serves it."""
    if kind == "realtime":
        yield str, None
        return
    with rtsp.serving(film.parent) as server:
        yield server.url, server.pid


def climb(run: Callable[[int], Finding], first: int) -> list[Finding]:
    """Runs with more and more streams until a promise breaks, then between, until the limit is found."""
    found: list[Finding] = []
    count: int | None = first
    while count is not None and len(found) < TRIES:
        found.append(run(count))
        count = judge.next_count({one.streams: one.kept for one in found})
    return found
