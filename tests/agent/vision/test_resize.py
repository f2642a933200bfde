from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.manifest import InputSpec
from agent.vision.resize import Placement, Resizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAD = [10, 20, 30]
frame_sides = st.integers(1, 200)
input_sides = st.integers(1, 64)
methods = st.sampled_from(["letterbox", "stretch", "center_crop"])


def spec(height: int, width: int, **keys: Any) -> InputSpec:
    return InputSpec(height=height, width=width, pad_bgr=PAD, **keys)


def buffer_of(spec: InputSpec) -> NDArray[np.uint8]:
    return np.zeros((spec.height, spec.width, 3), np.uint8)


def picture(height: int, width: int, value: int = 200) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def resize(spec: InputSpec, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Placement]:
    out = buffer_of(spec)
    return out, Resizer(spec, out)(image)


@given(frame_sides, frame_sides, input_sides, input_sides, st.sampled_from(["center", "top_left"]))
def test_a_letterbox_keeps_proportions_and_pads_the_rest(
    frame_h: int, frame_w: int, height: int, width: int, align: str
) -> None:
    out, placement = resize(spec(height, width, align=align), picture(frame_h, frame_w))
    ratio = min(width / frame_w, height / frame_h)
    inner_w, inner_h = max(1, round(frame_w * ratio)), max(1, round(frame_h * ratio))
    left = (width - inner_w) // 2 if align == "center" else 0
    top = (height - inner_h) // 2 if align == "center" else 0
    expected = np.empty_like(out)
    expected[:] = PAD
    expected[top : top + inner_h, left : left + inner_w] = 200
    np.testing.assert_array_equal(out, expected)
    assert placement.scale_xy == pytest.approx((inner_w / frame_w, inner_h / frame_h))
    assert placement.offset_xy == (left, top)
    assert placement.frame_wh == (frame_w, frame_h)


@given(frame_sides, frame_sides, input_sides, input_sides)
def test_stretching_fills_the_input(frame_h: int, frame_w: int, height: int, width: int) -> None:
    out, placement = resize(spec(height, width, resize="stretch"), picture(frame_h, frame_w))
    assert (out == 200).all()
    assert placement.scale_xy == pytest.approx((width / frame_w, height / frame_h))
    assert placement.offset_xy == (0, 0)


@given(frame_sides, frame_sides, input_sides, input_sides, st.floats(0.1, 1))
def test_a_centre_crop_fills_the_input_from_the_middle(
    frame_h: int, frame_w: int, height: int, width: int, crop_ratio: float
) -> None:
    out, placement = resize(spec(height, width, resize="center_crop", crop_ratio=crop_ratio), picture(frame_h, frame_w))
    assert (out == 200).all()
    whole = np.array([[0, 0, width, height]], np.float32)
    left, top, right, bottom = placement.to_frame(whole)[0].tolist()
    assert left == pytest.approx(frame_w - right, abs=1.01), "as much is cut off left as right"
    assert top == pytest.approx(frame_h - bottom, abs=1.01)
    ratio = max(width / frame_w, height / frame_h) / crop_ratio
    assert right - left == pytest.approx(max(1, min(frame_w, width / ratio)), abs=0.51)
    assert bottom - top == pytest.approx(max(1, min(frame_h, height / ratio)), abs=0.51)


def test_a_centre_crop_keeps_its_share_of_the_short_side() -> None:
    # As networks for 224 x 224 are tested: the short side to 256, then the middle of 224, which is 420 of 480.
    _, placement = resize(spec(224, 224, resize="center_crop", crop_ratio=0.875), picture(480, 640))
    whole = np.array([[0, 0, 224, 224]], np.float32)
    np.testing.assert_allclose(placement.to_frame(whole), [[110, 30, 530, 450]], atol=1e-3)


@given(st.data(), frame_sides, frame_sides, input_sides, input_sides, methods, st.sampled_from(["center", "top_left"]))
def test_a_box_that_goes_into_the_input_comes_back_to_its_place(
    data: st.DataObject, frame_h: int, frame_w: int, height: int, width: int, method: str, align: str
) -> None:
    _, placement = resize(spec(height, width, resize=method, align=align), picture(frame_h, frame_w))
    lefts, tops = (data.draw(st.lists(st.floats(0, side), min_size=2, max_size=2)) for side in (frame_w, frame_h))
    box = np.array([[min(lefts), min(tops), max(lefts), max(tops)]], np.float32)
    in_input = box * np.array(placement.scale_xy * 2) + np.array(placement.offset_xy * 2)
    np.testing.assert_allclose(placement.to_frame(in_input.astype(np.float32)), box, atol=0.01)


