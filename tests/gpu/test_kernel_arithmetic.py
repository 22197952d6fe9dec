"""The GPU's conversion kernel, compiled for the CPU, against the reference: same source, same arguments.

It proves arithmetic, indexing, borders, colours and layouts. It does not prove the launch, races or speed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

from pipeline.backends.convert_cuda import MAX_SIDE, arguments
from pipeline.backends.device_surface import DevicePlane, DeviceSurface
from pipeline.errors import DecodeError
from pipeline.flow.frames import InputSpec
from pipeline.flow.resize import Colour, Matrix, Plane, convert
from tests.gpu.cpu_kernel import CpuKernel, nv12, planar

MOST = 0.5
"""The largest error anywhere, on the scale of 0..255 before mean and scale."""

OPEN_NSFW = InputSpec(
    224, 224, layout="nhwc", channels="bgr", mean=(104, 117, 123), crop="center", resize=(256, 256)
)
IMAGE_SAFETY = InputSpec(224, 224)
MODELS = pytest.mark.parametrize("spec", [OPEN_NSFW, IMAGE_SAFETY], ids=["open-nsfw", "image-safety-s"])
SMALL = InputSpec(31, 45, mean=(10, 20, 30), scale=(0.5, -1.0, 0.25), crop="center", resize=(40, 52))


def noise(height: int, width: int, bits: int, seed: int = 0) -> list[Plane]:
    """4:2:0 planes of every value there is: harder than any photograph."""
    kind = np.uint8 if bits == 8 else np.uint16
    sizes = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2**bits, size).astype(kind) for size in sizes]


def photograph() -> list[Plane]:
    """R, G, B, 512 x 512."""
    return list(np.moveaxis(np.asarray(data.astronaut(), np.uint8), -1, 0))  # type: ignore[no-untyped-call]


def assert_close(
    slot: NDArray[np.float32] | NDArray[np.float16], judge: NDArray[np.float64], spec: InputSpec
) -> None:
    assert slot.shape == judge.shape == spec.slot_shape()
    channels = (3, 1, 1) if spec.layout == "nchw" else (3,)
    scale = np.reshape(np.abs(spec.scale), channels)
    assert (np.abs(slot.astype(np.float64) - judge) / scale).max() <= MOST


@MODELS
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_every_matrix_range_and_depth_is_what_the_reference_says(
    kernel: CpuKernel, spec: InputSpec, matrix: Matrix, full: bool, bits: int
) -> None:
    planes, colour = noise(135, 240, bits), Colour(matrix, full, bits)
    assert_close(kernel.convert(nv12(planes, colour), spec), convert(planes, spec, colour), spec)


@MODELS
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(
    ("height", "width"),
    [(1080, 1920), (2160, 3840), (481, 853), (97, 131), (240, 320), (2, 2), (1, 1), (16, 2000), (224, 256)],
)
def test_every_size_is_what_the_reference_says(
    kernel: CpuKernel, spec: InputSpec, height: int, width: int, bits: int
) -> None:
    """Odd ones, such as are enlarged, such as are enlarged one way only, and 4K."""
    planes, colour = noise(height, width, bits), Colour("bt709", bits=bits)
    assert_close(kernel.convert(nv12(planes, colour), spec), convert(planes, spec, colour), spec)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(
    "spec", [OPEN_NSFW, IMAGE_SAFETY, SMALL], ids=["open-nsfw", "image-safety-s", "wide"]
)
@pytest.mark.parametrize(("height", "width"), [(360, 480), (481, 300)])
def test_a_turned_picture_is_what_the_reference_says(
    kernel: CpuKernel, spec: InputSpec, rotation: int, height: int, width: int
) -> None:
    planes, colour = noise(height, width, 8), Colour("bt601")
    slot = kernel.convert(nv12(planes, colour), spec, rotation)
    assert_close(slot, convert(planes, spec, colour, rotation), spec)


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    resize=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    turns=st.integers(0, 3),
    bits=st.sampled_from([8, 10]),
    layout=st.sampled_from(["nchw", "nhwc"]),
    channels=st.sampled_from(["rgb", "bgr"]),
    padding=st.integers(0, 9),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=80, deadline=None)
def test_any_picture_any_model_and_any_pitch_agree(
    kernel: CpuKernel,
    height: int,
    width: int,
    resize: tuple[int, int],
    turns: int,
    bits: int,
    layout: str,
    channels: str,
    padding: int,
    seed: int,
) -> None:
    size = (max(1, resize[0] - seed % 7), max(1, resize[1] - seed % 5))
    spec = InputSpec(*size, layout, channels, (1, 2, 3), (1, 2, 0.5), "center", resize)  # type: ignore[arg-type]
    planes, colour = noise(height, width, bits, seed), Colour("bt709", bits=bits)
    slot = kernel.convert(nv12(planes, colour, padding=padding), spec, 90 * turns)
    assert_close(slot, convert(planes, spec, colour, 90 * turns), spec)


@MODELS
@pytest.mark.parametrize(("vertical", "horizontal"), [(1, 1), (1, 2), (2, 2), (1, 4), (2, 1)])
@pytest.mark.parametrize("bits", [8, 16])
def test_planar_surfaces_of_every_chroma_size_agree(
    kernel: CpuKernel, spec: InputSpec, vertical: int, horizontal: int, bits: int
) -> None:
    """What the software decoder gives, copied to the GPU as it lies."""
    luma, first, _ = noise(242, 322, bits)
    chroma = np.resize(first, (-(-242 // vertical), -(-322 // horizontal)))
    planes, colour = [luma, chroma, chroma[::-1].copy()], Colour("bt601", full=True, bits=bits)
    assert_close(kernel.convert(planar(planes, colour), spec), convert(planes, spec, colour), spec)


@MODELS
@pytest.mark.parametrize("colour", [Colour("bt709"), Colour("bt601", True, 10), Colour("rgb", True)])
def test_a_grey_picture_stays_grey(kernel: CpuKernel, spec: InputSpec, colour: Colour) -> None:
    planes = noise(120, 90, colour.bits)[:1]
    assert_close(kernel.convert(planar(planes, colour), spec), convert(planes, spec, colour), spec)


@MODELS
def test_red_green_and_blue_planes_agree(kernel: CpuKernel, spec: InputSpec) -> None:
    colour = Colour("rgb", full=True)
    assert_close(
        kernel.convert(planar(photograph(), colour), spec), convert(photograph(), spec, colour), spec
    )


@MODELS
@pytest.mark.parametrize("bits", [8, 10])
def test_half_precision_differs_by_its_rounding_only(kernel: CpuKernel, spec: InputSpec, bits: int) -> None:
    """Halves from 128 to 255 are 1/8 apart: at most 1/16 more than float32 loses."""
    surface = nv12(noise(270, 480, bits), Colour("bt709", bits=bits))
    exact = kernel.convert(surface, spec)
    assert np.array_equal(kernel.convert(surface, spec, half=True), exact.astype(np.float16))


def test_shrinking_again_and_again_reads_no_value_beside_the_picture(kernel: CpuKernel) -> None:
    """The rows' padding is noise, the picture is plain: any stray read would show."""
    colour = Colour("bt709")
    for height, width in [(33, 47), (224, 224), (225, 223), (1079, 1919)]:
        sizes = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
        planes: list[Plane] = [np.full(size, 128, np.uint8) for size in sizes]
        slot = kernel.convert(nv12(planes, colour, padding=13), IMAGE_SAFETY)
        assert float(np.ptp(slot)) < 1e-3


