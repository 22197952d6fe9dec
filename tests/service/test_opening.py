"""When a source is connected to: not with too many others, and again while its server is away."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.backends.source_ffmpeg import SourceSettings, open_source
from pipeline.config import Config
from pipeline.inputs import Server
from pipeline.service.opening import Opener
from pipeline.service.retry import MOST_S, OUTAGE_MOST_S, OUTAGE_S, Backoff, HostGate
from tests.contract.test_source import make_clip
from tests.fixtures.http import HttpServer
from tests.fixtures.rtsp import RtspServer

NEVER = threading.Event()
CAMERA = Server("camera", 554)


# ---- recordings on a server that is away -------------------------------------------------------------------


class Waited:
    """An opener of one recording by http, and what it told."""

    def __init__(self, url: str, *, wait: bool = True) -> None:
        self.told: list[str] = []
        self.stop = threading.Event()
        self.url = url
        config = Config.model_validate({"streams": [{"id": "film", "url": url, "open_timeout_s": 2}]})
        self.opener = Opener(
            config.streams[0],
            config,
            "file",
            stop=self.stop,
            gate=HostGate(),
            backoff=Backoff(random.Random(3)),
            wait=wait,
            tell=self.told.append,
        )


@pytest.fixture
def film(http_server: HttpServer) -> str:
    """The address of a film on a running server."""
    make_clip(http_server.folder / "film.mp4")
    return http_server.url("film.mp4")


def test_a_recording_whose_server_is_busy_at_first_is_asked_for_again(
    http_server: HttpServer, film: str
) -> None:
    http_server.busy["/film.mp4"] = 2
    waited = Waited(film)
    with waited.opener.open(film) as source:
        assert next(iter(source)).keyframe
    assert ["503" in text for text in waited.told] == [True, True, False]
    assert waited.told[-1] == ""


def test_what_a_server_says_of_a_recording_is_final(http_server: HttpServer, film: str) -> None:
    http_server.statuses["/film.mp4"] = 404
    with pytest.raises(errors.SourceNotFound):
        Waited(film).opener.open(film)
    assert len(http_server.asked) == 1


def test_a_recording_that_is_to_be_opened_once_is_not_waited_for(http_server: HttpServer, film: str) -> None:
    http_server.busy["/film.mp4"] = 1
    with pytest.raises(errors.SourceRefused):
        Waited(film, wait=False).opener.open(film)
    assert len(http_server.asked) == 1


def test_a_recording_is_no_longer_waited_for_when_the_service_stops(
    http_server: HttpServer, film: str
) -> None:
    http_server.busy["/film.mp4"] = 1_000_000
    waited = Waited(film)
    waited.opener._tell = lambda _: waited.stop.set()
    with pytest.raises(errors.SourceRefused):
        waited.opener.open(film)
    assert len(http_server.asked) == 1


def test_waits_grow_to_five_seconds_and_to_thirty_after_ten_minutes() -> None:
    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    backoff = Backoff(Longest())
    assert [backoff.next_wait(0.0) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, MOST_S, MOST_S]
    assert not backoff.is_outage(OUTAGE_S - 1)
    assert backoff.is_outage(OUTAGE_S)
    assert backoff.next_wait(OUTAGE_S) == OUTAGE_MOST_S
    backoff.succeeded()
    assert (backoff.next_wait(OUTAGE_S), backoff.is_outage(OUTAGE_S)) == (0.5, False)


# ---- eight connects at once to a host, of all workers ------------------------------------------------------

HOLD = """
import sys, threading
from contextlib import ExitStack
from pathlib import Path
from pipeline.inputs import Server
from pipeline.service.retry import HostGate
gate, never = HostGate(Path(sys.argv[1])), threading.Event()
with ExitStack() as stack:
    for _ in range(int(sys.argv[2])):
        stack.enter_context(gate.connecting(Server("camera", 554), never))
    print("held", flush=True)
    sys.stdin.read()
"""
Holder = Callable[[int], "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Holder]:
    """Starts another process that connects so many times to ``camera`` and stays there."""
    running: list[subprocess.Popen[str]] = []

    def start(count: int) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "gate"), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_the_workers_share_a_host_s_eight_places_and_one_that_dies_gives_its_own_back(
    hold: Holder, tmp_path: Path
) -> None:
    other = hold(5)
    gate, stop, inside, leave = HostGate(tmp_path / "gate"), threading.Event(), [], threading.Event()
    third, fourth = threading.Event(), threading.Event()

    def connect() -> None:
        with gate.connecting(CAMERA, stop):
            inside.append(1)
            if len(inside) == 3:
                third.set()
            if len(inside) == 4:
                fourth.set()
            leave.wait(30)

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert third.wait(20)
        assert not fourth.wait(0.5)
        with gate.connecting(Server("another camera", 554), stop):
            pass
        other.kill()
        assert fourth.wait(20)
    finally:
        leave.set()
        stop.set()
        for thread in threads:
            thread.join(20)
    assert gate._file is None


def test_a_gate_whose_file_cannot_be_made_still_lets_connect(tmp_path: Path) -> None:
    gate = HostGate(tmp_path / "no such folder" / "gate")
    with gate.connecting(CAMERA, NEVER):
        assert gate._held
    assert not gate._held


def test_a_place_is_another_s_a_while_after_the_server_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.service.retry.SETTLE_S", 0.3)
    gate, began = HostGate(each=1), time.monotonic()
    with ExitStack() as first:
        first.enter_context(gate.connecting(CAMERA, NEVER))()
        with gate.connecting(CAMERA, NEVER):
            assert time.monotonic() - began >= 0.3
            first.close()
            assert gate._held  # the second one's
    assert not gate._held


def test_a_server_has_answered_before_its_first_pictures_are_looked_at(rtsp_server: RtspServer) -> None:
    make_clip(rtsp_server.folder / "film.mp4")
    said: list[str] = []

    def settings(name: str) -> SourceSettings:
        return SourceSettings(rtsp_server.url(name), "live", answered=lambda: said.append(name))

    with open_source(settings("film.mp4"), stop=NEVER):
        assert said == ["film.mp4"]
    with pytest.raises(errors.SourceError):
        open_source(settings("none.mp4"), stop=NEVER)
    assert said == ["film.mp4"]


# ---- back together -----------------------------------------------------------------------------------------


def _answer(gate: HostGate, server: Server) -> None:
    with gate.connecting(server, NEVER):
        pass


def _waiting(gate: HostGate, server: Server) -> threading.Event:
    """Another thread waits a minute to call on ``server``; what says that it has stopped to wait."""
    done = threading.Event()

    def wait() -> None:
        gate.pause(server, 60.0, NEVER)
        done.set()

    threading.Thread(target=wait, daemon=True).start()
    return done


def test_who_waits_for_a_server_is_told_when_it_answers_another_stream() -> None:
    gate = HostGate()
    done = _waiting(gate, CAMERA)
    _answer(gate, Server(CAMERA.host, 8554))
    assert not done.wait(0.3)
    _answer(gate, CAMERA)
    assert done.wait(20)


def test_a_server_that_answers_all_the_time_is_not_called_by_all_whenever_it_does() -> None:
    gate = HostGate()
    _answer(gate, CAMERA)
    done = _waiting(gate, CAMERA)
    _answer(gate, CAMERA)
    assert not done.wait(0.5)


def test_a_wait_ends_with_its_time_or_when_it_is_told_to_stop() -> None:
    gate, stop = HostGate(), threading.Event()
    gate.pause(CAMERA, 0.01, NEVER)
    stop.set()
    gate.pause(CAMERA, 60.0, stop)
