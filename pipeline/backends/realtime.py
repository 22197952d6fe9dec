"""A recording at the pace of a clock, as a camera would send it."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext

from pipeline.errors import SourceError
from pipeline.flow.source import Packet

EARLY_S, LATE_S = 0.1, 0.3
"""What is no keyframe may be given so much before or after it is due, in one go with others: to be woken up
for each packet, with what it needs out of the caches, would cost several times what reading it does."""
BURST = 64
"""Packets that are read in one go at most."""
READERS, PATIENCE_S = 2, 1.0
"""So many threads read local files at a time. The others wait up to ``PATIENCE_S``: a disk that hangs holds
up nobody but its own readers.

A packet takes and gives back the interpreter's lock half a dozen times. Where more than a few threads want it
they wait for each other at each of them: on two cores, 200 readers took 1.5 of them for half of what they had
to read; two at a time they take 0.8 for all of it."""
_reading = threading.Semaphore(READERS)


def paced(
    packets: Iterator[Packet], stop: threading.Event, monotonic: Callable[[], float], *, local: bool
) -> Generator[Packet, None, None]:
    """``packets``, each when the clock has come to its ``arrived``: keyframes and the last one just then,
    what is between them up to ``EARLY_S`` before or ``LATE_S`` after it; ends at ``stop``.

    :raises SourceError: as ``packets`` does, behind what came before it."""
    error: SourceError | None = None
    over = False
    while not over:
        burst: list[Packet] = []
        with _turn() if local else nullcontext():
            until_s = monotonic() + EARLY_S + LATE_S
            try:
                while len(burst) < BURST:
                    burst.append(next(packets))
                    if burst[-1].keyframe or burst[-1].arrived > until_s:
                        break
            except StopIteration:
                over = True
            except SourceError as found:
                error, over = found, True
        for packet in burst:
            wait_s = packet.arrived - monotonic()
            if wait_s > (0.0 if packet.keyframe else EARLY_S):
                for_more_s = 0.0 if packet.keyframe else min(LATE_S, burst[-1].arrived - packet.arrived)
                if stop.wait(wait_s + for_more_s):
                    return
            yield packet
    if error is not None:
        raise error


@contextmanager
def _turn() -> Iterator[None]:
    held = _reading.acquire(timeout=PATIENCE_S)
    try:
        yield
    finally:
        if held:
            _reading.release()
