"""What it costs that a large keyframe, decoded by itself, is not deblocked."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import engines
from pipeline.backends import registry
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.software_contexts import UNFILTERED_WIDTH
from pipeline.flow.decode import Picture
from pipeline.flow.frames import FramePool
from samples.make_clips import GRAPHIC, NSFW, SAFETY_SEXUAL, card, pan
from tests.fixtures.media import demux

MOST = 0.02
"""Most that a score may move by it."""
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "gravel", "rocket")
CARDS = {"open-nsfw": NSFW, "image-safety-s": (*GRAPHIC, *SAFETY_SEXUAL)}
SIZE = (UNFILTERED_WIDTH, 720)


def slots(pool: FramePool, pictures: list[Picture]) -> NDArray[np.float32]:
    """What the model is shown of each."""
    found = []
    for picture in pictures:
        frame = pool.store(picture, stream=0, sample=0, live=False, timeout=0)
        assert frame is not None
        found.append(np.array(pool.gather([frame])[0], np.float32))
        frame.release()
    return np.stack(found)


def pixels(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(picture.surface.to_ndarray(format="gray"), np.uint8)


@pytest.mark.parametrize("model", CARDS)
@pytest.mark.parametrize("crf", ["23", "28"])
def test_flagged_cards_and_photographs_score_as_if_they_were_deblocked(
    tmp_path: Path, model: str, crf: str
) -> None:
    """In a lossy film, as the quality of cameras and of uploads goes."""
    shown = [card(name, *SIZE) for name in CARDS[model]] + [pan(name, 0.4, *SIZE) for name in PHOTOGRAPHS]
    info, packets = demux(write_clip(tmp_path / "film.mp4", shown, gop=1, options={"crf": crf}))
    decoder = registry.open_decoder(info)
    alone = [picture for packet in packets if (picture := decoder.still(packet)) is not None]
    whole = [picture for packet in packets for picture in decoder.decode(packet)]
    whole += decoder.flush()
    assert len(alone) == len(whole) == len(shown)
    assert all((pixels(a) != pixels(b)).any() for a, b in zip(alone, whole, strict=True)), "not deblocked"
    manifest = engines.load_manifest(model)
    classifier = registry.open_classifier(manifest, engine="onnxruntime", threads=1, max_batch=16)
    pool = registry.open_pool(manifest.spec, 1)
    found, wanted = (engines.score_all(classifier, slots(pool, pictures)) for pictures in (alone, whole))
    pool.close()
    assert (wanted[: len(CARDS[model])].max(axis=1) > 0.9).all()
    assert np.abs(found - wanted).max() <= MOST
