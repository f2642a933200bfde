"""Detections of one frame, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """``N`` detections, best score first.

    Attributes:
        boxes_xyxy: float32 ``[N, 4]``, pixels of the frame.
        scores: float32 ``[N]``, 0..1.
        labels: int64 ``[N]``, class ids.

    Raises:
        ValueError: the columns' shapes do not fit together.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = (self.boxes_xyxy.shape, self.scores.shape, self.labels.shape)
        count = len(self.scores)
        if shapes != ((count, 4), (count,), (count,)):
            raise ValueError(f"expected boxes [N, 4], scores [N] and labels [N], got {shapes}")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def name_of(labels: Sequence[str], label: int) -> str:
    """The name of a class id; a model that knows more classes than its bundle has labels shows it by its number."""
    return labels[label] if 0 <= label < len(labels) else f"class {label}"
