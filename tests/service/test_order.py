"""Results in the order of the stream."""

from typing import Any

import numpy as np
import pytest

from pipeline.flow.classify import ModelInfo
from pipeline.flow.source import StreamInfo
from pipeline.service.messages import Begin, End, Item, LookSample, Sample
from pipeline.service.order import Model, Sequencer

MODEL = Model(ModelInfo("m", "1", "0" * 64, "p", "onnxruntime-f32"), ("sexual",))


@pytest.mark.parametrize("given_up", [False, True], ids=["looking", "given up"])
def test_a_sample_is_told_from_a_picture_of_a_closer_look(given_up: bool) -> None:
    """The latter arrived long ago: how long it waited since its look tells nothing of the samples."""
    sequencer, frames = Sequencer(), dict[str, Any](model=object())
    sequencer.look(1)
    sequencer.push(Sample(1, 2.0, 100.0, 100.5, frames))
    sequencer.push(LookSample(1, 2, 1.0, 101.0, frames))
    if given_up:
        assert sequencer.answer(give_up=True) == []
    row = np.array([0.5], np.float32)
    assert sequencer.scored(1, "model", MODEL, row, 101.0) == 100.5
    assert sequencer.scored(2, "model", MODEL, row, 101.0) is None


def test_no_look_is_asked_of_a_reader_that_has_left_the_session_though_it_is_in_the_next() -> None:
    """The last sample of a pass waits for its score while the film begins anew."""
    sequencer, frames = Sequencer(), dict[str, Any](model=object())
    sequencer.push(Sample(1, 2.0, 100.0, 100.5, frames))
    assert not sequencer.over
    sequencer.push(End("end_of_stream", 2.0, 100.0))
    sequencer.push(Begin("next", Item(), StreamInfo("h264", 64, 64), 100.0))
    assert sequencer.over
    sequencer.scored(1, "model", MODEL, np.array([0.5], np.float32), 101.0)
    assert len(list(sequencer.settled())) == 3
    assert not sequencer.over
