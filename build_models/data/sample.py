"""A picture of a dataset and its truth; pixels are read when they are asked for, and nothing keeps them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from build_models.data.picture import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

IGNORE = -1  # in a mask: this pixel does not count


@dataclass(frozen=True, slots=True)
class ClassTruth:
    """What a picture shows: a class id."""

    label: int

    def digest(self) -> str:
        return f"class {self.label}"


@dataclass(frozen=True, slots=True, eq=False)
class BoxesTruth:
    """The objects of a picture.

    Attributes:
        boxes_xyxy: float32 ``[N, 4]`` in pixels of the picture.
        labels: int64 ``[N]``, class ids.
        ignore: bool ``[N]``: a crowd or a difficult object, which counts neither when found nor when missed.
    """

    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.boxes_xyxy.shape != (count, 4) or self.labels.shape != (count,) or self.ignore.shape != (count,):
            shapes = [list(array.shape) for array in (self.boxes_xyxy, self.labels, self.ignore)]
            raise ValueError(f"expected boxes [N, 4], labels [N] and ignore [N], got {shapes}")

    def digest(self) -> str:
        arrays = (self.boxes_xyxy, self.labels, self.ignore)
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class MaskTruth:
    """The class of each pixel, read when it is asked for.

    Attributes:
        load: gives int16 ``[h, w]`` class ids of the picture's pixels, `IGNORE` where none counts.
        sha256: what it depends on.
    """

    load: Callable[[], NDArray[np.int16]]
    sha256: str

    def ids(self) -> NDArray[np.int16]:
        return self.load()

    def digest(self) -> str:
        return self.sha256


Truth = ClassTruth | BoxesTruth | MaskTruth


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture.

    Attributes:
        name: where it lies in its folder, with ``/``.
        path: the file.
        sha256: digest of the file.
        size_wh: in pixels, turned as EXIF asks.
        truth: None where there are no labels.
    """

    name: str
    path: Path
    sha256: str
    size_wh: tuple[int, int]
    truth: Truth | None

    def image_bgr(self) -> NDArray[np.uint8]:
        """Decode it as the device decodes a picture file: uint8 ``[h, w, 3]`` BGR.

        Raises:
            RecipeError: the file is damaged, or no longer the one that was listed.
        """
        return read_picture(self.path, self.sha256, self.size_wh)
