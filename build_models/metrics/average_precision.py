"""Detection: the mean average precision of the COCO evaluation, as pycocotools computes it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from agent.vision.decode import Thresholds, decode_detections
from build_models.data.sample import BoxesTruth
from build_models.metrics.match_boxes import Matches, match_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.vision.resize import Placement
    from build_models.data.sample import Truth
    from build_models.metrics.base import Outputs

SCORE_FLOOR = 0.001
_RECALLS = np.linspace(0.0, 1.0, 101)
_LEAST_IOUS = np.linspace(0.5, 0.95, 10)
_MISSED = np.arange(101) / 100 < _RECALLS  # points that lie above the hundredth that they stand for
_CELLS = 2**23  # of a table of detections or pictures by weighings: 64 MiB
_MOST_AT_ONCE = 512
_SMALLEST = float(np.spacing(1.0))  # pycocotools adds it to the denominator


class MeanAveragePrecision:
    """The mean over classes with objects, over least overlaps, and over 101 points of recall, of the best precision.

    Detections are decoded as on the device, but from a score of 0.001 on. At most 100 per class and picture count.

    Args:
        iou_threshold: a detection that overlaps a better one of its class by more is suppressed.
        classes: class ids that are judged; None: all.
        loose: an overlap of 0.5 is enough (``map50``); otherwise the mean over 0.50, 0.55 .. 0.95 is taken.
    """

    task: Literal["detect"] = "detect"

    def __init__(self, iou_threshold: float, classes: frozenset[int] | None = None, *, loose: bool = False) -> None:
        self.name = "map50" if loose else "map50_95"
        self._iou_threshold = iou_threshold
        self._classes = classes
        self._least_ious = _LEAST_IOUS[:1] if loose else _LEAST_IOUS

    def observe(self, outputs: Outputs, truth: Truth, placement: Placement) -> Matches:
        """Which detections found an object."""
        if not isinstance(truth, BoxesTruth):
            raise TypeError(f"expected boxes as the truth, got {type(truth).__name__}")
        most = outputs["scores"].shape[1]
        thresholds = Thresholds(SCORE_FLOOR, self._iou_threshold, most, self._classes)
        detections = decode_detections(outputs, placement, thresholds)
        if self._classes is not None:
            judged = np.isin(truth.labels, list(self._classes))
            truth = BoxesTruth(truth.boxes_xyxy[judged], truth.labels[judged], truth.ignore[judged])
        return match_boxes(detections, truth, self._least_ious)

    def verdicts(self, observations: Sequence[Matches]) -> NDArray[np.float64] | None:
        return None

    def values(self, observations: Sequence[Matches], weights: NDArray[np.int64]) -> NDArray[np.float64]:
        curves, objects = _curves(observations, len(self._least_ious))
        rows = max([len(observations), *(curve.length for curve in curves)], default=0)
        at_once = max(1, min(_MOST_AT_ONCE, _CELLS // max(1, rows)))
        parts = [np.zeros(0)]
        for first in range(0, len(weights), at_once):
            columns = np.ascontiguousarray(weights[first : first + at_once].T, np.float64)
            parts.append(_mean_precision(curves, objects, columns))
        return np.concatenate(parts)


def _mean_precision(
    curves: Sequence[_Curves], objects: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The mean ``[R]`` over the classes that have objects when each picture counts ``columns [P, R]`` times."""
    weighted = objects @ columns
    known = weighted > 0
    total = np.zeros(columns.shape[1])
    for curve, has_objects, its_objects in zip(curves, known, np.maximum(weighted, 1.0), strict=True):
        total += has_objects * curve.precision(columns, its_objects)
    count = known.sum(axis=0)
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _curves(observations: Sequence[Matches], steps: int) -> tuple[list[_Curves], NDArray[np.float64]]:
    """The curves of each class that has objects, and how many each picture has of it, float64 ``[C, P]``."""
    nothing: NDArray[np.int64] = np.zeros(0, np.int64)
    picture = np.arange(len(observations))
    object_labels = np.concatenate([nothing, *(each.objects for each in observations)])
    classes, object_class = np.unique(object_labels, return_inverse=True)
    objects = np.zeros((len(classes), len(observations)))
    np.add.at(objects, (object_class, np.repeat(picture, [len(each.objects) for each in observations])), 1.0)

    labels = np.concatenate([nothing, *(each.labels for each in observations)])
    scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in observations)])
    nowhere = np.zeros((steps, 0), np.bool_)
    found = np.concatenate([nowhere, *(each.found for each in observations)], axis=1)
    ignored = np.concatenate([nowhere, *(each.ignored for each in observations)], axis=1)
    pictures = np.repeat(picture, [len(each.labels) for each in observations])
    order = np.lexsort((-scores, labels))  # stable: of equal scores, the earlier picture's is first
    first, end = (np.searchsorted(labels[order], classes, side) for side in ("left", "right"))
    parts = [order[start:stop] for start, stop in zip(first.tolist(), end.tolist(), strict=True)]
    return [_Curves(pictures[part], found[:, part], ignored[:, part]) for part in parts], objects


