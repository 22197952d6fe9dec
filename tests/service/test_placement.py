"""Several GPUs on one server: a worker each, streams by load, and what happens when one stays away."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.cuda_driver import chosen
from pipeline.config import Config, Stream
from pipeline.errors import ConfigError
from pipeline.outbox import Outbox
from pipeline.service import plan
from pipeline.service.hand import Hand
from pipeline.service.jobs import Job
from pipeline.service.placement import load, load_of, place
from pipeline.service.supervisor import Supervisor
from tests.fixtures.lifecycle import (
    ODD_ROWS,
    arm,
    gaps,
    log,
    of,
    plant,
    row,
    snapshot,
    wait_for_ends,
    worker_pids,
    write_config,
)
from tests.fixtures.own_model import write_manifest
from tests.fixtures.redis import RedisServer
from tests.fixtures.service import Command, film
from tests.fixtures.tiny_onnx import mean_colour_model

CARDS = ("GPU-a", "GPU-b", "GPU-c")
ALONE = float("inf")


def job(number: int, priority: int = 5, **status: Any) -> Job:
    stream = Stream(id=f"cam-{number}", url=f"rtsp://127.0.0.1/{number}", labels={}, priority=priority)
    return Job(number, stream, "live", status=status)


def hands(count: int) -> list[Hand]:
    return [Hand.idle(number, 1, f"GPU-{number}") for number in range(count)]


def given_out(jobs: list[Job], workers: list[Hand]) -> list[list[int]]:
    for one in jobs:
        hand = place(one, workers, ALONE)
        assert hand is not None
        hand.jobs[one.number] = one
    return [list(hand.jobs) for hand in workers]


def test_streams_of_which_nothing_is_known_are_dealt_out_evenly() -> None:
    assert given_out([job(n) for n in range(7)], hands(3)) == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize("order", [range(200), sorted(range(200), key=lambda n: n % 10)])
def test_workers_get_as_many_streams_of_each_priority_as_the_others(order: Sequence[int]) -> None:
    """Each cuts its own lowest: were all of the high ones on one, it would cut those while low ones elsewhere
    have everything."""
    first, second = given_out([job(n, priority=n % 10) for n in order], hands(2))
    for priority in range(10):
        counts = [sum(n % 10 == priority for n in numbers) for numbers in (first, second)]
        assert counts == [10, 10]


def test_a_stream_goes_to_the_gpu_with_the_least_to_decode_not_with_the_fewest_streams() -> None:
    """One 4K stream decoded in full is 120 full-HD pictures a second, a keyframe every 2 s half a one."""
    first, second = workers = hands(2)
    first.jobs[1] = job(1, size="3840x2160", fps=30.0, plan="full", gop_s=2.0)
    for number in range(2, 12):
        second.jobs[number] = job(number, size="1920x1080", fps=30.0, plan="keyframes", gop_s=2.0)
    assert load(first.jobs.values()) == pytest.approx(120.2)
    assert load(second.jobs.values()) == pytest.approx(10 * 0.7)
    assert load_of({"size": "960x1080", "fps": 20.0, "plan": "skip"}) == pytest.approx(10.2)
    assert place(job(12), workers, ALONE) is second


def test_a_gpu_whose_worker_has_just_died_gets_new_streams_only_where_there_is_no_other() -> None:
    first, second = workers = hands(2)
    second.jobs = {1: job(1), 2: job(2)}
    first.restarts, first.away_since = 1, 5.0
    assert place(job(3), workers, ALONE) is second
    assert place(job(3), [first], ALONE) is first
    first.away_since = 0.0  # it is ready again
    assert place(job(3), workers, ALONE) is first


def test_a_suspect_is_alone_on_its_worker_and_waits_for_an_idle_one() -> None:
    first, second = workers = hands(2)
    first.jobs = {1: job(1)}
    suspect = job(2)
    suspect.suspect = True
    assert place(suspect, workers, ALONE) is second
    second.jobs = {2: suspect}
    assert place(job(3), workers, ALONE) is first
    assert place(job(3), [second], ALONE) is None


def test_a_worker_takes_as_many_files_as_its_share_and_the_others_wait() -> None:
    first, second = workers = hands(2)
    for number in range(6):
        hand = place(job(number), workers, 3)
        assert hand is not None
        hand.jobs[number] = job(number)
    assert (list(first.jobs), list(second.jobs)) == ([0, 2, 4], [1, 3, 5])
    assert place(job(6), workers, 3) is None
    del second.jobs[3]
    assert place(job(6), workers, 3) is second


def test_all_gpus_are_used_or_those_that_the_config_names() -> None:
    assert chosen("all", CARDS) == CARDS
    assert chosen((2, 0, 2), CARDS) == ("GPU-c", "GPU-a")
    assert chosen("all", ("GPU-a",)) == chosen((0,), ("GPU-a",)) == ("",)
    with pytest.raises(ConfigError, match="gpus: 3: there is no such GPU; this process sees 0 to 2"):
        chosen((0, 3), CARDS)
    with pytest.raises(ConfigError, match="sees none"):
        chosen((0,), ())
    with pytest.raises(ConfigError, match=r"gpus: \[\]: names none"):
        chosen((), CARDS)


HELD = f"""
import os, threading
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from pipeline.backends.source_ffmpeg import FfmpegSource
whole = FfmpegSource._demux
def held(self):
    while self.info.height == {ODD_ROWS} and os.path.exists(ARMED):
        threading.Event().wait(0.05)
    return whole(self)
