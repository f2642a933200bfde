"""Average precision, per class and per size of the objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agent.vision.boxes import iou_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.vision.detections import Detections

# By the longer side of the box, in pixels: from, up to (not including).
SIZES_PX = {"all": (0.0, np.inf), "<24": (0.0, 24.0), "24-48": (24.0, 48.0), ">=48": (48.0, np.inf)}


class LabelledBoxes(Protocol):
    """The truth of a picture: ``boxes_xyxy`` float32 ``[N, 4]``, ``labels`` int64 ``[N]``."""

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """Pixels."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class ids."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``label`` "all" is the mean over the classes; ``ap`` is None where there was nothing."""

    label: str
    size: str
    objects: int
    ap: float | None


def precision_table(
    detections: Sequence[Detections], truths: Sequence[LabelledBoxes], labels: Sequence[str], iou: float = 0.5
) -> list[Row]:
    """A row for every size of `SIZES_PX` and every class, the mean over the classes first.

    Within a size, objects of other sizes are left out of account, together with the detections that match them and
    with unmatched detections of other sizes.

    Args:
        detections: of each picture.
        truths: of each picture, in the same order.
        labels: names, index = class id.
        iou: the least overlap of a detection with its object.
    """
    rows = []
    for size, range_px in SIZES_PX.items():
        of_size = [
            _class_row(detections, truths, class_id, label, size, range_px, iou)
            for class_id, label in enumerate(labels)
        ]
        known = [row.ap for row in of_size if row.ap is not None]
        mean = float(np.mean(known)) if known else None
        rows += [Row("all", size, sum(row.objects for row in of_size), mean), *of_size]
    return rows


def mean_precision(table: Sequence[Row], size: str = "all") -> float:
    """The mean over the classes at a size; 0 where there were no objects."""
    return next(row.ap or 0.0 for row in table if row.label == "all" and row.size == size)


def average_precision(scores: NDArray[np.float32], correct: NDArray[np.bool_], objects: int) -> float:
    """The area under the precision-recall curve, all-point interpolation (PASCAL VOC 2010 and later).

    Args:
        scores: ``[M]``.
        correct: ``[M]``, whether that detection found an object of its own.
        objects: how many there were to find, at least 1.
    """
    found = np.cumsum(correct[np.argsort(-scores, kind="stable")])
    recall = found / objects
    precision = found / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _class_row(
    detections: Sequence[Detections],
    truths: Sequence[LabelledBoxes],
    class_id: int,
    label: str,
    size: str,
    range_px: tuple[float, float],
    iou: float,
) -> Row:
    scores, correct, objects = [np.zeros(0, np.float32)], [np.zeros(0, bool)], 0
    for found, truth in zip(detections, truths, strict=True):
        mine = found.labels == class_id
        boxes_xyxy = truth.boxes_xyxy[truth.labels == class_id]
        wanted = _is_within(boxes_xyxy, range_px)
        matched = _match(found.boxes_xyxy[mine], found.scores[mine], boxes_xyxy, wanted, iou)
        counts = np.where(matched >= 0, np.append(wanted, False)[matched], _is_within(found.boxes_xyxy[mine], range_px))
        scores.append(found.scores[mine][counts])
        correct.append((matched >= 0)[counts])
        objects += int(np.count_nonzero(wanted))
    ap = average_precision(np.concatenate(scores), np.concatenate(correct), objects) if objects else None
    return Row(label, size, objects, ap)


def _match(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    truth_xyxy: NDArray[np.float32],
    wanted: NDArray[np.bool_],
    least_iou: float,
) -> NDArray[np.int64]:
    """Each detection's object or -1: the best score chooses first, the wanted before the others, then by overlap."""
    matched = np.full(len(boxes_xyxy), -1, np.int64)
    if not len(truth_xyxy):
        return matched
    overlap = iou_matrix(boxes_xyxy, truth_xyxy)
    free = np.ones(len(truth_xyxy), bool)
    for index in np.argsort(-scores, kind="stable").tolist():
        worth = np.where(free & (overlap[index] >= least_iou), overlap[index] + wanted, -1.0)
        best = int(np.argmax(worth))
        if worth[best] > 0:
            matched[index], free[best] = best, False
    return matched


def _is_within(boxes_xyxy: NDArray[np.float32], range_px: tuple[float, float]) -> NDArray[np.bool_]:
    longer = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, initial=0.0)
    within: NDArray[np.bool_] = (longer >= range_px[0]) & (longer < range_px[1])
    return within
