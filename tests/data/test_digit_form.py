from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusvm.data import load_dataset
from gpusvm.data.digit_form import as_digit, as_ink, default_box


def bar(height: int, width: int, shape=(60, 50), at=(4, 7)) -> np.ndarray:
    picture = np.zeros(shape, dtype=np.uint8)
    picture[at[0] : at[0] + height, at[1] : at[1] + width] = 255
    return picture


def extent(image: np.ndarray) -> tuple[int, int]:
    """Rows and columns from the first to the last that has ink."""
    return tuple(int(np.ptp(np.flatnonzero(image.any(axis=axis)))) + 1 for axis in (1, 0))


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    return np.array([image.sum(axis=axis) @ np.arange(n) for axis, n in ((1, 28), (0, 28))]) / image.sum()


def test_the_longer_side_fills_20_pixels_and_proportions_are_kept():
    assert extent(as_digit(bar(40, 20))) == (20, 10)
    assert extent(as_digit(bar(6, 30))) == (4, 20)
    enlarged = as_digit(np.kron(bar(3, 2, (7, 8), (2, 2)), np.ones((2, 2), np.uint8)))
    assert extent(enlarged >= 128) == (20, 13)  # grey beyond, where it is interpolated


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 20), st.integers(0, 20))
def test_the_centre_of_mass_is_in_the_middle_pixel(height, width, top, left):
    image = as_digit(bar(height, width, at=(top, left)))
    assert (np.abs(centre_of_mass(image) - 14) <= 0.51).all()


def test_where_it_was_drawn_makes_no_difference(rng):
    ink = rng.integers(1, 256, (30, 20), dtype=np.uint8)
    first = np.pad(ink, ((1, 40), (1, 60)))
    np.testing.assert_array_equal(as_digit(first), as_digit(np.pad(ink, ((25, 16), (44, 17)))))


def test_size_makes_little_difference(rng):
    ink = np.kron(rng.integers(0, 2, (10, 7), dtype=np.uint8) * 255, np.ones((4, 4), dtype=np.uint8))
    ink[0, 0] = ink[-1, -1] = 255
    small = np.pad(ink, 3)
    large = np.kron(small, np.ones((5, 5), dtype=np.uint8))
    assert np.abs(as_digit(small).astype(int) - as_digit(large)).max() <= 2


def test_what_is_enlarged_has_sharp_edges():
    picture = bar(6, 5, shape=(9, 9), at=(1, 2))
    ink = as_digit(picture)
    assert ((ink > 0) & (ink < 255)).sum() <= 2 * (20 + 17) + 4  # one pixel around the bar, at most


def test_paper_may_be_light_grey_and_noisy(rng):
    picture = bar(40, 12)
    expected = as_digit(picture)
    np.testing.assert_array_equal(as_digit(255 - picture), expected)
    np.testing.assert_array_equal(as_digit((230 - picture * (150 / 255)).astype(np.uint8)), expected)
    noisy = np.clip(220 - picture * 0.7 + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    assert np.abs(as_digit(noisy).astype(int) - expected).mean() < 6


def test_light_from_one_side_makes_little_difference(rng):
    picture = bar(60, 10, shape=(120, 90), at=(20, 25)) | bar(12, 35, shape=(120, 90), at=(20, 25))
    light = 170 + np.linspace(-40, 40, 120)[:, None] + np.linspace(20, -20, 90)
    photograph = light - picture * 0.4 + rng.normal(0, 3, picture.shape)
    found = as_digit(np.clip(photograph, 0, 255).astype(np.uint8))
    assert np.abs(found.astype(int) - as_digit(picture)).mean() < 6


def test_nothing_comes_of_one_grey():
    for grey in (0, 130, 255):
        assert not as_digit(np.full((9, 11), grey, dtype=np.uint8)).any()


def test_a_character_that_fills_the_frame_stays_inside():
    """Its centre of mass cannot be in the middle, then."""
    wedge = np.tril(np.full((8, 8), 255, dtype=np.uint8))
    np.testing.assert_array_equal(as_digit(np.pad(wedge, 5), shape=(8, 8), box=(8, 8)), wedge)


def test_other_shapes_are_filled_in_proportion():
    assert default_box((28, 28)) == (20, 20) and default_box((32, 16)) == (23, 11) and default_box((1, 1)) == (1, 1)
    assert extent(as_digit(bar(40, 40), shape=(56, 56))) == (40, 40)


@pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 4), np.uint8)])
def test_what_is_no_grey_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="a picture is a uint8 array"):
        as_ink(wrong)


@pytest.mark.mnist
def test_mnists_digits_are_in_the_form_already():
    images = load_dataset("mnist", "test", limit=300).images
    found = np.stack([as_digit(image) for image in images])
    different = np.abs(found.astype(int) - images).mean(axis=(1, 2))
    assert np.quantile(different, 0.95) < 0.5 and np.median(different) < 0.1
