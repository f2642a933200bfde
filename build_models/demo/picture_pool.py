"""Training pictures without a data set: a few new ones a batch, each used some four times, never twice alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from agent.demo.scenes import random_picture
from build_models.demo.detector import INPUT_WH
from build_models.demo.loss import Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL_PICTURES = 1024
NEW_PICTURES_PER_BATCH = 4
MOST_OBJECTS = 24  # crowded pictures teach more at the same price


class Sample(NamedTuple):
    """A picture, uint8 ``[H, W, 3]`` BGR, and its objects: boxes float32 ``[N, 4]`` xyxy, labels int64 ``[N]``."""

    image_bgr: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]


class PicturePool:
    """A pool of samples whose oldest are replaced at every batch; the same for the same seed.

    Args:
        seed: of the pictures and their order; pools of different seeds share no picture.
        size: how many samples are kept.
        shuffle_labels: give each picture the labels, boxes and classes, of the one before, which say nothing about it.
    """

    def __init__(self, seed: int, size: int, *, shuffle_labels: bool = False) -> None:
        self._rng = np.random.default_rng(seed)
        self._next_seed = seed * 10_000_000
        self._shuffle_labels = shuffle_labels
        _, self._held_back = random_picture(self._next_seed - 1, *INPUT_WH, most_objects=MOST_OBJECTS)
        self.samples = [self._draw() for _ in tqdm(range(size), desc="pictures", unit="picture")]
        self._oldest = 0

    def batch(self, size: int) -> tuple[NDArray[np.uint8], Targets]:
        """Pictures uint8 ``[size, H, W, 3]`` BGR, varied at random, and their padded targets."""
        for _ in range(NEW_PICTURES_PER_BATCH):
            self.samples[self._oldest] = self._draw()
            self._oldest = (self._oldest + 1) % len(self.samples)
        chosen = self._rng.integers(len(self.samples), size=size)
        varied = [vary(self.samples[index], self._rng) for index in chosen.tolist()]
        return np.stack([sample.image_bgr for sample in varied]), _targets(varied)

    def _draw(self) -> Sample:
        image_bgr, truth = random_picture(self._next_seed, *INPUT_WH, most_objects=MOST_OBJECTS)
        self._next_seed += 1
        if self._shuffle_labels:
            truth, self._held_back = self._held_back, truth
        return Sample(image_bgr, truth.boxes_xyxy, truth.labels)


def vary(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirror left and right at random, which leaves every shape what it is, and exchange the colour channels."""
    image_bgr, boxes_xyxy = sample.image_bgr, sample.boxes_xyxy.copy()
    if rng.random() < 0.5:
        image_bgr = np.flip(image_bgr, 1)
        boxes_xyxy[:, [0, 2]] = image_bgr.shape[1] - boxes_xyxy[:, [2, 0]]
    return Sample(image_bgr[:, :, rng.permutation(3)], boxes_xyxy, sample.labels)


def _targets(samples: list[Sample]) -> Targets:
    most = max(1, *(len(sample.labels) for sample in samples))
    boxes_xyxy = np.zeros((len(samples), most, 4), np.float32)
    labels = np.zeros((len(samples), most), np.int64)
    valid = np.zeros((len(samples), most), bool)
    for row, sample in enumerate(samples):
        count = len(sample.labels)
        boxes_xyxy[row, :count], labels[row, :count], valid[row, :count] = sample.boxes_xyxy, sample.labels, True
    return Targets(torch.from_numpy(boxes_xyxy), torch.from_numpy(labels), torch.from_numpy(valid))
