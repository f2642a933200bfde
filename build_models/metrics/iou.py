"""Segmentation: intersection over union per class, and the share of right pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from agent.vision.decode import decode_mask
from agent.vision.mask import CLASS_IDS
from build_models.data.sample import IGNORE, MaskTruth

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.vision.resize import Placement
    from build_models.data.sample import Truth
    from build_models.metrics.base import Outputs

_RIGHT, _SEEN, _TRUE = range(3)  # an observation's rows: pixels rightly of a class, said to be, and truly of it


class _PixelCounts:
    """Counts pixels of the picture (not of the mask) as the device lays the mask over it: the nearest cell's class.

    Pixels that the truth ignores, and those that the model does not see (a crop's outside), do not count.

    Args:
        class_count: how many labels there are.
        classes: ids that are judged; None: all.
        merge: class id: the id that it counts as, in answers and in truths.
    """

    task: Literal["segment"] = "segment"

    def __init__(
        self, class_count: int, classes: frozenset[int] | None = None, merge: Mapping[int, int] | None = None
    ) -> None:
        self._class_count = class_count
        self._judged = np.array([classes is None or each in classes for each in range(class_count)])
        # One more entry than there are ids: IGNORE, -1, finds itself at the end.
        self._counts_as = np.append(np.arange(CLASS_IDS), IGNORE).astype(np.int64)
        for each, other in (merge or {}).items():
            self._counts_as[each] = other

    def observe(self, outputs: Outputs, truth: Truth, placement: Placement) -> NDArray[np.int64]:
        """Pixels int64 ``[3, C]``: rightly of the class, said to be of it, truly of it."""
        if not isinstance(truth, MaskTruth):
            raise TypeError(f"expected a mask as the truth, got {type(truth).__name__}")
        truth_ids = truth.ids()
        width, height = placement.frame_wh
        if truth_ids.shape != (height, width):
            raise ValueError(f"expected a mask of the picture's {[height, width]} pixels, got {list(truth_ids.shape)}")
        said_ids, seen = decode_mask(outputs, placement).on_frame()
        true = self._counts_as[truth_ids[seen]]
        counts = true != IGNORE
        true, said = true[counts], self._counts_as[said_ids][counts]
        rows = (true[true == said], said, true)
        return np.stack([np.bincount(row, minlength=CLASS_IDS)[: self._class_count] for row in rows])

    def verdicts(self, observations: Sequence[NDArray[np.int64]]) -> NDArray[np.float64] | None:
        return None

    def _totals(self, observations: Sequence[NDArray[np.int64]], weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[R, 3, C]``: the pixels of all pictures; exact, as long as they are fewer than 2^53."""
        shape = (3, self._class_count)
        flat = np.array(observations, np.float64).reshape(len(observations), shape[0] * shape[1])
        return (weights.astype(np.float64) @ flat).reshape(-1, *shape)


class MeanIou(_PixelCounts):
    """The mean, over the judged classes that the truth shows at all, of intersection over union over all pictures."""

    name = "miou"

    def values(self, observations: Sequence[NDArray[np.int64]], weights: NDArray[np.int64]) -> NDArray[np.float64]:
        totals = self._totals(observations, weights)
        right, said, true = (totals[:, row] for row in (_RIGHT, _SEEN, _TRUE))
        present = (true > 0) & self._judged
        union = true + said - right
        iou = np.divide(right, union, out=np.zeros_like(right), where=present)
        classes = present.sum(axis=1)
        means = np.full(len(weights), np.nan)
        np.divide(iou.sum(axis=1), classes, out=means, where=classes > 0)
        return means


class PixelAccuracy(_PixelCounts):
    """The share of right pixels among those that are truly of the judged classes, over all pictures."""

    name = "pixel_accuracy"

    def values(self, observations: Sequence[NDArray[np.int64]], weights: NDArray[np.int64]) -> NDArray[np.float64]:
        totals = self._totals(observations, weights)[:, :, self._judged].sum(axis=2)
        true = totals[:, _TRUE]
        shares = np.full(len(weights), np.nan)
        np.divide(totals[:, _RIGHT], true, out=shares, where=true > 0)
        return shares
