"""Detection: the mean average precision of the COCO evaluation, as pycocotools computes it."""

from __future__ import annotations

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
        curves = _Curves(observations, len(self._least_ious))
        return np.array([curves.mean_precision(row) for row in weights])


class _Curves:
    """The detections of all pictures in the order of their scores, class by class, ready to be weighted many times.

    Only the places where an object was found matter: between them precision falls, and recall stands still. So
    what is left of a class ends with the last object that was found.
    """

    def __init__(self, observations: Sequence[Matches], steps: int) -> None:
        counts = np.array([len(each.scores) for each in observations], np.int64)
        self._object_picture = np.repeat(np.arange(len(observations)), [len(each.objects) for each in observations])
        nothing: NDArray[np.int64] = np.zeros(0, np.int64)
        present, self._object_class = np.unique(
            np.concatenate([nothing, *(each.objects for each in observations)]), return_inverse=True
        )
        self._class_count = len(present)
        labels = np.concatenate([nothing, *(each.labels for each in observations)])
        scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in observations)])
        order = np.lexsort((-scores, labels))  # stable: of equal scores, the earlier picture's is first
        order = order[np.isin(labels[order], present)]
        found = _joined([each.found for each in observations], steps)[:, order]
        ignored = _joined([each.ignored for each in observations], steps)[:, order]
        classes = np.searchsorted(present, labels[order])
        kept = _until_last(np.asarray(found.any(axis=0)), classes, self._class_count)
        found, ignored, classes = found[:, kept], ignored[:, kept], classes[kept]
        self._picture = np.repeat(np.arange(len(observations)), counts)[order[kept]]
        starts = np.searchsorted(classes, np.arange(self._class_count))

        step, self._place = np.nonzero(found)  # by step, then by class, then by score
        its_class = classes[self._place]
        self._class = its_class
        self._start = starts[its_class]
        self._curve = step * self._class_count + its_class
        self._first = np.searchsorted(self._curve, self._curve)
        self._curves = steps * self._class_count
        self._found_picture = self._picture[self._place]
        # Ignored detections lie in one row, step after step; a place's number of them is a difference in it.
        ignored_step, ignored_place = np.nonzero(ignored)
        self._ignored_picture = self._picture[ignored_place]
        row = ignored_step * len(classes) + ignored_place
        self._ignored_until = np.searchsorted(row, step * len(classes) + self._place)
        self._ignored_from = np.searchsorted(row, step * len(classes) + self._start)

    def mean_precision(self, weights: NDArray[np.int64]) -> float:
        """The mean over all classes with objects when each picture counts ``weights [P]`` times."""
        objects = np.bincount(self._object_class, weights[self._object_picture], self._class_count)
        known = objects > 0
        if not known.any():
            return float("nan")
        found = _since(np.cumsum(weights[self._found_picture]), self._first)
        detections = _summed(weights[self._picture])
        counted = detections[self._place + 1] - detections[self._start]
        if len(self._ignored_picture):
            ignored = _summed(weights[self._ignored_picture])
            counted -= ignored[self._ignored_until] - ignored[self._ignored_from]
        best = self._best_from_here_on(found / (counted + _SMALLEST))
        reached = _recalls_reached(found / np.maximum(objects, 1.0)[self._class])
        new = np.diff(reached, prepend=0)
        first = self._first == np.arange(len(new))
        new[first] = reached[first]
        total = np.bincount(self._curve, best * new, self._curves).reshape(-1, self._class_count)
        return float(total[:, known].mean() / len(_RECALLS))

    def _best_from_here_on(self, precision: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest precision at this place of the curve or later; the curves are kept apart by an offset."""
        offset = 2.0 * (self._curves - self._curve)
        best: NDArray[np.float64] = np.maximum.accumulate((precision + offset)[::-1])[::-1] - offset
        return best


def _joined(parts: Sequence[NDArray[np.bool_]], steps: int) -> NDArray[np.bool_]:
    return np.concatenate([np.zeros((steps, 0), np.bool_), *parts], axis=1)


def _until_last(found: NDArray[np.bool_], classes: NDArray[np.intp], class_count: int) -> NDArray[np.intp]:
    """The places of each class up to the last one that ``found``."""
    last = np.full(class_count, -1, np.intp)
    places = np.flatnonzero(found)
    last[classes[places]] = places  # ascending, so the last one stays
    return np.flatnonzero(np.arange(len(classes)) <= last[classes])


def _summed(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of the first 0, 1 .. n values."""
    sums: NDArray[np.int64] = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _since(sums: NDArray[np.int64], first: NDArray[np.intp]) -> NDArray[np.int64]:
    """Running sums that begin anew at the places ``first``."""
    result: NDArray[np.int64] = sums - np.concatenate([np.zeros(1, np.int64), sums])[first]
    return result


def _recalls_reached(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the 101 points each recall reaches: what ``searchsorted`` on them would say, in a third of its time.

    The points are not exactly hundredths (0.35 is 0.35000000000000003), so the guess is corrected by comparing.
    """
    guess = np.minimum((recall * 100).astype(np.int64), 100)
    guess += np.append(_RECALLS, np.inf)[guess + 1] <= recall
    guess -= _RECALLS[guess] > recall
    return guess + 1