FfmpegSource._demux = held
"""
"""The film of ODD_ROWS gives no packet while ARMED exists; on two cores, and so on one worker."""


@pytest.mark.timeout(240)
def test_a_file_does_not_wait_for_the_one_before_it(
    framewarden: Callable[..., Command], tmp_path: Path
) -> None:
    """The first film stands still until the second, on the same worker, has ended."""
    films = tmp_path / "films"
    films.mkdir()
    mean_colour_model(tmp_path / "mine.onnx")
    model = write_manifest(tmp_path)
    film(films / "1.mp4", 1, size=(320, ODD_ROWS))
    film(films / "2.mp4", 1, size=(320, 240))
    env = plant(tmp_path / "plant", HELD)
    armed = arm(tmp_path / "plant", "always")
    command = framewarden("screen", films, "--model", model, "--json", env=env)

    def ended(name: str) -> bool:
        return any(
            event["data"].get("state") == "ended" and event["data"]["stream"]["url"].endswith(name)
            for event in command.events
        )

    command.wait_for(lambda c: ended("2.mp4"))
    assert not ended("1.mp4")
    armed.unlink()
    command.wait_for(lambda c: ended("1.mp4"))
    assert command.end() == 0, command.stderr


@pytest.mark.parametrize(("streams", "workers"), [(7, 3), (2, 2)])
def test_there_is_one_worker_a_gpu_with_places_for_all_streams(
    tmp_path: Path, streams: int, workers: int
) -> None:
    """So that one GPU can do for all; ``workers`` of the config is for CPUs."""
    jobs = [job(number) for number in range(streams)]
    config = Config(state_dir=tmp_path, workers=8, streams=tuple(one.stream for one in jobs))
    with Outbox(tmp_path / "outbox") as outbox:
        supervisor = Supervisor(
            config, outbox, "gpu", jobs=jobs, one_by_one=False, on_event=lambda event: None, gpus=CARDS
        )
        assert [hand.gpu for hand in supervisor.hands] == list(CARDS[:workers])
        assert supervisor.each >= streams
    assert plan.worker_count(config, streams, 0) == min(8, streams)
    assert plan.gpus(config, "cpu") == ()


@pytest.mark.parametrize(
    ("cores", "streams", "workers"),
    [(2, 1, 1), (2, 100, 1), (2, 101, 2), (2, 900, 2), (8, 3, 3), (8, 300, 4), (8, 401, 5), (1, 200, 1)],
)
def test_a_worker_has_two_cores_or_a_hundred_streams(
    monkeypatch: pytest.MonkeyPatch, cores: int, streams: int, workers: int
) -> None:
    monkeypatch.setattr(plan, "cores", lambda: cores)
    assert plan.worker_count(Config(), streams, 0) == workers


def test_a_worker_that_does_not_come_back_is_taken_over_and_gets_its_streams_back_when_it_does(
    framewarden: Callable[..., Command], redis_server: RedisServer, tmp_path: Path
) -> None:
    """Two workers, as of two GPUs; the first is killed, and once more while it starts again."""
    names = ["cam-1", "cam-2", "cam-3", "cam-4"]
    film(tmp_path / "film.mp4", 6, size=(320, 240))
    streams = [{"id": name, "url": "film.mp4", "pace": "realtime", "loop": True} for name in names]
    settings = write_config(tmp_path / "run.yaml", streams, workers=2, redis={"url": redis_server.url})
    command = framewarden("run", settings, "--json")
    command.wait_for(lambda c: all(gaps(c, name) for name in names))  # with the first sample it is on record
    first, second = worker_pids(command.process.pid)
    os.kill(first, signal.SIGKILL)
    command.wait_for(lambda c: bool(log(c, "worker.died")))
    until_there = [first, second]
    while set(until_there) <= {first, second} or len(until_there) < 2:
        until_there = worker_pids(command.process.pid)
    (again,) = set(until_there) - {first, second}
    os.kill(again, signal.SIGKILL)
    assert wait_for_ends([again], 10)
    command.wait_for(lambda c: bool(log(c, "worker.taken_over")))
    command.wait_for(lambda c: bool(log(c, "worker.back")))
    theirs = ("cam-1", "cam-3")
    command.wait_for(lambda c: all(len(of(c, name, "recovered")) == 2 for name in theirs))
    snapshot(
        tmp_path,
        lambda now: (
            [worker["streams"] for worker in now["workers"]] == [2, 2]
            and all(row(now, name)["state"] == "screening" for name in names)
        ),
    )
    assert command.terminate() == 0, command.stderr
    (taken,) = log(command, "worker.taken_over")
    assert taken["streams"] == 2
    for name in names:
        assert not of(command, name, "ended")[:-1], "it went on, here or there"
    for name in set(names) - set(theirs):
        assert of(command, name, "recovered") == [], "the other worker's own"
        assert "worker_lost" not in {gap["cause"] for gap in gaps(command, name)}
