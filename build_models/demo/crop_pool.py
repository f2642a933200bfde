"""Training crops without a data set: pictures are kept a while, and cut differently every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from agent.demo.scenes import random_picture
from build_models.demo.crops import INPUT_WH, LABELS, crop_nothing, crop_object

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.demo.scenes import Truth
    from build_models.demo.crops import Crop

POOL_PICTURES = 1024
NEW_PICTURES_PER_BATCH = 2
LARGE_SHARE = 0.1  # of the pictures are twice as large, so that crops are made smaller as well as larger
MOST_OBJECTS = 14  # fuller pictures teach more at the same price
_WIDTH, _HEIGHT = 320, 192


class CropPool:
    """A pool of pictures whose oldest are replaced at every batch; the same for the same seed.

    Args:
        seed: of the pictures, their crops and their order; pools of different seeds share no picture.
        size: how many pictures are kept.
        shuffle_labels: name each crop of a batch as the one before, which says nothing about it.
    """

    def __init__(self, seed: int, size: int, *, shuffle_labels: bool = False) -> None:
        self._rng = np.random.default_rng(seed)
        self._next_seed = seed * 10_000_000
        self._shuffle_labels = shuffle_labels
        self._pictures = [self._draw() for _ in tqdm(range(size), desc="pictures", unit="picture")]
        self._oldest = 0

    def batch(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Crops uint8 ``[size, H, W, 3]`` BGR, varied at random, and their labels int64 ``[size]``, all as frequent."""
        for _ in range(NEW_PICTURES_PER_BATCH):
            self._pictures[self._oldest] = self._draw()
            self._oldest = (self._oldest + 1) % len(self._pictures)
        crops = [self._crop() for _ in range(size)]
        labels = np.array([crop.label for crop in crops], np.int64)
        if self._shuffle_labels:
            labels = np.roll(labels, 1)
        return np.stack([vary(crop.image_bgr, self._rng) for crop in crops]), labels

    def _crop(self) -> Crop:
        while True:
            image_bgr, truth = self._pictures[self._rng.integers(len(self._pictures))]
            if self._rng.random() < 1 / len(LABELS):
                crop = crop_nothing(image_bgr, truth, self._rng)
                if crop is not None:
                    return crop
            elif len(truth.labels):
                return crop_object(image_bgr, truth, int(self._rng.integers(len(truth.labels))), self._rng)

    def _draw(self) -> tuple[NDArray[np.uint8], Truth]:
        scale = 2 if self._rng.random() < LARGE_SHARE else 1
        self._next_seed += 1
        return random_picture(self._next_seed, _WIDTH * scale, _HEIGHT * scale, most_objects=MOST_OBJECTS)


def vary(image_bgr: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Stretch to the input's size, mirror at random, which leaves every shape what it is, and exchange the colours."""
    stretched = np.asarray(cv2.resize(image_bgr, INPUT_WH, interpolation=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < 0.5:
        stretched = np.flip(stretched, 1)
    return stretched[:, :, rng.permutation(3)]
