"""From a model's canonical outputs to detections or a mask in frame pixels, or to the class of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.vision.boxes import iou_matrix
from agent.vision.detections import Detections
from agent.vision.mask import FrameMask, span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.vision.resize import Placement

_FAR_PX = 1e6  # no input is a hundredth of it wide; its square is an exact float32


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as a detection; scores and overlaps 0..1; ``labels``: the class ids that count, None for all."""

    score: float
    iou: float
    max_detections: int
    labels: frozenset[int] | None = None


def decode_detections(outputs: Mapping[str, NDArray[Any]], placement: Placement, thresholds: Thresholds) -> Detections:
    """Score threshold, class-aware non-maximum suppression, and back to the frame.

    Args:
        outputs: ``boxes`` float32 ``[1, K, 4]`` xyxy in input pixels, ``scores`` float32 ``[1, K]`` sorted
            descending, ``labels`` int64 ``[1, K]``. The arrays are only read.
        placement: where the frame lies in the input.
        thresholds: what to keep.

    Returns:
        At most ``max_detections``, boxes clipped to the frame. Left out are boxes of which nothing lies in the
        frame, and boxes and scores that are not finite (or so large that their area would not be).
    """
    scores = outputs["scores"][0].astype(np.float32, copy=False)
    wanted = (scores >= thresholds.score) & (scores < np.inf)
    if thresholds.labels is not None:
        wanted &= np.isin(outputs["labels"][0], list(thresholds.labels))
    chosen = np.flatnonzero(wanted)
    if not len(chosen):
        return Detections.empty()
    boxes = outputs["boxes"][0, chosen].astype(np.float32, copy=False)
    near = (np.abs(boxes) < _FAR_PX).all(axis=1)
    if not near.all():
        chosen, boxes = chosen[near], boxes[near]
    labels = outputs["labels"][0, chosen].astype(np.int64, copy=False)
    kept = suppress(boxes, labels, thresholds.iou)
    boxes = placement.to_frame(boxes[kept])
    visible = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[: thresholds.max_detections]
    kept = kept[visible]
    return Detections(boxes[visible], scores[chosen[kept]], labels[kept])


def suppress(boxes_xyxy: NDArray[np.float32], labels: NDArray[np.int64], iou: float) -> NDArray[np.intp]:
    """Greedy class-aware non-maximum suppression.

    Args:
        boxes_xyxy: ``[N, 4]``, best score first.
        labels: ``[N]``; only boxes of one class suppress each other.
        iou: a box that overlaps a better one by more than this goes.

    Returns:
        Indices of the boxes that stay, in their order.
    """
    keep = np.ones(len(labels), bool)
    if len(labels) < 2:
        return np.flatnonzero(keep)
    overlapping = np.triu(iou_matrix(boxes_xyxy, boxes_xyxy) > iou, 1)
    overlapping &= labels[:, None] == labels
    for index in np.flatnonzero(overlapping.any(axis=1)).tolist():
        if keep[index]:
            keep &= ~overlapping[index]
    return np.flatnonzero(keep)


def decode_class(outputs: Mapping[str, NDArray[Any]]) -> tuple[int, float]:
    """The best class id and its probability from ``scores`` float32 ``[1, C]``; NaN when one of them is NaN."""
    scores = outputs["scores"][0]
    best = int(np.argmax(scores))
    return best, float(scores[best])


def decode_mask(outputs: Mapping[str, NDArray[Any]], placement: Placement) -> FrameMask:
    """The part of a mask that shows the frame: a letterbox's border is cut off.

    Args:
        outputs: ``mask`` uint8 ``[1, h, w]``, class ids. It covers the whole input and may be coarser, such as an
            eighth of the input's size. The array is only read; ``confidence`` is not needed here.
        placement: where the frame lies in the input.
    """
    mask = outputs["mask"][0]
    (height, width), (scale_x, scale_y), (offset_x, offset_y) = mask.shape, placement.scale_xy, placement.offset_xy
    cell_w, cell_h = placement.input_wh[0] / width, placement.input_wh[1] / height
    columns = span(offset_x, placement.frame_wh[0] * scale_x, cell_w, width)
    rows = span(offset_y, placement.frame_wh[1] * scale_y, cell_h, height)
    origin_xy = ((columns.start * cell_w - offset_x) / scale_x, (rows.start * cell_h - offset_y) / scale_y)
    return FrameMask(mask[rows, columns].copy(), origin_xy, (cell_w / scale_x, cell_h / scale_y), placement.frame_wh)