@pytest.mark.parametrize("planted", ["channels", "range", "matrix", "mean", "rotation", "crop", "shift"])
def test_a_planted_fault_is_beyond_the_bar(kernel: CpuKernel, planted: str) -> None:
    """Each of these would pass if the bar were too wide."""
    planes, right = noise(120, 160, 10), Colour("bt709", bits=10)
    colour, spec, rotation = right, OPEN_NSFW, 0
    surface = nv12(planes, right)
    if planted == "channels":
        spec = InputSpec(224, 224, "nhwc", "rgb", OPEN_NSFW.mean, crop="center", resize=(256, 256))
    elif planted == "range":
        colour = Colour("bt709", True, 10)
    elif planted == "matrix":
        colour = Colour("bt601", bits=10)
    elif planted == "mean":
        spec = InputSpec(224, 224, "nhwc", "bgr", (104, 116, 123), crop="center", resize=(256, 256))
    elif planted == "rotation":
        rotation = 180
    elif planted == "crop":
        spec = InputSpec(224, 224, "nhwc", "bgr", OPEN_NSFW.mean)
    else:
        surface = DeviceSurface(surface.planes, right, True, 0, keep=surface.keep)
    slot = kernel.convert(surface, OPEN_NSFW)
    with pytest.raises(AssertionError):
        assert_close(slot, convert(planes, spec, colour, rotation), OPEN_NSFW)


@pytest.mark.parametrize("size", [(0, 16), (16, MAX_SIDE + 1)])
def test_a_picture_that_is_too_large_is_refused(size: tuple[int, int]) -> None:
    surface = DeviceSurface((DevicePlane(4096, *size, size[1]),), Colour("bt709"), False)
    with pytest.raises(DecodeError, match=str(size[1])):
        arguments(surface, IMAGE_SAFETY, 0, 4096)
