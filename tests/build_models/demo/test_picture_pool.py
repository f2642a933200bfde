from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from build_models.demo.detector import INPUT_WH
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.picture_pool import PicturePool, Sample, vary

pytestmark = pytest.mark.torch


def test_a_box_follows_its_object_when_the_picture_is_mirrored() -> None:
    """In a picture of one bright rectangle the target's box must stay the rectangle's extent."""
    rng = np.random.default_rng(1)
    image = np.zeros((INPUT_WH[1], INPUT_WH[0], 3), np.uint8)
    image[30:50, 200:260] = 255
    box = np.array([[200, 30, 260, 50]], np.float32)
    seen = set()
    for _ in range(30):
        mirrored, boxes_xyxy, _ = vary(Sample(image, box, np.array([0])), rng)
        y, x = np.nonzero(mirrored[:, :, 0])
        assert boxes_xyxy[0].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        seen.add(tuple(boxes_xyxy[0].tolist()))
    assert seen == {(200, 30, 260, 50), (60, 30, 120, 50)}, "left and right, never upside down"
    assert box[0].tolist() == [200, 30, 260, 50], "the sample itself is untouched"


def test_shuffled_labels_are_those_of_another_picture() -> None:
    honest, shuffled = PicturePool(3, size=20), PicturePool(3, size=20, shuffle_labels=True)
    for index in range(1, 20):
        np.testing.assert_array_equal(honest.samples[index].image_bgr, shuffled.samples[index].image_bgr)
        np.testing.assert_array_equal(honest.samples[index - 1].boxes_xyxy, shuffled.samples[index].boxes_xyxy)
        np.testing.assert_array_equal(honest.samples[index - 1].labels, shuffled.samples[index].labels)


def test_a_batch_is_padded_to_its_fullest_picture() -> None:
    images, targets = PicturePool(1, size=12).batch(8)
    assert images.shape == (8, INPUT_WH[1], INPUT_WH[0], 3)
    assert targets.boxes_xyxy.shape == (8, targets.valid.shape[1], 4)
    assert targets.valid.any(dim=0).all()
    assert (targets.boxes_xyxy[~targets.valid] == 0).all()


def test_training_never_sees_the_held_out_pictures() -> None:
    pool = PicturePool(1, size=1)
    for _ in range(3):
        pool.batch(8)
    assert 10_000_000 < pool._next_seed < 20_000_000
    assert HELD_OUT_SEED > 99 * 10_000_000