class _Curves:
    """The detections of a class in the order of their scores: its curves of precision over recall, to be weighted.

    Only the places where an object was found matter: between them precision falls, and recall stands still.

    Args:
        pictures: ``[D]``, in which each detection is.
        found: ``[T, D]``, whether it found an object.
        ignored: ``[T, D]``, whether it does not count.
    """

    def __init__(self, pictures: NDArray[np.intp], found: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> None:
        places = np.flatnonzero(found.any(axis=0))
        self.length = int(places[-1]) + 1 if len(places) else 0
        self._pictures = pictures[: self.length]
        self._places = [np.flatnonzero(at_step) for at_step in found]
        self._ignored = [np.flatnonzero(at_step) for at_step in ignored]

    def precision(self, columns: NDArray[np.float64], objects: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average precision ``[R]`` for pictures that count ``columns [P, R]`` times and show ``objects [R]``.

        Numbers of detections are float64, which holds them exactly and is quicker to divide.
        """
        weights = columns[self._pictures]
        detections = _running(np.add, weights.copy())
        total = np.zeros(columns.shape[1])
        for places, ignored in zip(self._places, self._ignored, strict=True):
            if not len(places):
                continue
            found = _running(np.add, weights[places])
            counted = detections[places]
            before = np.searchsorted(ignored, places)  # how many ignored ones come before each place
            if before[-1]:
                passed = _running(np.add, weights[ignored[: before[-1]]])
                later = np.flatnonzero(before)
                counted[later] -= passed[before[later] - 1]
            counted += _SMALLEST
            precision = np.divide(found, counted, out=counted)
            best = _running(np.maximum, precision[::-1])[::-1]
            new = np.diff(_recalls_reached(found, objects), axis=0, prepend=0.0)
            total += np.einsum("ij,ij->j", best, new)
        return total / (len(self._places) * len(_RECALLS))


def _running(combine: np.ufunc, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``combine.accumulate(rows, axis=0, out=rows)`` row by row, in a tenth of its time for rows of hundreds."""
    for above, row in pairwise(rows):
        combine(above, row, out=row)
    return rows


def _recalls_reached(found: NDArray[np.float64], objects: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of the 101 points of recall ``found [M, R]`` of ``objects [R]`` reach.

    The points are not quite the hundredths (0.35 is 0.35000000000000003 there), so a recall of exactly 0.35 does not
    reach its point; no other recall of whole numbers is as close to one.
    """
    hundredths = found * 100.0
    hundredths /= objects
    reached = np.floor(hundredths)
    exact = np.flatnonzero((reached == hundredths).ravel())
    reached += 1.0
    missed = _MISSED[reached.ravel()[exact].astype(np.int64) - 1]
    reached.ravel()[exact] -= missed
    return reached
