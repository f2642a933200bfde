"""Which detections of a picture found an object: the matching of the COCO evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.vision.detections import Detections
    from build_models.data.sample import BoxesTruth

MOST_PER_CLASS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """One picture, judged.

    Attributes:
        scores: float32 ``[D]``, within a class best first.
        labels: int64 ``[D]``, the detections' class ids.
        found: bool ``[T, D]``: found an object of its own, at each least overlap.
        ignored: bool ``[T, D]``: does not count, because it found something that does not.
        objects: int64 ``[G]``: class ids of the objects that count.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    found: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


def match_boxes(detections: Detections, truth: BoxesTruth, least_ious: NDArray[np.float64]) -> Matches:
    """Match as ``evaluateImg`` of pycocotools does, for objects of any size.

    Class by class, the `MOST_PER_CLASS` best detections choose in order of their scores: each the free object of the
    largest overlap, or, where none overlaps enough, an ignored one, which any number may choose. The overlap with
    an ignored object is the share of the detection that lies in it.

    Args:
        detections: of the picture, in its pixels.
        truth: its objects.
        least_ious: ``[T]``, ascending.
    """
    scores, labels = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    found, ignored = ([np.zeros((len(least_ious), 0), np.bool_)] for _ in range(2))
    for label in np.unique(detections.labels).tolist():
        mine = np.flatnonzero(detections.labels == label)
        mine = mine[np.argsort(-detections.scores[mine], kind="stable")[:MOST_PER_CLASS]]
        its = np.flatnonzero(truth.labels == label)
        ignore = truth.ignore[its]
        overlap = _overlaps(detections.boxes_xyxy[mine], truth.boxes_xyxy[its], ignore)
        matched = _choose(overlap, ignore, least_ious)
        hits_ignored = np.append(ignore, np.False_)[matched]
        scores.append(detections.scores[mine])
        labels.append(np.full(len(mine), label, np.int64))
        found.append((matched >= 0) & ~hits_ignored)
        ignored.append(hits_ignored)
    return Matches(
        np.concatenate(scores),
        np.concatenate(labels),
        np.concatenate(found, axis=1),
        np.concatenate(ignored, axis=1),
        truth.labels[~truth.ignore],
    )


def _choose(
    overlap: NDArray[np.float64], ignore: NDArray[np.bool_], least_ious: NDArray[np.float64]
) -> NDArray[np.intp]:
    """The object ``[T, D]`` of each detection at each least overlap, or -1; of equal overlaps the last wins."""
    matched = np.full((len(least_ious), len(overlap)), -1, np.intp)
    if not len(ignore):
        return matched
    order = np.argsort(ignore, kind="stable")[::-1]  # reversed, because argmax takes the first of equals
    overlap, ignore = overlap[:, order], ignore[order]
    free = np.ones((len(least_ious), len(ignore)), np.bool_)
    rows = np.arange(len(least_ious))
    for index in np.flatnonzero(overlap.max(axis=1) >= least_ious[0]).tolist():
        enough = free & (overlap[index] >= least_ious[:, None])
        worth = np.where(enough, overlap[index] + 2.0 * ~ignore, -1.0)
        best = worth.argmax(axis=1)
        chosen = worth[rows, best] >= 0
        matched[chosen, index] = order[best[chosen]]
        taken = chosen & ~ignore[best]
        free[rows[taken], best[taken]] = False
    return matched


def _overlaps(
    boxes_xyxy: NDArray[np.float32], truth_xyxy: NDArray[np.float32], ignore: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Intersection over union ``[D, G]`` in float64; over the detection's own area where the object is ignored."""
    boxes, truths = boxes_xyxy.astype(np.float64), truth_xyxy.astype(np.float64)
    sides = np.minimum(boxes[:, None, 2:], truths[:, 2:]) - np.maximum(boxes[:, None, :2], truths[:, :2])
    intersection = np.maximum(sides, 0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    truth_area = (truths[:, 2:] - truths[:, :2]).prod(axis=1)
    union = np.where(ignore, area, area + truth_area - intersection)
    result: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return result
