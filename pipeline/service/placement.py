"""Which worker a stream is given to: the one with the least load, of those that are well, and with the fewest
streams of its priority: under overload each worker takes from the lowest of its own, and workers share cores.
And what becomes of the streams of one that is not well.

Rules only. Load is in full-HD pictures a second to be decoded: the share of NVDEC, or of the cores, that
differs most from stream to stream."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pipeline.config import Stream
from pipeline.service.hand import Hand
from pipeline.service.jobs import Job
from pipeline.service.roster import Roster

FULL_HD = 1920 * 1080
EACH = 0.2
"""What a stream costs beside its decoding: reading, scoring, bookkeeping."""
UNSEEN = 0.7
"""Load of a stream that has not been seen yet: a full-HD keyframe every two seconds, as most are."""


def load_of(status: dict[str, Any]) -> float:
    """Load of a stream by its row of the status."""
    width, _, height = str(status.get("size") or "").partition("x")
    if not height:
        return UNSEEN
    keyframes = status.get("plan") == "keyframes"
    gap = status.get("gop_s") or status.get("max_gap_s") or 2.0
    rate = 1 / gap if keyframes else status.get("fps") or 25.0
    return EACH + float(rate) * int(width) * int(height) / FULL_HD


def load(jobs: Iterable[Job]) -> float:
    """Load of a worker that has these streams."""
    return sum(load_of(job.status) for job in jobs if not job.done)


def place(job: Job, hands: Sequence[Hand], share: float) -> Hand | None:
    """The worker for a stream, of at most ``share`` each; None: it has to wait. A suspect is given only to an
    idle one, and stays alone there."""

    def room(hand: Hand) -> float:
        alone = job.suspect or any(other.suspect for other in hand.jobs.values())
        return (1 if alone else share) - len(hand.jobs)

    def burden(hand: Hand) -> float:
        equals = (other for other in hand.jobs.values() if other.stream.priority == job.stream.priority)
        return load(hand.jobs.values()) + load(equals)

    free = [hand for hand in hands if room(hand) > 0]
    return min(free, key=lambda hand: (hand.failing, burden(hand), hand.number), default=None)


def suspect(hand: Hand, job: Job, blamed: Collection[int], roster: Roster) -> None:
    """A file that was being decoded when its worker died goes on alone (all do, if none was), and one that
    kills a worker again has failed."""
    del hand.jobs[job.number]
    if blamed and job.number not in blamed:
        roster.queue.appendleft(job)
    elif job.suspect:
        roster.fail(job, "its decoder crashed the worker twice")
    else:
        job.suspect = True
        roster.queue.append(job)


def lend(hand: Hand, roster: Roster) -> None:
    """A worker could not be started again: its streams wait for others, until it can."""
    hand.lent |= {job.stream.id for job in hand.jobs.values() if job.kind == "live"}
    roster.queue.extend(hand.jobs.values())
    hand.jobs.clear()


def returning(hand: Hand, roster: Roster) -> list[Stream]:
    """It is there again, and has the least load: those of its streams that are to leave where they are."""
    lent, hand.lent = hand.lent, set()
    jobs = [job for name in sorted(lent) if (job := roster.job(name)) is not None]
    return [job.stream for job in jobs if job.told and job.leaving is None]
