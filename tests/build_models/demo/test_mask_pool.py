from __future__ import annotations

import numpy as np

from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.mask_pool import MaskPool, Sample, vary
from build_models.demo.masks import LABELS


def test_a_batch_has_a_class_for_every_pixel() -> None:
    images_bgr, masks = MaskPool(3, size=8).batch(16)
    assert images_bgr.shape == (16, 192, 320, 3)
    assert images_bgr.dtype == np.uint8
    assert masks.shape == (16, 192, 320)
    assert set(np.unique(masks).tolist()) == set(range(len(LABELS)))


def test_shuffled_masks_are_those_of_the_pictures_before() -> None:
    honest, shuffled = MaskPool(3, size=6), MaskPool(3, size=6, shuffle_masks=True)
    for number in range(6):
        np.testing.assert_array_equal(honest.samples[number].image_bgr, shuffled.samples[number].image_bgr)
        assert not np.array_equal(honest.samples[number].mask, shuffled.samples[number].mask)
    for number in range(5):
        np.testing.assert_array_equal(honest.samples[number].mask, shuffled.samples[number + 1].mask)


def test_the_mask_is_mirrored_with_its_picture_and_only_the_picture_changes_its_colours() -> None:
    image_bgr, mask = np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8), np.uint8)
    image_bgr[:3, :4], mask[:3, :4] = (40, 80, 160), 3
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        varied = vary(Sample(image_bgr, mask), rng)
        np.testing.assert_array_equal(varied.mask, np.where(varied.image_bgr.any(axis=2), 3, 0))
        left = bool(varied.mask[0, 0])
        seen.add((left, *varied.image_bgr[0, 0 if left else -1].tolist()))
    assert len(seen) == 2 * 6


def test_a_seed_gives_the_same_batches_again() -> None:
    (images, masks), (again, masks_again) = (MaskPool(5, size=4).batch(3) for _ in range(2))
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(masks, masks_again)


def test_training_never_sees_the_held_out_pictures() -> None:
    pool = MaskPool(1, size=1)
    for _ in range(3):
        pool.batch(1)
    assert 10_000_000 <= pool._next_seed < 20_000_000
    assert HELD_OUT_SEED > 99 * 10_000_000
