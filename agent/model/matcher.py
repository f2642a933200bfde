"""The one matcher: do two runs of a model say the same? Used by verification, golden replay and tests.

Ties reorder a sorted top-K, so detections are paired by class, score and box, never element by element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.vision.boxes import iou_matrix, match_one_to_one

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.model.manifest import Task, Tolerances
    from agent.vision.detections import Detections


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict, one sentence of reason, and how many results were compared."""

    ok: bool
    reason: str
    compared: int


def compare_outputs(
    task: Task,
    expected: Mapping[str, NDArray[Any]],
    actual: Mapping[str, NDArray[Any]],
    tolerances: Tolerances,
) -> Comparison:
    """Compare canonical outputs (shapes as in ``agent/vision/decode.py``); raises ValueError for an unknown task."""
    for name, array in expected.items():
        if name not in actual or actual[name].shape != array.shape:
            came = list(actual[name].shape) if name in actual else "nothing"
            return Comparison(False, f"output {name}: expected shape {list(array.shape)}, got {came}", 0)
    for name, array in actual.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return Comparison(False, f"output {name} has values that are not finite", 0)
    if task == "detect":
        return _compare_detections(expected, actual, tolerances)
    if task == "classify":
        difference = float(np.abs(expected["scores"] - actual["scores"]).max())
        ok = difference <= tolerances.score
        return Comparison(ok, f"scores differ by up to {difference:.2g} (limit {tolerances.score:g})", 1)
    raise ValueError(f"expected task detect or classify, got {task!r}")


def f1_of_matched_boxes(expected: Detections, actual: Detections, least_iou: float = 0.5) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of ``actual`` against ``expected``, class by class."""
    affinity = iou_matrix(expected.boxes_xyxy, actual.boxes_xyxy)
    affinity[expected.labels[:, None] != actual.labels[None, :]] = 0
    matched = len(match_one_to_one(affinity, least_iou))
    return matched, len(actual) - matched, len(expected) - matched


def _compare_detections(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]], tolerances: Tolerances
) -> Comparison:
    """Pair every detection that is safely above the floor, both ways."""
    # Below the K-th score of either side, the other side's detection may have been cut off; and a score that
    # lies within the tolerance of the floor may have its partner on the other side of it.
    last_kept = max(float(expected["scores"].min()), float(actual["scores"].min()))
    floor = max(tolerances.score_floor, last_kept)
    for first, second, who in ((expected, actual, "expected"), (actual, expected, "unexpected")):
        affinity = _affinity(first, second, tolerances)
        sure = np.flatnonzero(first["scores"][0] >= floor + tolerances.score)
        paired = {row for row, _ in match_one_to_one(affinity[sure], 0.0)}
        alone = [int(sure[row]) for row in range(len(sure)) if row not in paired]
        if alone:
            index = alone[0]
            box = ", ".join(f"{side:.2f}" for side in first["boxes"][0, index].tolist())
            return Comparison(
                False,
                f"{len(alone)} of {len(sure)} {who} detections have no partner within {tolerances.box_px:g} px and "
                f"{tolerances.score:g} of score, such as class {int(first['labels'][0, index])} with score "
                f"{float(first['scores'][0, index]):.3f} at [{box}]",
                len(sure),
            )
    count = int((expected["scores"][0] >= floor + tolerances.score).sum())
    return Comparison(True, f"{count} detections agree within {tolerances.box_px:g} px and {tolerances.score:g}", count)


def _affinity(
    first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]], tolerances: Tolerances
) -> NDArray[np.float32]:
    """``[K, K]``: 1 for equal detections, down to 0 at the tolerance, -1 where it is exceeded or the class differs."""
    box_px = np.abs(first["boxes"][0][:, None, :] - second["boxes"][0][None, :, :]).max(axis=2) / tolerances.box_px
    score = np.abs(first["scores"][0][:, None] - second["scores"][0][None, :]) / tolerances.score
    worst = np.maximum(box_px, score).astype(np.float32)
    same_class = first["labels"][0][:, None] == second["labels"][0][None, :]
    affinity: NDArray[np.float32] = np.where(same_class & (worst <= 1), 1 - worst, -1).astype(np.float32)
    return affinity
