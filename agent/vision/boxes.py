"""Box arithmetic on ``[N, 4]`` float arrays, xyxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def iou_matrix(a_xyxy: NDArray[np.float32], b_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair: ``[N, 4]`` and ``[M, 4]`` give float32 ``[N, M]``; 0 for empty boxes."""
    sides = np.minimum(a_xyxy[:, None, 2:], b_xyxy[:, 2:])
    sides -= np.maximum(a_xyxy[:, None, :2], b_xyxy[:, :2])
    np.maximum(sides, 0, out=sides)
    intersection: NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    union = areas(a_xyxy)[:, None] + areas(b_xyxy) - intersection
    # Where the union is empty the intersection is 0 already.
    np.divide(intersection, union, out=intersection, where=union > 0)
    return intersection


def areas(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Areas ``[N]``; a box with a negative side has area 0."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    result: NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return result


def match_one_to_one(affinity: NDArray[np.float32], least: float) -> list[tuple[int, int]]:
    """Greedy one-to-one pairs ``(row, column)`` of an affinity matrix, best first, each at least ``least``."""
    rows, columns = np.nonzero(affinity >= least)
    order = np.argsort(-affinity[rows, columns], kind="stable")
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs
