from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the torch extra")

from agent.demo.scenes import LABELS
from build_models.demo.detector import INPUT_WH
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.train import PEAK_LEARNING_RATE, PicturePool, learning_rate, train

pytestmark = pytest.mark.torch


def test_a_seed_gives_the_same_weights_again_and_another_seed_others() -> None:
    first, again, other = (_first_weights(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_box_follows_its_object_when_the_picture_is_mirrored() -> None:
    """In a picture of one bright rectangle the target's box must stay the rectangle's extent."""
    pool = PicturePool(1, size=1)
    image = np.zeros((INPUT_WH[1], INPUT_WH[0], 3), np.uint8)
    image[30:50, 200:260] = 255
    box = np.array([[200, 30, 260, 50]], np.float32)
    seen = set()
    for _ in range(30):
        mirrored, boxes_xyxy, _ = pool._vary(image, box, np.array([0]))
        y, x = np.nonzero(mirrored[:, :, 0])
        assert boxes_xyxy[0].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        seen.add(tuple(boxes_xyxy[0].tolist()))
    assert len(seen) == 4, "both axes, independently"
    assert box[0].tolist() == [200, 30, 260, 50], "the pool's own truth is untouched"


def test_shuffled_labels_say_nothing_about_the_objects() -> None:
    honest, shuffled = PicturePool(3, size=100), PicturePool(3, size=100, shuffle_labels=True)
    right = np.concatenate([labels for _, _, labels in honest._pictures])
    wrong = np.concatenate([labels for _, _, labels in shuffled._pictures])
    assert abs(np.mean(right == wrong) - 1 / len(LABELS)) < 0.1
    np.testing.assert_array_equal(honest._pictures[5][1], shuffled._pictures[5][1])


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


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning_rate(step, 3000) for step in range(3000)]
    assert max(rates) == pytest.approx(PEAK_LEARNING_RATE)
    assert rates[0] < rates[100] < rates[199]
    assert rates[1000] > rates[2000] > rates[2999]
    assert rates[2999] < PEAK_LEARNING_RATE / 1000


def _first_weights(seed: int) -> np.ndarray:
    return np.asarray(next(iter(train(2, seed, pool_pictures=4).parameters())).detach().numpy())