@given(frame_sides, frame_sides, input_sides, input_sides, methods)
def test_boxes_never_leave_the_frame(frame_h: int, frame_w: int, height: int, width: int, method: str) -> None:
    _, placement = resize(spec(height, width, resize=method), picture(frame_h, frame_w))
    wild = np.array([[-1e6, -1e6, 1e6, 1e6], [-50, 1e5, -40, 2e5]], np.float32)
    clipped = placement.to_frame(wild)
    assert clipped.dtype == np.float32
    assert (clipped >= 0).all()
    assert (clipped <= np.array([frame_w, frame_h] * 2)).all()
    np.testing.assert_array_equal(clipped[0], [0, 0, frame_w, frame_h])


@pytest.mark.parametrize("method", ["letterbox", "stretch", "center_crop"])
def test_a_mark_lies_where_the_placement_says(method: str) -> None:
    frame = np.zeros((300, 500, 3), np.uint8)
    frame[120:180, 220:300] = [255, 128, 64]
    out, placement = resize(spec(96, 160, resize=method), frame)
    bright = np.argwhere(np.abs(out.astype(int) - [255, 128, 64]).sum(axis=2) < 60)
    top, left = bright.min(axis=0)
    bottom, right = bright.max(axis=0) + 1
    found = placement.to_frame(np.array([[left, top, right, bottom]], np.float32))[0]
    pixel = 1 / min(placement.scale_xy)
    np.testing.assert_allclose(found, [220, 120, 300, 180], atol=pixel)
    assert (out[bright[:, 0], bright[:, 1], 0] > out[bright[:, 0], bright[:, 1], 2]).all(), "channels keep their order"


def test_borders_are_filled_again_when_the_frame_changes_its_size() -> None:
    shape = spec(60, 60)
    out = buffer_of(shape)
    resizer = Resizer(shape, out)
    for height, width in [(60, 60), (30, 60), (60, 30), (30, 60)]:
        placement = resizer(picture(height, width))
        inside = np.zeros((60, 60), bool)
        left, top = (int(side) for side in placement.offset_xy)
        inside[top : top + height, left : left + width] = True
        assert (out[inside] == 200).all()
        assert (out[~inside] == PAD).all()


def test_borders_are_filled_again_after_another_picture_was_loaded() -> None:
    """A camera's frames keep their size while somebody else's picture, with borders elsewhere, goes through."""
    shape = spec(60, 60)
    out, alone = buffer_of(shape), resize(shape, picture(30, 60))[0]
    resizer = Resizer(shape, out)
    resizer(picture(30, 60))
    prepared, _ = resize(shape, picture(60, 30, 100))
    resizer.load(prepared)
    np.testing.assert_array_equal(out, prepared)
    resizer(picture(30, 60))
    np.testing.assert_array_equal(out, alone)
    np.copyto(out, prepared)  # without telling the resizer
    resizer(picture(30, 60))
    assert (out != alone).any()


def test_a_picture_of_another_size_cannot_be_loaded() -> None:
    shape = spec(60, 60)
    with pytest.raises(ValueError, match="could not broadcast"):
        Resizer(shape, buffer_of(shape)).load(picture(30, 60))


def test_the_plan_is_made_once_for_each_size() -> None:
    shape = spec(60, 60)
    resizer = Resizer(shape, buffer_of(shape))
    first = resizer(picture(30, 60))
    assert resizer(picture(30, 60, 7)) is first
    assert resizer(picture(31, 60)) is not first


def test_a_frame_of_the_inputs_size_is_copied_unchanged() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    for method in ("letterbox", "stretch", "center_crop"):
        out, placement = resize(spec(48, 64, resize=method), frame)
        np.testing.assert_array_equal(out, frame)
        assert (placement.scale_xy, placement.offset_xy) == ((1, 1), (0, 0))


@pytest.mark.parametrize("interpolation", ["linear", "area", "nearest", "cubic"])
def test_every_interpolation_of_the_manifest_is_known(interpolation: str) -> None:
    out, _ = resize(spec(20, 20, interpolation=interpolation), picture(50, 50))
    assert (out == 200).all()


def test_interpolations_differ() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    results = [resize(spec(20, 20, interpolation=name), frame)[0] for name in ("linear", "area", "nearest", "cubic")]
    assert len({result.tobytes() for result in results}) == 4


def test_a_frame_is_only_read() -> None:
    frame = picture(50, 70)
    frame.flags.writeable = False
    resize(spec(20, 20), frame)


@pytest.mark.parametrize(
    "out",
    [np.zeros((60, 61, 3), np.uint8), np.zeros((1, 60, 60, 3), np.uint8), np.zeros((60, 60, 3), np.float32)],
    ids=["size", "rank", "type"],
)
def test_a_buffer_that_does_not_fit_is_refused(out: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected a uint8 buffer \[60, 60, 3\], got "):
        Resizer(spec(60, 60), out)
