"""The one matcher: do two runs of a model say the same? Used by verification, golden replay and tests.

Ties reorder a sorted top-K, so detections are paired by class, score and box, never element by element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.model.manifest import Task, Tolerances


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
    shapes = [{name: list(array.shape) for name, array in sorted(side.items())} for side in (expected, actual)]
    if shapes[0] != shapes[1]:
        return Comparison(False, f"expected outputs {shapes[0]}, got {shapes[1]}", 0)
    for side, who in ((expected, "expected"), (actual, "actual")):
        for name, array in side.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return Comparison(False, f"the {who} output {name} has values that are not finite", 0)
    if task == "detect":
        return _compare_detections(expected, actual, tolerances)
    if task == "classify":
        difference = float(np.abs(expected["scores"] - actual["scores"]).max())
        ok = difference <= tolerances.score
        return Comparison(ok, f"scores differ by up to {difference:.2g} (limit {tolerances.score:g})", 1)
    if task == "segment":
        return _compare_masks(expected, actual, tolerances)
    raise ValueError(f"expected task classify, detect or segment, got {task!r}")


def _compare_masks(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]], tolerances: Tolerances
) -> Comparison:
    """Pixel by pixel; so few may differ that only an object smaller than them could be missed.

    Confidences are bytes: they may differ by the tolerance for scores and by one level of rounding more, but for as
    many pixels as may differ in class.
    """
    pixels = expected["mask"].size
    limit = f"(limit {_percent(tolerances.mask)})"
    other = expected["mask"] != actual["mask"]
    share = float(other.mean())
    if share > tolerances.mask:
        was, is_ = (int(side["mask"][other][0]) for side in (expected, actual))
        reason = f"{_percent(share)} of the mask has another class {limit}, such as class {is_} in place of {was}"
        return Comparison(False, reason, pixels)
    if "confidence" in expected:
        levels = int(255 * tolerances.score) + 1
        difference = np.abs(expected["confidence"].astype(np.int16) - actual["confidence"].astype(np.int16))
        share_unsure = float((difference > levels).mean())
        if share_unsure > tolerances.mask:
            reason = f"{_percent(share_unsure)} of the confidences differ by more than {levels} of 255 {limit}"
            return Comparison(False, reason, pixels)
    return Comparison(True, f"{_percent(share)} of the mask has another class {limit}", pixels)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _compare_detections(
    expected: Mapping[str, NDArray[Any]], actual: Mapping[str, NDArray[Any]], tolerances: Tolerances
) -> Comparison:
    """Pair every detection that is safely above the floor, both ways."""
    # Below the K-th score of either side, the other side's detection may have been cut off; and a score that
    # lies within the tolerance of the floor may have its partner on the other side of it. If no score moved by more
    # than the tolerance, neither did the K-th best.
    lowest = [max(tolerances.score_floor, float(side["scores"].min())) for side in (expected, actual)]
    if abs(lowest[0] - lowest[1]) > tolerances.score:
        reason = f"the lowest kept score is {lowest[1]:.3f}, expected {lowest[0]:.3f} (limit {tolerances.score:g})"
        return Comparison(False, reason, 0)
    floor = max(lowest)
    for first, second, who in ((expected, actual, "expected"), (actual, expected, "unexpected")):
        sure = np.flatnonzero(first["scores"][0] >= floor + tolerances.score)
        alone = sure[_unpaired(_distance(first, second, tolerances)[sure])].tolist()
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


def _distance(
    first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]], tolerances: Tolerances
) -> NDArray[np.float32]:
    """``[K, K]``: 0 for equal detections, 1 at the tolerance, infinite where the class differs."""
    box_px = np.abs(first["boxes"][0][:, None, :] - second["boxes"][0][None, :, :]).max(axis=2) / tolerances.box_px
    score = np.abs(first["scores"][0][:, None] - second["scores"][0][None, :]) / tolerances.score
    same_class = first["labels"][0][:, None] == second["labels"][0][None, :]
    distance: NDArray[np.float32] = np.where(same_class, np.maximum(box_px, score), np.inf).astype(np.float32)
    return distance


def _unpaired(distance: NDArray[np.float32]) -> list[int]:
    """The rows that stay alone in a largest one-to-one pairing of rows and columns at most 1 apart.

    Neighbouring anchors see one object nearly alike, so taking the nearest partner first could leave a row without
    one that another pairing would give it. Hence augmenting paths: who is in the way is asked to move on.
    """
    row_of: dict[int, int] = {}

    def place(row: int, asked: set[int]) -> bool:
        for column in np.argsort(distance[row], kind="stable").tolist():
            if distance[row, column] > 1:
                return False
            if column not in asked:
                asked.add(column)
                if column not in row_of or place(row_of[column], asked):
                    row_of[column] = row
                    return True
        return False

    return [row for row in range(len(distance)) if not place(row, set())]
