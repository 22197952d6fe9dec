"""Every live picture for which there is no slot is counted, whether a sample tells of it or not."""

import random
import threading
import time

import pytest

from pipeline.backends import registry
from pipeline.backends.source_ffmpeg import SourceSettings, open_source
from pipeline.config import Config
from pipeline.flow.frames import InputSpec
from pipeline.flow.sample import Sampler, SamplingRules
from pipeline.service.admission import Admission, Turns
from pipeline.service.ahead import Ahead
from pipeline.service.lead import Budget, Lead
from pipeline.service.marks import Marks, board
from pipeline.service.messages import Begin, Item, Message
from pipeline.service.orders import Add
from pipeline.service.session import Desk, Position, Session
from pipeline.service.stream import StreamScreen
from tests.fixtures.media import Clips, clips

__all__ = ["clips"]


@pytest.mark.parametrize("at_once", [False, True], ids=["decided in the end", "decided at once"])
def test_pictures_that_find_no_slot_are_all_in_the_status(clips: Clips, at_once: bool) -> None:
    """10 s, a keyframe every quarter of a second, a gap of 1 s, and a pool whose one slot is taken."""
    path = clips(pictures=240, rate=24, gop=6)
    config = Config.model_validate({"streams": [{"id": "cam", "url": str(path)}]})
    stop, lead, position = threading.Event(), Lead(None), Position(1.0)
    order = Add(1, config.streams[0], "live", time.monotonic(), 0.0)
    screen = StreamScreen(order, config, {}, position, lead)

    def send(message: Message) -> None:
        screen.results.push(message)
        if at_once:
            screen.turn(time.monotonic(), time.time())

    full = registry.open_pool(InputSpec(32, 32), 1, device="cpu", live_reserve=0)
    with open_source(SourceSettings(url=str(path), kind="file"), stop=stop) as source:
        admission = Admission("cpu", Turns(1, Marks(board(1))), 1)
        desk = Desk(
            number=1,
            live=True,
            send=send,
            reads=lambda _: None,
            left_out=frozenset(),
            pools={"model": full},
            admission=admission,
            ahead=Ahead(1),
            lead=lead,
            budget=Budget(1, 0.1, 0.01),
            stop=stop,
            position=position,
        )
        send(Begin("session", Item(), source.info, time.monotonic()))
        with admission.decoder(source.info) as decoder:
            sampler = Sampler(SamplingRules(max_gap_s=1.0), kind="live", rng=random.Random(1))
            still = decoder.still(next(iter(source)))
            assert still is not None
            assert full.store(still, stream=2, sample=1, live=True, timeout=0) is not None
            session = Session(source, decoder, sampler, desk, None)
            session.read()
    screen.turn(time.monotonic(), time.time())
    assert session.sampled > 8
    assert 0 < position.dropped < session.sampled
    assert screen.status(time.monotonic())["drops"] == {"overload": session.sampled}
