from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.demo.scenes import LABELS as SHAPES
from agent.demo.scenes import Truth, random_picture
from build_models.demo.crops import COUNT, LABELS, NOTHING, crop_nothing, crop_object, crops_of, main
from build_models.demo.evaluate import HELD_OUT_SEED, PICTURES
from build_models.demo.pictures import CALIBRATION_SEED

if TYPE_CHECKING:
    from pathlib import Path


def test_the_labels_are_nothing_and_the_shapes_in_their_order() -> None:
    assert LABELS[NOTHING] == "nothing"
    assert LABELS[1:] == SHAPES


def test_a_picture_gives_a_crop_of_each_object_and_one_of_nothing() -> None:
    _, truth = random_picture(8)
    labels = [crop.label for crop in crops_of(8)]
    assert labels == [*(truth.labels + 1).tolist(), NOTHING]


def test_a_seed_gives_the_same_crops_again_and_another_seed_others() -> None:
    first, again, other = (list(crops_of(seed)) for seed in (8, 8, 9))
    for crop, twin in zip(first, again, strict=True):
        np.testing.assert_array_equal(crop.image_bgr, twin.image_bgr)
    assert first[0].image_bgr.shape != other[0].image_bgr.shape


def test_a_crop_holds_most_of_its_object_and_not_much_else() -> None:
    """A white object on black: nearly all of it is inside, and the margins are at most a third or so of its sides."""
    image, truth = _one_box((100, 60, 160, 100))
    rng = np.random.default_rng(0)
    squares = 0
    for _ in range(200):
        crop = crop_object(image, truth, 0, rng)
        height, width = crop.image_bgr.shape[:2]
        kept = np.count_nonzero(crop.image_bgr[:, :, 0]) / (60 * 40)
        assert 0.7 <= kept <= 1.0
        assert width <= 60 * 1.7 + 2
        assert crop.label == 1 + 2
        squares += abs(height - width) <= 1
    assert 80 <= squares <= 130, "every other time a square"


def test_a_crop_at_the_edge_is_cut_to_the_picture() -> None:
    image, truth = _one_box((300, 180, 320, 192))
    for seed in range(20):
        crop = crop_object(image, truth, 0, np.random.default_rng(seed))
        assert 2 <= crop.image_bgr.shape[0] <= 40
        assert np.count_nonzero(crop.image_bgr) > 0


def test_a_crop_of_nothing_shows_hardly_anything_of_an_object() -> None:
    image, truth = _one_box((60, 40, 200, 150))
    shares = []
    for seed in range(100):
        crop = crop_nothing(image, truth, np.random.default_rng(seed))
        assert crop is not None
        assert crop.label == NOTHING
        shares.append(np.count_nonzero(crop.image_bgr[:, :, 0]) / crop.image_bgr[:, :, 0].size)
    assert max(shares) <= 0.02
    assert max(shares) > 0, "an edge may show"


def test_where_objects_are_everywhere_there_is_no_crop_of_nothing() -> None:
    image, truth = _one_box((0, 0, 320, 192))
    assert crop_nothing(image, truth, np.random.default_rng(0)) is None


def test_the_files_hold_the_crops_without_loss(tmp_path: Path) -> None:
    main(["--out", str(tmp_path / "new" / "folder"), "--count", "12"])
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [path.name for path in files] == [f"{number:04d}.png" for number in range(12)]
    crops = [crop for seed in range(CALIBRATION_SEED, CALIBRATION_SEED + 12) for crop in crops_of(seed)]
    for path, crop in zip(files, crops[:12], strict=True):
        read = cv2.imread(str(path))
        assert read is not None
        np.testing.assert_array_equal(read, crop.image_bgr)


@pytest.mark.parametrize("seed", [HELD_OUT_SEED, HELD_OUT_SEED + PICTURES - 1])
def test_calibration_and_evaluation_share_no_picture(seed: int) -> None:
    assert seed not in range(CALIBRATION_SEED, CALIBRATION_SEED + COUNT)


def _one_box(box_xyxy: tuple[int, int, int, int]) -> tuple[np.ndarray, Truth]:
    """A picture of one white box, named a triangle, on black."""
    left, top, right, bottom = box_xyxy
    image, mask = np.zeros((192, 320, 3), np.uint8), np.zeros((192, 320), np.uint8)
    image[top:bottom, left:right], mask[top:bottom, left:right] = 255, 1
    return image, Truth(np.array([box_xyxy], np.float32), np.array([2]), np.array([1]), mask)
