"""The reference of the conversion, checked against numbers worked out by hand and Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from pipeline.flow.frames import InputSpec
from pipeline.flow.resize import Colour, Matrix, Plane, convert, resize, weights

SIDES = st.integers(1, 300)


@given(source=SIDES, target=SIDES)
@settings(max_examples=60, deadline=None)
def test_the_weights_of_every_target_pixel_sum_to_one_and_none_is_negative(source: int, target: int) -> None:
    table = weights(source, target)
    assert table.shape == (target, source)
    assert np.allclose(table.sum(axis=1), 1.0, atol=1e-12)
    assert table.min() >= 0.0


@given(source=SIDES, target=SIDES)
@settings(max_examples=60, deadline=None)
def test_turning_a_row_around_turns_the_result_around(source: int, target: int) -> None:
    table = weights(source, target)
    assert np.allclose(table, table[::-1, ::-1], atol=1e-9)


def test_shrinking_weighs_by_a_tent_that_reaches_to_the_neighbours_centres() -> None:
    """8 to 4: reach 2, centre 2.5 (of target pixel 1) is 1.5, 0.5, 0.5, 1.5 away from the pixels 1 to 4."""
    assert np.allclose(weights(8, 4)[1], np.array([0, 1, 3, 3, 1, 0, 0, 0]) / 8)


def test_what_the_tent_covers_beyond_the_ends_is_the_outermost_pixel() -> None:
    """8 to 4, target pixel 0: the same tent around 0.5, whose first weight falls on pixel -1."""
    assert np.allclose(weights(8, 4)[0], np.array([4, 3, 1, 0, 0, 0, 0, 0]) / 8)


def test_enlarging_is_linear_between_pixel_centres_and_repeats_the_ends() -> None:
    """2 to 4: the centres 0.25, 0.75, 1.25, 1.75 lie 0, 0.25, 0.75 and 1 of the way from 0.5 to 1.5."""
    assert np.allclose(weights(2, 4), np.array([[4, 0], [3, 1], [1, 3], [0, 4]]) / 4)


def test_equal_sizes_change_nothing() -> None:
    assert np.array_equal(weights(7, 7), np.eye(7))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (224, 224), (97, 131)])
def test_shrinking_agrees_with_pillows_bilinear_but_for_the_rim(height: int, width: int) -> None:
    """The models' own packages resize with it. At the rim it has fewer pixels instead of repeated ones."""
    plane: Plane = np.ascontiguousarray(data.astronaut()[..., 0])  # type: ignore[no-untyped-call]
    picture = Image.fromarray(plane.astype(np.float32))
    theirs = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    inner = (slice(1, -1), slice(1, -1))
    assert np.allclose(resize(plane, height, width)[inner], theirs[inner], atol=1e-3)


# Codes of colour bars in the standards (75 % bars left aside): RGB → Y, Cb, Cr, limited range, 8 bits.
RED = {"bt601": (81, 90, 240), "bt709": (63, 102, 240), "bt2020": (74, 97, 240)}
GREEN = {"bt601": (145, 54, 34), "bt709": (173, 42, 26), "bt2020": (164, 47, 25)}
BLUE = {"bt601": (41, 240, 110), "bt709": (32, 240, 118), "bt2020": (29, 240, 119)}


