"""What every frame pool makes of a picture, against the reference."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from pipeline.backends.encode_ffmpeg import write_clip
from pipeline.flow.decode import Picture
from pipeline.flow.frames import MEAN_ERROR, WORST_ERROR, FramePool, InputSpec
from pipeline.flow.resize import Colour, Matrix, Plane, convert
from tests.fixtures.pools import OpenPool, host

OPEN_NSFW = InputSpec(
    224, 224, layout="nhwc", channels="bgr", mean=(104, 117, 123), crop="center", resize=(256, 256)
)
IMAGE_SAFETY = InputSpec(224, 224)
MATRICES: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}
"""FFmpeg's numbers (AVCOL_SPC)."""


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    original = data.astronaut()  # type: ignore[no-untyped-call]
    return np.asarray(cv2.resize(original, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def surface(
    height: int, width: int, form: str, *, matrix: Matrix = "bt709", full: bool = False
) -> av.VideoFrame:
    """The photograph as a decoder would give it, its colours tagged."""
    rgb = av.VideoFrame.from_ndarray(photograph(height, width), format="rgb24")
    names = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": "BT2020"}
    frame = rgb.reformat(
        format=form, dst_colorspace=names[matrix], dst_color_range="JPEG" if full else "MPEG"
    )
    frame.colorspace, frame.color_range = MATRICES[matrix], 2 if full else 1
    return frame


def picture_of(frame: av.VideoFrame, *, time_s: float = 0.0, rotation: int = 0) -> Picture:
    return Picture(time_s, frame.width, frame.height, arrived=time_s, rotation=rotation, surface=frame)


def planes_of(frame: av.VideoFrame) -> list[Plane]:
    """Y, U, V (or Y) as integers, read out byte by byte and independently of the pool."""
    name, bits = frame.format.name, frame.format.components[0].bits
    kind = np.dtype(f"{'>' if name.endswith('be') else '<'}u{1 if bits == 8 else 2}")
    shift = 6 if name == "p010le" else 0
    rows = [np.frombuffer(bytes(plane), kind).reshape(plane.height, -1) >> shift for plane in frame.planes]
    width, chroma = frame.width, frame.format.chroma_width(frame.width)
    if name in ("nv12", "p010le"):
        return [rows[0][:, :width], rows[1][:, : 2 * chroma : 2], rows[1][:, 1 : 2 * chroma : 2]]
    if name == "yuyv422":
        return [rows[0][:, : 2 * width : 2], rows[0][:, 1 : 2 * width : 4], rows[0][:, 3 : 2 * width : 4]]
    if len(rows) == 1:
        return [rows[0][:, :width]]
    return [rows[0][:, :width], rows[1][:, :chroma], rows[2][:, :chroma]]


def stored(pool: FramePool, picture: Picture) -> NDArray[np.float32]:
    """What the pool makes of a picture."""
    frame = pool.store(picture, stream=0, sample=0, live=True, timeout=0)
    assert frame is not None
    slot: NDArray[np.float32] = host(pool.gather([frame]))[0]
    frame.release()
    return slot


def assert_close(slot: NDArray[np.float32], judge: NDArray[np.float64], spec: InputSpec) -> None:
    """Within the stated error, on the scale of 0..255."""
    assert slot.shape == judge.shape == spec.slot_shape()
    assert slot.dtype == np.float32
    difference = np.abs(slot - judge) / max(np.abs(spec.scale))
    assert difference.mean() <= MEAN_ERROR
    assert difference.max() <= WORST_ERROR


PLANAR = ["yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuva420p", "gray"]
DEEP = ["yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv444p16le", "gray10le", "gray12le"]
OTHERS = ["nv12", "p010le", "yuyv422", "yuv420p10be"]


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("form", PLANAR + DEEP + OTHERS)
def test_every_form_of_yuv_is_converted_as_the_reference_says(
    open_pool: OpenPool, form: str, full: bool
) -> None:
    frame = surface(360, 640, form, full=full)
    colour = Colour("bt709", full, frame.format.components[0].bits)
    slot = stored(open_pool(OPEN_NSFW, 1), picture_of(frame))
    assert_close(slot, convert(planes_of(frame), OPEN_NSFW, colour), OPEN_NSFW)


@pytest.mark.parametrize("form", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_jpegs_forms_are_full_range_even_when_the_frame_does_not_say_so(
    open_pool: OpenPool, form: str
) -> None:
    frame = surface(360, 640, form, matrix="bt601", full=True)
    frame.color_range = 0
    slot = stored(open_pool(IMAGE_SAFETY, 1), picture_of(frame))
    assert_close(slot, convert(planes_of(frame), IMAGE_SAFETY, Colour("bt601", full=True)), IMAGE_SAFETY)


@pytest.mark.parametrize("form", ["rgb24", "bgr24", "rgba", "gbrp", "gbrp10le", "rgb48le"])
def test_rgb_is_resized_plane_by_plane(open_pool: OpenPool, form: str) -> None:
    rgb = photograph(360, 640)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=form)
    judge = convert(list(np.moveaxis(rgb, -1, 0)), IMAGE_SAFETY, Colour("rgb", full=True))
    assert_close(stored(open_pool(IMAGE_SAFETY, 1), picture_of(frame)), judge, IMAGE_SAFETY)


def test_a_palette_is_looked_up_before_the_resize(open_pool: OpenPool) -> None:
    """Entry 0 is red, entry 1 blue (BGRA in memory), in stripes that are a quarter of the picture wide.

    Of a tent, 3/4 lie on its own stripe and 1/8 on each neighbour; beyond the ends the outermost goes on."""
    frame = av.VideoFrame(64, 48, "pal8")
    indices = np.zeros((48, frame.planes[0].line_size), np.uint8)
    indices[:, 16:32] = indices[:, 48:64] = 1
    frame.planes[0].update(indices.tobytes())
    palette = np.zeros((256, 4), np.uint8)
    palette[0], palette[1] = (0, 0, 255, 255), (255, 0, 0, 255)
    frame.planes[1].update(palette.tobytes())
    slot = stored(open_pool(InputSpec(4, 4), 1), picture_of(frame))
    assert np.allclose(slot[0, 0] / 255, [7 / 8, 1 / 4, 3 / 4, 1 / 8], atol=0.002)
    assert np.allclose(slot[2, 0] / 255, [1 / 8, 3 / 4, 1 / 4, 7 / 8], atol=0.002)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("spec", [OPEN_NSFW, IMAGE_SAFETY], ids=["open-nsfw", "image-safety-s"])
def test_the_models_see_the_colours_of_the_photograph(
    open_pool: OpenPool, spec: InputSpec, matrix: Matrix, full: bool
) -> None:
    """The judge is the photograph itself, so that an error in the matrices cannot hide."""
    frame = surface(480, 480, "yuv444p", matrix=matrix, full=full)
    judge = convert(list(np.moveaxis(photograph(480, 480), -1, 0)), spec, Colour("rgb", full=True))
    assert_close(stored(open_pool(spec, 1), picture_of(frame)), judge, spec)


@pytest.mark.parametrize(
    "planted",
    ["channels", "range", "matrix", "mean", "rotation", "crop"],
)
def test_a_planted_fault_is_beyond_the_stated_error(open_pool: OpenPool, planted: str) -> None:
    """Each of these would pass if the bounds were too wide."""
    frame = surface(480, 640, "yuv420p")
    colour, spec, rotation = Colour("bt709"), OPEN_NSFW, 0
    if planted == "channels":
        spec = InputSpec(224, 224, "nhwc", "rgb", OPEN_NSFW.mean, crop="center", resize=(256, 256))
    elif planted == "range":
        colour = Colour("bt709", full=True)
    elif planted == "matrix":
        colour = Colour("bt601")
    elif planted == "mean":
        spec = InputSpec(224, 224, "nhwc", "bgr", (123, 117, 104), crop="center", resize=(256, 256))
    elif planted == "rotation":
        rotation = 180
    else:
        spec = InputSpec(224, 224, "nhwc", "bgr", OPEN_NSFW.mean)
    slot = stored(open_pool(OPEN_NSFW, 1), picture_of(frame))
    with pytest.raises(AssertionError):
        assert_close(slot, convert(planes_of(frame), spec, colour, rotation), OPEN_NSFW)


@pytest.mark.parametrize(
    ("height", "width"),
    [(1080, 1920), (1920, 1080), (481, 853), (97, 131), (240, 320), (2, 2), (1, 1), (16, 2000)],
)
def test_every_size_is_converted_as_the_reference_says(open_pool: OpenPool, height: int, width: int) -> None:
    """Odd ones, such as are enlarged, and such as are enlarged one way only."""
    frame = surface(height, width, "yuv420p")
    for spec in (OPEN_NSFW, IMAGE_SAFETY):
        slot = stored(open_pool(spec, 1), picture_of(frame))
        assert_close(slot, convert(planes_of(frame), spec, Colour("bt709")), spec)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("spec", [OPEN_NSFW, InputSpec(120, 200)], ids=["square", "wide"])
def test_a_rotated_picture_stands_upright_in_the_slot(
    open_pool: OpenPool, spec: InputSpec, rotation: int
) -> None:
    frame = surface(360, 480, "yuv420p")
    slot = stored(open_pool(spec, 1), picture_of(frame, rotation=rotation))
    assert_close(slot, convert(planes_of(frame), spec, Colour("bt709"), rotation), spec)


@pytest.mark.parametrize(("height", "matrix"), [(720, "bt709"), (718, "bt601")])
def test_colours_that_a_frame_does_not_specify_go_by_its_height_and_are_limited(
    open_pool: OpenPool, height: int, matrix: Matrix
) -> None:
    frame = surface(height, 640, "yuv420p")
    frame.colorspace, frame.color_range = 2, 0
    slot = stored(open_pool(IMAGE_SAFETY, 1), picture_of(frame))
    assert_close(slot, convert(planes_of(frame), IMAGE_SAFETY, Colour(matrix)), IMAGE_SAFETY)


@pytest.mark.parametrize(
    ("codec", "form", "height", "width"),
    [
        ("libx264", "yuv420p", 1080, 1920),
        ("libx264", "yuv422p", 240, 426),
        ("libx265", "yuv420p10le", 360, 640),
        ("libvpx-vp9", "yuv420p", 181, 321),
        ("mjpeg", "yuvj420p", 240, 320),
    ],
)
def test_decoded_pictures_are_converted_as_the_reference_says(
    open_pool: OpenPool, tmp_path: Path, codec: str, form: str, height: int, width: int
) -> None:
    """Decoders pad their rows and say where the chroma sits."""
    clip = write_clip(
        tmp_path / "clip.mkv",
        [photograph(height, width)] * 2,
        codec=codec,
        pixel_format=form,
        full_range=codec == "mjpeg",
    )
    with av.open(str(clip)) as container:
        frame = next(container.decode(video=0))
    assert (frame.format.name, frame.height, frame.width) == (form, height, width)
    matrix = {number: name for name, number in MATRICES.items()}.get(frame.colorspace, "bt601")
    colour = Colour(matrix, codec == "mjpeg", frame.format.components[0].bits)
    slot = stored(open_pool(OPEN_NSFW, 1), picture_of(frame))
    assert_close(slot, convert(planes_of(frame), OPEN_NSFW, colour), OPEN_NSFW)


def test_mean_and_scale_may_flip_a_channel(open_pool: OpenPool) -> None:
    spec = InputSpec(64, 64, mean=(123.7, 116.3, 103.5), scale=(1 / 58.4, -1 / 57.1, 1 / 57.4))
    frame = surface(240, 320, "yuv420p")
    slot = stored(open_pool(spec, 1), picture_of(frame))
    assert np.abs(slot - convert(planes_of(frame), spec, Colour("bt709"))).max() < 0.01
