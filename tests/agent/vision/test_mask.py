"""Areas and masks of frames against slow counting, whatever the resize did to the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.manifest import InputSpec
from agent.vision.decode import decode_mask
from agent.vision.resize import Resizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.vision.mask import FrameMask
    from agent.vision.resize import Placement

PAD, SHOWN = 9, 200

specs = st.builds(
    InputSpec,
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    resize=st.sampled_from(["letterbox", "stretch", "center_crop"]),
    align=st.sampled_from(["center", "top_left"]),
    crop_ratio=st.sampled_from([1.0, 0.875, 0.5]),
    pad_bgr=st.just([PAD] * 3),
)
masks = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).choice(np.array([0, 1, 2, 255], np.uint8), drawn[:2])
)
frame_sides = st.integers(1, 40)


def placed(spec: InputSpec, frame_w: int, frame_h: int) -> tuple[Placement, NDArray[np.bool_]]:
    """Where the resize says the frame lies, and which input pixels it really wrote the frame to."""
    buffer = np.zeros((spec.height, spec.width, 3), np.uint8)
    placement = Resizer(spec, buffer)(np.full((frame_h, frame_w, 3), SHOWN, np.uint8))
    return placement, buffer[:, :, 0] == SHOWN


def laid(mask: NDArray[np.uint8], spec: InputSpec, frame_w: int, frame_h: int) -> FrameMask:
    placement, _ = placed(spec, frame_w, frame_h)
    return decode_mask({"mask": mask[None]}, placement)


def counted(mask: NDArray[np.uint8], shows_frame: NDArray[np.bool_]) -> dict[int, float]:
    """Areas, counted on a grid so fine that every pixel of the mask and of the input is a whole number of its cells."""
    fine = np.repeat(np.repeat(mask, shows_frame.shape[0], 0), shows_frame.shape[1], 1)
    within = np.repeat(np.repeat(shows_frame, mask.shape[0], 0), mask.shape[1], 1)
    ids = fine[within].tolist()
    return {class_id: ids.count(class_id) / len(ids) for class_id in set(ids)}


@given(masks, specs, frame_sides, frame_sides)
def test_areas_are_those_of_the_frame_without_its_borders(
    mask: NDArray[np.uint8], spec: InputSpec, frame_w: int, frame_h: int
) -> None:
    areas = laid(mask, spec, frame_w, frame_h).areas()
    assert areas == pytest.approx(counted(mask, placed(spec, frame_w, frame_h)[1]))
    assert sum(areas.values()) == pytest.approx(1)
    assert list(areas.values()) == sorted(areas.values(), reverse=True), "largest first"
    assert {type(each) for pair in areas.items() for each in pair} == {int, float}


@given(masks, specs, frame_sides, frame_sides)
def test_each_pixel_of_the_frame_has_the_class_that_the_mask_has_there(
    mask: NDArray[np.uint8], spec: InputSpec, frame_w: int, frame_h: int
) -> None:
    placement, _ = placed(spec, frame_w, frame_h)
    ids, (rows, columns) = laid(mask, spec, frame_w, frame_h).on_frame()
    on_frame = np.full((frame_h, frame_w), -1)
    on_frame[rows, columns] = ids
    for y in range(frame_h):
        for x in range(frame_w):
            input_xy = [
                (at + 0.5) * scale + offset
                for at, scale, offset in zip((x, y), placement.scale_xy, placement.offset_xy, strict=True)
            ]
            column, row = input_xy[0] * mask.shape[1] / spec.width, input_xy[1] * mask.shape[0] / spec.height
            if min(abs(column - round(column)), abs(row - round(row))) < 1e-6:
                continue  # between two pixels of the mask: either will do
            seen = 0 <= column < mask.shape[1] and 0 <= row < mask.shape[0]
            assert on_frame[y, x] == (mask[int(row), int(column)] if seen else -1)


@given(masks, specs.filter(lambda spec: spec.resize != "center_crop"), frame_sides, frame_sides)
def test_without_a_crop_no_pixel_of_the_frame_is_left_out(
    mask: NDArray[np.uint8], spec: InputSpec, frame_w: int, frame_h: int
) -> None:
    ids, seen = laid(mask, spec, frame_w, frame_h).on_frame()
    assert ids.shape == (frame_h, frame_w)
    assert seen == (slice(0, frame_h), slice(0, frame_w))


# By hand: what the properties say, in numbers.

HALVES = np.array([[1, 1, 2, 2]] * 4, np.uint8)


def letterbox(**keys: Any) -> InputSpec:
    return InputSpec(height=8, width=8, **keys)


def test_a_letterboxs_border_does_not_count() -> None:
    mask = HALVES.copy()
    mask[0], mask[3] = 0, 0  # what the model makes of the border: a wide frame fills the two rows between
    assert laid(mask, letterbox(), 64, 32).areas() == {1: 0.5, 2: 0.5}
    assert laid(mask, letterbox(), 64, 64).areas() == {0: 0.5, 1: 0.25, 2: 0.25}, "without a border they are the frame"


def test_of_a_mask_pixel_half_over_the_border_half_counts() -> None:
    mask = np.array([[0], [1], [2], [3]], np.uint8)  # each is two input pixels high; the frame covers 5 of 8 rows
    assert laid(mask, letterbox(align="top_left"), 8, 5).areas() == pytest.approx({0: 0.4, 1: 0.4, 2: 0.2})


def test_what_a_crop_hides_is_neither_counted_nor_covered() -> None:
    mask = laid(HALVES, letterbox(resize="center_crop"), 32, 16)
    assert mask.areas() == {1: 0.5, 2: 0.5}
    ids, seen = mask.on_frame()
    assert seen == (slice(0, 16), slice(8, 24))
    assert ids.shape == (16, 16)


@pytest.mark.parametrize(
    ("side", "mask_side", "frame_w", "frame_h"),
    [
        (27, 21, 9, 27),  # the border ends with the mask's 7th column, or at 6.999999999999999
        (32, 32, 310, 480),  # the frame ends with the mask's 26th column, or at 26.000000000000004
    ],
)
def test_rounding_lets_no_border_in(side: int, mask_side: int, frame_w: int, frame_h: int) -> None:
    spec = InputSpec(height=side, width=side)
    placement, _ = placed(spec, frame_w, frame_h)
    cell = side / mask_side
    left, right = placement.offset_xy[0] / cell, (placement.offset_xy[0] + frame_w * placement.scale_xy[0]) / cell
    mask = np.zeros((mask_side, mask_side), np.uint8)
    mask[:, round(left) : round(right)] = 1
    assert (left, right) != (round(left), round(right)), "or this would show nothing"
    shown = decode_mask({"mask": mask[None]}, placement)
    assert shown.areas() == {1: 1.0}
    assert (shown.ids == 1).all()


def test_equal_areas_stand_in_the_order_of_their_class_ids() -> None:
    assert list(laid(np.array([[7, 3]], np.uint8), letterbox(resize="stretch"), 8, 8).areas()) == [3, 7]


def test_every_byte_is_a_class_id() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    spec = InputSpec(height=16, width=16)
    assert laid(mask, spec, 16, 16).areas() == dict.fromkeys(range(256), 1 / 256)
    assert laid(mask, spec, 16, 15).areas().keys() == set(range(240))


def test_the_mask_is_copied_out_of_the_outputs() -> None:
    outputs = {"mask": HALVES[None].copy()}
    placement, _ = placed(letterbox(), 8, 8)
    mask = decode_mask(outputs, placement)
    outputs["mask"][:] = 5
    assert mask.areas() == {1: 0.5, 2: 0.5}
