"""Training pictures with masks, without a data set: a few new ones a batch, each used some four times."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from agent.demo.scenes import random_picture
from build_models.demo.masks import class_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL_PICTURES = 1024
NEW_PICTURES_PER_BATCH = 4
MOST_OBJECTS = 24  # crowded pictures teach more at the same price
_SIZE_WH = (320, 192)


class Sample(NamedTuple):
    """A picture, uint8 ``[H, W, 3]`` BGR, and the class of its pixels, uint8 ``[H, W]``."""

    image_bgr: NDArray[np.uint8]
    mask: NDArray[np.uint8]


class MaskPool:
    """A pool of samples whose oldest are replaced at every batch; the same for the same seed.

    Args:
        seed: of the pictures and their order; pools of different seeds share no picture.
        size: how many samples are kept.
        shuffle_masks: give each picture the mask of the one before, which says nothing about it.
    """

    def __init__(self, seed: int, size: int, *, shuffle_masks: bool = False) -> None:
        self._rng = np.random.default_rng(seed)
        self._next_seed = seed * 10_000_000
        self._shuffle_masks = shuffle_masks
        self._held_back = _draw(self._next_seed - 1).mask
        self.samples = [self._sample() for _ in tqdm(range(size), desc="pictures", unit="picture")]
        self._oldest = 0

    def batch(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pictures uint8 ``[size, H, W, 3]`` BGR, varied at random, and their masks int64 ``[size, H, W]``."""
        for _ in range(NEW_PICTURES_PER_BATCH):
            self.samples[self._oldest] = self._sample()
            self._oldest = (self._oldest + 1) % len(self.samples)
        chosen = self._rng.integers(len(self.samples), size=size)
        varied = [vary(self.samples[index], self._rng) for index in chosen.tolist()]
        return np.stack([sample.image_bgr for sample in varied]), np.stack([sample.mask for sample in varied]).astype(
            np.int64
        )

    def _sample(self) -> Sample:
        sample = _draw(self._next_seed)
        self._next_seed += 1
        if not self._shuffle_masks:
            return sample
        other, self._held_back = self._held_back, sample.mask
        return Sample(sample.image_bgr, other)


def vary(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left and right at random, which leaves every shape what it is, and exchange the colour channels."""
    image_bgr, mask = sample
    if rng.random() < 0.5:
        image_bgr, mask = np.flip(image_bgr, 1), np.flip(mask, 1)
    return Sample(image_bgr[:, :, rng.permutation(3)], mask)


def _draw(seed: int) -> Sample:
    image_bgr, truth = random_picture(seed, *_SIZE_WH, most_objects=MOST_OBJECTS)
    return Sample(image_bgr, class_mask(truth))
