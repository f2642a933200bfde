from __future__ import annotations

import numpy as np

from build_models.demo.crop_pool import CropPool, vary
from build_models.demo.crops import INPUT_WH, LABELS
from build_models.demo.evaluate import HELD_OUT_SEED


def test_a_batch_is_of_the_inputs_size_and_shows_all_classes_alike() -> None:
    images, labels = CropPool(3, size=12).batch(300)
    assert images.shape == (300, INPUT_WH[1], INPUT_WH[0], 3)
    assert images.dtype == np.uint8
    counts = np.bincount(labels, minlength=len(LABELS))
    assert counts[0] / 300 == np.clip(counts[0] / 300, 0.1, 0.25)
    assert counts.min() > 10


def test_shuffled_labels_are_those_of_other_crops() -> None:
    honest, shuffled = CropPool(3, size=12), CropPool(3, size=12, shuffle_labels=True)
    images, labels = honest.batch(64)
    same_images, other_labels = shuffled.batch(64)
    np.testing.assert_array_equal(images, same_images)
    np.testing.assert_array_equal(np.roll(labels, 1), other_labels)
    assert np.mean(labels == other_labels) < 0.5


def test_varying_mirrors_and_exchanges_colours_but_never_turns_over() -> None:
    image = np.zeros((100, 50, 3), np.uint8)
    image[:50, :25] = (40, 80, 160)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        varied = vary(image, rng)
        assert varied.shape == (INPUT_WH[1], INPUT_WH[0], 3)
        left = bool(varied[8, 8].any())
        assert left != bool(varied[8, -8].any())
        assert not varied[-8].any()
        seen.add((left, *varied[8, 8 if left else -8].tolist()))
    assert len(seen) == 2 * 6


def test_training_never_sees_the_held_out_pictures() -> None:
    pool = CropPool(1, size=1)
    for _ in range(3):
        pool.batch(1)
    assert 10_000_000 < pool._next_seed < 20_000_000
    assert HELD_OUT_SEED > 99 * 10_000_000
