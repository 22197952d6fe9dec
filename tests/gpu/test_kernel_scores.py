"""A picture has the same score by the GPU's conversion and by the CPU's: its kernel, run on a CPU."""

from itertools import product

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import engines
from pipeline.backends import frames_numpy, registry
from pipeline.flow.decode import Picture
from pipeline.flow.frames import InputSpec
from tests.fixtures.pictures import COLOUR, GREY, Rgb, cards, photograph, stretched
from tests.gpu.cpu_kernel import CpuKernel, nv12

MOST = 0.02
"""The largest difference of a score."""
MATRICES = {"ITU601": 6, "ITU709": 1, "BT2020": 9}
"""swscale's name → FFmpeg's number (AVCOL_SPC)."""
FORMS = ("yuv420p", "yuv420p10le")
SIZES = ((480, 640), (719, 1279), (271, 183))
CASES = list(product(MATRICES, (False, True), FORMS, SIZES))


def pictures(model: str) -> list[Rgb]:
    """The model's cards, from calm to flagged and what lies between, and photographs."""
    photographs = [photograph(name) for name in (*COLOUR[:4], *GREY[:2])]
    return [*cards(f"{model}-*.png").values(), *photographs]


def decoded(rgb: Rgb, matrix: str, full: bool, form: str, size: tuple[int, int]) -> av.VideoFrame:
    """The picture as a decoder would give it, its colours tagged."""
    height, width = size
    whole = av.VideoFrame.from_ndarray(stretched(rgb, width, height), format="rgb24")
    span = "JPEG" if full else "MPEG"
    frame = whole.reformat(format=form, dst_colorspace=matrix, dst_color_range=span)
    frame.colorspace, frame.color_range = MATRICES[matrix], 2 if full else 1
    return frame


def both_ways(
    kernel: CpuKernel, frame: av.VideoFrame, spec: InputSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The slot by the CPU's pool, and by the kernel from what NVDEC would lay out, in half floats."""
    on_cpu = np.empty(spec.slot_shape(), np.float32)
    picture = Picture(0.0, frame.width, frame.height, 0.0, surface=frame)
    frames_numpy.convert(picture, spec, on_cpu)
    planes, colour = frames_numpy._planes(frame)
    return on_cpu, kernel.convert(nv12(planes, colour, padding=6), spec, half=True).astype(np.float32)


@pytest.mark.parametrize("model", ["open-nsfw", "image-safety-s"])
def test_scores_by_the_kernel_and_by_the_cpu_differ_by_two_hundredths_at_most(
    zig_kernel: CpuKernel, model: str
) -> None:
    """Every matrix, range, depth and size; all of the pictures take part."""
    manifest = engines.load_manifest(model)
    shown = pictures(model)
    chosen = [(case, shown[number % len(shown)]) for number, case in enumerate(CASES)]
    assert len(chosen) >= len(shown)
    slots = [both_ways(zig_kernel, decoded(rgb, *case), manifest.spec) for case, rgb in chosen]
    classifier = registry.open_classifier(manifest, engine="onnxruntime", threads=2, max_batch=16)
    on_cpu, on_gpu = (
        engines.score_all(classifier, np.stack([pair[way] for pair in slots])) for way in (0, 1)
    )
    apart = np.abs(on_cpu - on_gpu).max(axis=1)
    assert apart.max() <= MOST, (float(apart.max()), chosen[int(apart.argmax())][0])
    assert on_cpu.min() < 0.1
    assert on_cpu.max() > 0.9
    assert ((on_cpu > 0.1) & (on_cpu < 0.9)).any(axis=1).sum() >= 10, "hard ones, near a threshold"


def test_a_planted_fault_moves_a_score_by_more(zig_kernel: CpuKernel) -> None:
    """Limited range taken for full: less contrast."""
    manifest = engines.load_manifest("open-nsfw")
    classifier = registry.open_classifier(manifest, engine="onnxruntime", threads=2, max_batch=16)
    slots = []
    for rgb in cards("open-nsfw-middle-*.png").values():
        frame = decoded(rgb, "ITU709", False, "yuv420p", (480, 640))
        right, _ = both_ways(zig_kernel, frame, manifest.spec)
        frame.color_range = 2
        slots.append((right, both_ways(zig_kernel, frame, manifest.spec)[1]))
    right, wrong = (engines.score_all(classifier, np.stack([pair[way] for pair in slots])) for way in (0, 1))
    assert np.abs(right - wrong).max() > MOST
