"""A segmentation mask laid over its frame: which class each part of it shows, and how much of it each class covers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASS_IDS = 256  # what a byte can tell apart
_ROUNDING = 1e-6  # of a mask pixel: sizes and offsets are whole numbers, what lies between them is rounding


@dataclass(frozen=True, slots=True)
class FrameMask:
    """Class ids of a frame, as coarse as the model tells them; a mask pixel is a rectangle of frame pixels.

    Attributes:
        ids: uint8 ``[h, w]``, only mask pixels that show something of the frame.
        origin_xy: the upper left corner of ``ids`` in frame pixels; a mask pixel may reach over the frame's edge.
        cell_wh: how many frame pixels a mask pixel covers.
        frame_wh: the frame's size in pixels.
    """

    ids: NDArray[np.uint8]
    origin_xy: tuple[float, float]
    cell_wh: tuple[float, float]
    frame_wh: tuple[int, int]

    def areas(self) -> dict[int, float]:
        """The share, above 0 and at most 1, of each class id, largest first; together they are 1.

        Shares are of what the model saw of the frame: a letterbox's border is not in it, nor what a crop cut off. Of a
        mask pixel on the frame's edge only the part within the frame counts.
        """
        across, down = self._covered(0), self._covered(1)
        if across is None and down is None:
            # A third of the time of bincount.
            counts = cv2.calcHist([self.ids], [0], None, [CLASS_IDS], [0, CLASS_IDS]).ravel().astype(np.float64)
        else:
            weights = np.multiply.outer(_or_ones(down, self.ids.shape[0]), _or_ones(across, self.ids.shape[1]))
            counts = np.bincount(self.ids.ravel(), weights.ravel(), CLASS_IDS).astype(np.float64, copy=False)
        present = np.flatnonzero(counts)
        largest_first = present[np.argsort(-counts[present], kind="stable")]
        shares = counts[largest_first] / counts.sum()
        return dict(zip(largest_first.tolist(), shares.tolist(), strict=True))

    def on_frame(self) -> tuple[NDArray[np.uint8], tuple[slice, slice]]:
        """The class id of each frame pixel that the model saw, and which these are, as rows and columns."""
        (columns, across), (rows, down) = self._nearest(0), self._nearest(1)
        return np.take(self.ids[rows], columns, axis=1), (down, across)

    def _covered(self, axis: int) -> NDArray[np.float64] | None:
        return _covered_cells(self.ids.shape[1 - axis], self.origin_xy[axis], self.cell_wh[axis], self.frame_wh[axis])

    def _nearest(self, axis: int) -> tuple[NDArray[np.intp], slice]:
        return _nearest_cells(self.ids.shape[1 - axis], self.origin_xy[axis], self.cell_wh[axis], self.frame_wh[axis])


@lru_cache(maxsize=64)
def _covered_cells(count: int, origin: float, cell: float, limit: int) -> NDArray[np.float64] | None:
    """How much of each mask pixel lies within the frame, along one side; None when all of all of them does."""
    edges = np.clip(origin + cell * np.arange(count + 1), 0, limit)
    covered: NDArray[np.float64] = np.diff(edges) / cell
    return None if (covered > 1 - _ROUNDING).all() else covered


def _or_ones(covered: NDArray[np.float64] | None, count: int) -> NDArray[np.float64]:
    return np.ones(count) if covered is None else covered


@lru_cache(maxsize=64)
def _nearest_cells(count: int, origin: float, cell: float, limit: int) -> tuple[NDArray[np.intp], slice]:
    """The mask pixel under the middle of each frame pixel, along one side, and the frame pixels that have one."""
    cells = np.floor((np.arange(limit) + 0.5 - origin) / cell).astype(np.intp)
    seen = np.flatnonzero((cells >= 0) & (cells < count))
    return cells[seen], slice(int(seen[0]), int(seen[-1]) + 1)


def span(offset: float, length: float, cell: float, count: int) -> slice:
    """The mask pixels of ``cell`` input pixels, ``count`` in all, that show ``offset`` .. ``offset + length``."""
    first = int(np.floor(offset / cell + _ROUNDING))
    last = int(np.ceil((offset + length) / cell - _ROUNDING))
    return slice(max(0, first), min(count, last))
