"""Crops of the demo's pictures, as a detector's boxes would cut them out, each with the name of what fills it.

``python -m build_models.demo.crops --out DIR`` writes crops for calibration.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from agent.demo.scenes import LABELS as SHAPES
from agent.demo.scenes import SIZE_RANGE_PX, random_picture
from build_models.demo.pictures import CALIBRATION_SEED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from agent.demo.scenes import Truth

NOTHING = 0
LABELS = ("nothing", *SHAPES)
INPUT_WH = (64, 64)
COUNT = 300
# How far each side of a crop lies outside of the object's box (inside, if negative), as a share of the box's side:
# from the error of a good detector to the margin that a second model is usually given.
MARGIN_SHARE = (-0.08, 0.35)
MOST_NEIGHBOUR_SHARE = 0.02  # of a crop of nothing that an object may take, at its edge
_TRIES = 20


class Crop(NamedTuple):
    """A part of a picture, uint8 ``[h, w, 3]`` BGR of any size, and what fills it: an index into `LABELS`."""

    image_bgr: NDArray[np.uint8]
    label: int


def crops_of(seed: int, width: int = 320) -> Iterator[Crop]:
    """A crop of every object of the random picture of a seed, and one of nothing where there is room for it.

    Args:
        seed: of the picture; its crops are the same again for the same seed.
        width: of the picture in pixels; its height follows.
    """
    image_bgr, truth = random_picture(seed, width, width * 3 // 5)
    rng = np.random.default_rng((seed, _STREAM_CROPS))
    for row in range(len(truth.labels)):
        yield crop_object(image_bgr, truth, row, rng)
    nothing = crop_nothing(image_bgr, truth, rng)
    if nothing is not None:
        yield nothing


def crop_object(image_bgr: NDArray[np.uint8], truth: Truth, row: int, rng: np.random.Generator) -> Crop:
    """Cut out an object of a picture by its box with four random margins, every other time widened to a square."""
    left, top, right, bottom = truth.boxes_xyxy[row].tolist()
    out = rng.uniform(*MARGIN_SHARE, 4) * ((right - left, bottom - top) * 2)
    box = np.array((left - out[0], top - out[1], right + out[2], bottom + out[3]))
    if rng.random() < 0.5:
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() / 2
        box = np.concatenate((centre - half, centre + half))
    return Crop(image_bgr[_window(box, image_bgr)], 1 + int(truth.labels[row]))


def crop_nothing(image_bgr: NDArray[np.uint8], truth: Truth, rng: np.random.Generator) -> Crop | None:
    """Cut out background of an object's size and shape, next to no object in it; None where no room is found."""
    height, width = truth.mask.shape
    smallest_px, largest_px = SIZE_RANGE_PX
    for _ in range(_TRIES):
        side_px = smallest_px * (largest_px / smallest_px) ** rng.uniform() * width / 320
        half_wh = side_px * rng.uniform(0.4, 0.8, 2)
        centre_xy = rng.uniform(0, 1, 2) * (width, height)
        window = _window(np.concatenate((centre_xy - half_wh, centre_xy + half_wh)), image_bgr)
        if np.count_nonzero(truth.mask[window]) <= MOST_NEIGHBOUR_SHARE * truth.mask[window].size:
            return Crop(image_bgr[window], NOTHING)
    return None


def write_crops(folder: Path, count: int = COUNT) -> None:
    """Write so many PNG files; what is there under the same names is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    crops = (crop for seed in range(CALIBRATION_SEED, CALIBRATION_SEED + count) for crop in crops_of(seed))
    for number, crop in zip(tqdm(range(count), desc="crops", unit="crop"), crops, strict=False):
        (folder / f"{number:04d}.png").write_bytes(cv2.imencode(".png", crop.image_bgr)[1].tobytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the crops that ``configs/recipes/demo-classifier.yaml`` calibrates with."""
    parser = argparse.ArgumentParser(description="Write crops of procedural pictures for calibration.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args(arguments)
    write_crops(options.out, options.count)


_STREAM_CROPS = 3  # beside those of agent/demo/scenes.py


def _window(box_xyxy: NDArray[np.float64], image_bgr: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Rows and columns of a box, cut to the picture, two pixels wide at least."""
    height, width = image_bgr.shape[:2]
    left, top = np.clip(np.floor(box_xyxy[:2]), 0, (width - 2, height - 2)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(box_xyxy[2:]), (left + 2, top + 2), (width, height)).astype(int).tolist()
    return slice(top, bottom), slice(left, right)


if __name__ == "__main__":
    main()
