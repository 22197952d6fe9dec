"""Every live picture for which there is no slot is counted, whether a sample tells of it or not."""

import time
from contextlib import closing

import pytest

from pipeline.backends import registry
from pipeline.config import Config
from pipeline.flow.frames import InputSpec
from pipeline.flow.sample import SamplingRules
from pipeline.service.ahead import Ahead
from pipeline.service.lead import Lead
from pipeline.service.messages import Message
from pipeline.service.orders import Add
from pipeline.service.session import Position
from pipeline.service.stream import StreamScreen
from tests.fixtures.media import Clips, clips, demux
from tests.fixtures.session import live_session

__all__ = ["clips"]


@pytest.mark.parametrize("at_once", [False, True], ids=["decided in the end", "decided at once"])
def test_pictures_that_find_no_slot_are_all_in_the_status(clips: Clips, at_once: bool) -> None:
    """10 s, a keyframe every quarter of a second, a gap of 1 s, and a pool whose one slot is taken."""
    path = clips(pictures=240, rate=24, gop=6)
    config = Config.model_validate({"streams": [{"id": "cam", "url": str(path)}]})
    lead, position = Lead(None), Position(1.0)
    order = Add(1, config.streams[0], "live", time.monotonic(), 0.0)
    screen = StreamScreen(order, config, {}, position, lead)

    def send(message: Message) -> None:
        screen.results.push(message)
        if at_once:
            screen.turn(time.monotonic(), time.time())

    full = registry.open_pool(InputSpec(32, 32), 1, device="cpu", live_reserve=0)
    info, packets = demux(path)
    with closing(registry.open_decoder(info, device="cpu")) as decoder:
        still = decoder.still(packets[0])
        assert still is not None
        assert full.store(still, stream=2, sample=1, live=True, timeout=0) is not None
    rules = SamplingRules(max_gap_s=1.0)
    with live_session(
        path, full, send, rules=rules, lead=lead, position=position, ahead=Ahead(1, 0)
    ) as session:
        session.read()
    screen.turn(time.monotonic(), time.time())
    assert session.sampled > 8
    assert 0 < position.dropped < session.sampled
    assert screen.status(time.monotonic())["drops"] == {"overload": session.sampled}
