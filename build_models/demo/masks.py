"""The demo's truth as class masks: which class every pixel shows.

``python -m build_models.demo.masks --out DIR`` writes pictures with masks: ``train`` to calibrate and to search with,
``val`` to judge with, each with its folders ``images`` and ``masks``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from agent.demo.scenes import HIDDEN, random_picture
from agent.demo.scenes import LABELS as SHAPES
from build_models.demo.pictures import CALIBRATION_SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.demo.scenes import Truth

BACKGROUND = 0
LABELS = ("background", *SHAPES)
IGNORED = HIDDEN  # in a class mask: a piece of an object too hidden to be named
# The seed of the first picture and how many; training and the held-out pictures lie below.
SPLITS = {"train": (CALIBRATION_SEED, 240), "val": (CALIBRATION_SEED + 500_000_000, 400)}


def class_mask(truth: Truth) -> NDArray[np.uint8]:
    """Indices into `LABELS`, or `IGNORED`: uint8 ``[H, W]``."""
    class_of = np.full(256, IGNORED, np.uint8)
    class_of[0] = BACKGROUND
    class_of[1 : 1 + len(truth.labels)] = 1 + truth.labels
    return np.asarray(cv2.LUT(truth.mask, class_of), np.uint8)


def write_masks(folder: Path, first_seed: int, count: int) -> None:
    """Write so many pictures and their masks as PNG files; what is there under the same names is replaced."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(exist_ok=True)
    for number in tqdm(range(count), desc=folder.name, unit="picture"):
        image_bgr, truth = random_picture(first_seed + number)
        for place, pixels in ((images, image_bgr), (masks, class_mask(truth))):
            (place / f"{number:04d}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pictures that ``configs/recipes/demo-segmenter.yaml`` calibrates and judges with."""
    parser = argparse.ArgumentParser(description="Write procedural pictures with class masks.")
    parser.add_argument("--out", type=Path, required=True, help="folder for train and val")
    parser.add_argument("--count", type=int, help="of each; else as many as the recipe is made for")
    options = parser.parse_args(arguments)
    for name, (first_seed, count) in SPLITS.items():
        write_masks(options.out / name, first_seed, options.count or count)


if __name__ == "__main__":
    main()