def rgb(colour: Colour, *values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """R, G, B of one pixel, not clipped."""
    return np.asarray(colour.transform() @ [*values, 1.0])


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
def test_the_standards_primary_codes_give_pure_red_green_and_blue(matrix: Matrix) -> None:
    colour = Colour(matrix)
    assert np.allclose(rgb(colour, *RED[matrix]), (255, 0, 0), atol=2)
    assert np.allclose(rgb(colour, *GREEN[matrix]), (0, 255, 0), atol=2)
    assert np.allclose(rgb(colour, *BLUE[matrix]), (0, 0, 255), atol=2)


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize(
    ("full", "bits", "black", "white", "grey"),
    [(False, 8, 16, 235, 128), (True, 8, 0, 255, 128), (False, 10, 64, 940, 512), (True, 12, 0, 4095, 2048)],
)
def test_black_and_white_are_where_range_and_depth_put_them(
    matrix: Matrix, full: bool, bits: int, black: int, white: int, grey: int
) -> None:
    colour = Colour(matrix, full, bits)
    assert np.allclose(rgb(colour, black, grey, grey), 0.0, atol=1e-9)
    assert np.allclose(rgb(colour, white, grey, grey), 255.0, atol=1e-9)


def test_jpegs_red_is_red() -> None:
    """JFIF: full range BT.601."""
    assert np.allclose(rgb(Colour("bt601", full=True), 76, 85, 255), (254, 0, 0), atol=1.5)


def corners() -> list[np.ndarray[tuple[int, int], np.dtype[np.uint8]]]:
    """R, G, B planes of 2 x 2: red, green in the first row; blue, white in the second."""
    red = np.array([[255, 0], [0, 255]], np.uint8)
    green = np.array([[0, 255], [0, 255]], np.uint8)
    blue = np.array([[0, 0], [255, 255]], np.uint8)
    return [red, green, blue]


NAMES: dict[tuple[float, ...], str] = {
    (255, 0, 0): "red",
    (0, 255, 0): "green",
    (0, 0, 255): "blue",
    (255, 255, 255): "white",
}


@pytest.mark.parametrize(
    ("rotation", "first", "second"),
    [
        (0, "red green", "blue white"),
        (90, "blue red", "white green"),
        (180, "white blue", "green red"),
        (270, "green white", "red blue"),
    ],
)
def test_rotation_turns_the_picture_clockwise(rotation: int, first: str, second: str) -> None:
    slot = convert(corners(), InputSpec(2, 2, layout="nhwc"), Colour("rgb", full=True), rotation)
    rows = [" ".join(NAMES[tuple(np.rint(pixel).tolist())] for pixel in row) for row in slot]
    assert rows == [first, second]


def test_the_layout_and_the_channel_order_are_the_models() -> None:
    planes, colour = corners(), Colour("rgb", full=True)
    nchw = convert(planes, InputSpec(2, 2), colour)
    assert np.allclose(nchw, planes)
    assert np.allclose(convert(planes, InputSpec(2, 2, channels="bgr"), colour), nchw[::-1])
    assert np.allclose(convert(planes, InputSpec(2, 2, layout="nhwc"), colour), np.moveaxis(nchw, 0, -1))


def test_mean_and_scale_are_those_of_the_models_channels() -> None:
    spec = InputSpec(2, 2, channels="bgr", mean=(1, 2, 3), scale=(0.5, 1, 2))
    slot = convert(corners(), spec, Colour("rgb", full=True))
    assert np.allclose(slot[:, 1, 1], [(255 - 1) * 0.5, 255 - 2, (255 - 3) * 2])


def test_the_crop_is_the_middle_of_the_resized_picture() -> None:
    """A ramp of 8 columns, not scaled, cut to 4: columns 2 to 5."""
    ramp = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
    spec = InputSpec(4, 4, crop="center", resize=(8, 8))
    slot = convert([ramp, ramp, ramp], spec, Colour("rgb", full=True))
    assert np.allclose(slot[0], np.tile(np.arange(2, 6), (4, 1)))


def test_values_beyond_the_range_are_clipped_before_mean_and_scale() -> None:
    """Limited-range luma of 255 would be 278."""
    luma, chroma = np.full((4, 4), 255, np.uint8), np.full((2, 2), 128, np.uint8)
    slot = convert([luma, chroma, chroma], InputSpec(2, 2, mean=(5, 5, 5)), Colour("bt709"))
    assert np.allclose(slot, 250.0)


def test_a_picture_without_chroma_is_grey() -> None:
    luma = np.full((4, 4), 126, np.uint8)
    slot = convert([luma], InputSpec(2, 2), Colour("bt709"))
    assert np.allclose(slot, (126 - 16) * 255 / 219)


def test_chroma_planes_go_straight_to_the_size_of_the_model() -> None:
    """One red chroma sample in a corner of 2 x 2 covers a quarter of the picture, whatever luma's size."""
    luma, blue = np.full((8, 8), 81, np.uint8), np.full((2, 2), 128, np.uint8)
    red = np.array([[240, 128], [128, 128]], np.uint8)
    slot = convert([luma, blue, red], InputSpec(2, 2), Colour("bt601"))
    assert slot[0, 0, 0] > 250
    assert np.ptp(slot[0].ravel()[1:]) < 1e-9
