"""From when on a sample of a live stream waits."""

from pathlib import Path

import pytest

from pipeline.backends import registry
from pipeline.flow.frames import InputSpec
from pipeline.flow.sample import Plan, SamplingRules
from pipeline.service.ahead import Ahead
from pipeline.service.lead import Lead
from pipeline.service.messages import Message, Sample
from pipeline.service.session import Position
from tests.fixtures.media import Clips, clips
from tests.fixtures.session import live_session

__all__ = ["clips"]


def samples(path: Path, plan: Plan) -> list[Sample]:
    """What a live stream of the film gives, each packet arriving when it is read."""
    found: list[Sample] = []

    def send(message: Message) -> None:
        if isinstance(message, Sample):
            found.append(message)
            for frame in message.frames.values():
                assert frame is not None
                frame.release()

    pool = registry.open_pool(InputSpec(32, 32), 64, device="cpu", live_reserve=0)
    rules = SamplingRules(max_gap_s=1.0, plan=plan, audit=0.0)
    with live_session(
        path, pool, send, rules=rules, lead=Lead(None), position=Position(1.0), ahead=Ahead(1, 0)
    ) as session:
        session.read()
    return found


@pytest.fixture
def film(clips: Clips) -> Path:
    """Six seconds with two B pictures between any others, and a keyframe every second."""
    return clips(pictures=144, rate=24, gop=24, options={"preset": "medium", "tune": "film", "bf": "2"})


def test_a_keyframe_by_itself_waits_from_when_it_arrived(film: Path) -> None:
    found = samples(film, "keyframes")
    assert len(found) >= 5
    assert all(sample.ready == sample.arrived for sample in found)


def test_a_picture_of_a_sequence_waits_from_when_all_has_arrived_that_it_depends_on(film: Path) -> None:
    found = samples(film, "full")
    assert len(found) >= 5
    assert all(sample.ready > sample.arrived for sample in found[:-1])
