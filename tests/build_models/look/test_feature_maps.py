"""Feature maps: every channel uses the whole range, what is not finite is red, any shape can be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from build_models.look.feature_maps import MOST_CHANNELS, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

RED = (60, 60, 230)
DARK, BRIGHT = (84, 1, 68), (37, 231, 253)  # the ends of the colour map, BGR


def has(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    return bool((picture == np.array(color, np.uint8)).all(axis=2).any())


def test_each_channel_is_stretched_to_its_own_range() -> None:
    faint_and_strong = np.zeros((1, 2, 4, 4), np.float32)
    faint_and_strong[0, 0, 0, 0] = 1e-6
    faint_and_strong[0, 1, 0, 0] = 1e6
    picture = draw(faint_and_strong, "two", 1)
    left, right = np.array_split(picture, 2, axis=1)
    assert has(left, BRIGHT)
    assert has(right, BRIGHT)


def test_a_channel_of_one_value_is_dark_and_does_not_divide_by_zero() -> None:
    picture = draw(np.full((1, 1, 4, 4), 7.0, np.float32), "flat", 1)
    assert has(picture, DARK)
    assert not has(picture, BRIGHT)


def test_what_is_not_finite_is_red() -> None:
    values = np.zeros((1, 3, 4, 4), np.float32)
    assert not has(draw(values, "fine", 1), RED)
    values[0, 0, 0, 0], values[0, 1, 0, 0] = np.nan, np.inf
    assert has(draw(values, "broken", 1), RED)
    assert has(draw(np.full((1, 3, 4, 4), np.nan), "nothing else", 1), RED)
    assert has(draw(np.array([1.0, np.nan]), "vector", None), RED)


def test_channels_are_found_on_their_axis() -> None:
    first = np.random.default_rng(0).random((1, 5, 6, 9))
    np.testing.assert_array_equal(draw(first, "t", 1), draw(first.transpose(0, 2, 3, 1), "t", 3))


def test_a_sheet_is_bounded_whatever_the_tensor() -> None:
    many = draw(np.zeros((1, 4 * MOST_CHANNELS, 2, 300)), "many", 1)
    assert max(many.shape) <= 2200
    assert max(draw(np.zeros((5000, 3000)), "matrix", None).shape) <= 1600


@pytest.mark.parametrize(
    "values",
    [
        np.float32(3),
        np.zeros(0, np.float32),
        np.arange(10),
        np.arange(100_000, dtype=np.int64),
        np.zeros((1, 1000), np.float32),
        np.zeros((3, 1)),
        np.zeros((40, 7), np.uint8),
        np.zeros((1, 3549, 85), np.float32),
        np.zeros((1, 16, 1, 1), np.float32),
        np.zeros((2, 3, 4, 5, 6), bool),
        np.array([[-1.7e308, 1.7e308]] * 2),
    ],
    ids=lambda value: f"{np.asarray(value).dtype}{np.shape(value)}",
)
def test_any_shape_can_be_drawn(values: NDArray[Any]) -> None:
    picture = draw(values, "a name with ümlauts", None)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert 0 < picture.shape[0] < 2200


def test_bars_grow_from_zero() -> None:
    picture = draw(np.array([-1.0, 1.0]), "two", None)[24:]
    blue = (picture == np.array((160, 90, 30), np.uint8)).all(axis=2)
    half_y, half_x = picture.shape[0] // 2, picture.shape[1] // 2
    assert blue[half_y + 5 :, :half_x].mean() > 0.9
    assert blue[: half_y - 5, half_x:].mean() > 0.9
    assert not blue[: half_y - 5, :half_x].any()
