"""The embedded server of a run that dies, and what the status says of the outbox."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from pipeline import config as configs
from pipeline.backends import redis_embedded
from pipeline.errors import SinkError
from pipeline.events import Event
from pipeline.outbox import Outbox, OutboxFullError
from pipeline.service import publisher as module
from pipeline.service.delivery import Delivery, redis_for
from pipeline.service.outbox_watch import OutboxWatch
from pipeline.service.state import close_left_open
from tests.fixtures.events import segment
from tests.fixtures.redis import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.02)


def config_in(folder: Path, more: str = "") -> configs.Config:
    (folder / "fw.yaml").write_text(f"state_dir: st\n{more}streams: [{{id: a, url: a.mp4}}]\n")
    return configs.load(folder / "fw.yaml")


def test_an_embedded_server_that_dies_is_started_again_on_its_data(tmp_path: Path) -> None:
    config, stop = config_in(tmp_path), threading.Event()
    with (
        Outbox(config.state_dir / "outbox.sqlite") as outbox,
        redis_for(config, stop) as place,
        Delivery(outbox, place) as delivery,
    ):
        first = [segment(), segment()]
        outbox.accept(first, now=1.0)
        assert delivery.finish(20)
        url = delivery.publisher.state.url
        for round_ in (2, 3):
            server = place._embedded
            assert server is not None
            os.kill(server.pid, signal.SIGKILL)
            outbox.accept([segment()], now=2.0)
            until(lambda round_=round_: delivery.publisher.state.connects == round_)  # type: ignore[misc]
            assert delivery.finish(20)
        assert delivery.publisher.state.url == url  # consumers find it where it was
        assert delivery.publisher.state.republished == 0  # nothing was lost with it
        with redis.Redis.from_url(str(url), protocol=2) as client:
            assert client.xlen("framewarden:segments") == 4
    assert not (config.redis_dir() / "redis.json").exists()


def test_an_embedded_server_that_hangs_is_not_joined_by_a_second_one_on_its_data(tmp_path: Path) -> None:
    config, stop = config_in(tmp_path), threading.Event()
    with redis_for(config, stop) as place:
        server = place._embedded
        assert server is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert not server.ended()
            place.open_sink().close()
            assert place._embedded is server
            with pytest.raises(SinkError, match="runs but does not answer"):
                redis_embedded.start(config.redis_dir())
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_the_status_says_that_the_outbox_is_full_and_that_it_accepts_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Outbox(tmp_path / "outbox.sqlite", max_bytes=4500) as outbox:
        watch = OutboxWatch(outbox)
        assert watch.look(["", ""]) == {"state": "ok", "error": "", "bytes": 0, "max_bytes": 4500}
        outbox.accept([segment(), segment()], now=1.0)
        with pytest.raises(OutboxFullError) as caught:
            outbox.accept([segment()], now=2.0)
        said = watch.look(["", str(caught.value)])
        assert said["state"] == "blocked"
        assert "bring Redis back or raise outbox.max_bytes" in said["error"]
        assert 2000 < said["bytes"] <= 4500
        watch.look(["", str(caught.value)])
        assert watch.look(["", ""])["state"] == "ok"
    out = capsys.readouterr().out
    assert out.count("the outbox accepts nothing") == 1
    assert out.count("the outbox accepts again") == 1


def test_an_outbox_that_cannot_be_read_is_no_reason_to_end(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        watch = OutboxWatch(outbox)
        outbox.accept([segment()], now=1.0)
        watch.look([])
        for suffix in ("", "-wal", "-shm"):
            Path(f"{outbox.path}{suffix}").unlink()
        outbox.path.mkdir()
        said = watch.look([])
        assert said["state"] == "blocked"
        assert watch.counts.pending == 1  # what it last knew
        outbox.path.rmdir()
        assert watch.look([])["state"] == "ok"
        assert outbox.counts().pending == 1


WORKER = """
import random, sys
from pathlib import Path
from pipeline.events import new_id
from pipeline.outbox import Outbox
from tests.fixtures.events import segment
outbox, rng, open_ = Outbox(Path(sys.argv[1])), random.Random(), {}
while True:
    stream = f"cam-{rng.randrange(3)}"
    name, rev = open_.pop(stream, None) or (new_id(), 0)
    state = "open" if rev == 0 else rng.choice(["update", "closed"])
    event = segment(name, rev + 1, state, stream)
    if state != "closed":
        open_[stream] = (name, rev + 1)
    outbox.accept([event], now=1.0)
    print(event.id, flush=True)
"""


def test_after_every_kill_what_was_open_is_closed_once_and_no_id_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    said: list[str] = []
    with Outbox(path) as outbox:
        for _ in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True
            )
            assert child.stdout is not None
            said += [child.stdout.readline().strip() for _ in range(30)]
            child.kill()
            said += child.stdout.read().split()
            child.wait()
            child.stdout.close()
            closed: list[Event] = []
            close_left_open(outbox, None, closed.append)
            assert len(closed) <= 3
            said += [event.id for event in closed]
            assert outbox.open_segments() == []
            close_left_open(outbox, None, closed.append)  # nothing is left to close
            assert len(closed) <= 3
        events = [row.event for row in outbox.pending(100_000)]
    assert len(said) == len(set(said))
    assert set(said) <= {event.id for event in events}
    assert len(events) <= len(said) + 3  # what a child had no time to say
    last = {event.segment_id: event for event in events}
    assert {event.state for event in last.values()} == {"closed"}
    for event in events:
        assert event.rev is not None
        revisions = [other.rev for other in events if other.segment_id == event.segment_id]
        assert revisions == list(range(1, len(revisions) + 1))
