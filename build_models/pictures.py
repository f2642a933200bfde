"""Pictures for calibration and evaluation: found, split and resized exactly as the device resizes its frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.vision.resize import Placement, Resizer
from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.model.manifest import InputSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_LEAST_HELD_OUT = 2
_LEAST_PICTURES = 3


@dataclass(frozen=True)
class Picture:
    """One picture as the model gets it.

    Attributes:
        name: the file's name.
        sha256: digest of the file.
        input_image: uint8 ``[H, W, 3]`` BGR, resized.
        placement: where the picture lies in the input.
    """

    name: str
    sha256: str
    input_image: NDArray[np.uint8]
    placement: Placement


@dataclass(frozen=True)
class PictureSet:
    """Calibration pictures, others kept out of calibration, files that were no pictures, and a digest of all."""

    calibration: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    unreadable: tuple[str, ...]
    sha256: str


def load_pictures(folder: Path, spec: InputSpec, held_out_share: float, limit: int | None = None) -> PictureSet:
    """Load the pictures of a folder and split them; the split depends on the files' contents alone.

    Args:
        folder: searched with its subfolders for jpg, png, webp and bmp.
        spec: the model's input.
        held_out_share: 0..1, the part that is kept out of calibration, at least two pictures: a check against one
            picture alone could not fail.
        limit: use at most so many, the first by digest.

    Raises:
        RecipeError: no folder, fewer than three pictures in it, or a file that cannot be read.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: expected a folder with calibration pictures, found none; check the path")
    by_digest = {hashlib.sha256(_read(path)).hexdigest(): path for path in _picture_files(folder)}
    chosen = sorted(by_digest.items())[:limit]
    pictures, unreadable = [], []
    for sha256, path in chosen:
        picture = _load(path, sha256, spec)
        if picture is None:
            unreadable.append(path.name)
        else:
            pictures.append(picture)
    if len(pictures) < _LEAST_PICTURES:
        raise RecipeError(
            f"{folder}: expected at least {_LEAST_PICTURES} different pictures to calibrate and verify with "
            f"({', '.join(SUFFIXES)}; 50 to 500 are usual), found {len(pictures)}"
            + (f" and {len(unreadable)} unreadable" if unreadable else "")
            + (f", as calibration.limit is {limit}" if limit is not None and limit < len(by_digest) else "")
        )
    count = min(len(pictures) - 1, max(_LEAST_HELD_OUT, round(len(pictures) * held_out_share)))
    total = hashlib.sha256("".join(picture.sha256 for picture in pictures).encode()).hexdigest()
    return PictureSet(tuple(pictures[count:]), tuple(pictures[:count]), tuple(unreadable), total)


def _picture_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise RecipeError(f"{path}: cannot read the picture: {err.strerror}; remove it or correct its mode") from err


def _load(path: Path, sha256: str, spec: InputSpec) -> Picture | None:
    try:
        image_bgr = cv2.imdecode(np.frombuffer(_read(path), np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file, or more pixels than OpenCV takes
        return None
    if image_bgr is None:
        return None
    input_image = np.zeros((spec.height, spec.width, 3), np.uint8)
    placement = Resizer(spec, input_image)(image_bgr.astype(np.uint8, copy=False))
    return Picture(path.name, sha256, input_image, placement)
