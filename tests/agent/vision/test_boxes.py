from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.vision.boxes import areas, iou_matrix, match_one_to_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

sides = st.integers(-5, 60).map(float)
boxes = st.lists(st.tuples(sides, sides, sides, sides), max_size=8)
affinities = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
)


def array(rows: Sequence[tuple[float, ...]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def naive_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    def area(box: tuple[float, ...]) -> float:
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    overlap = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - overlap
    return overlap / union if union > 0 else 0.0


@given(boxes, boxes)
def test_overlap_is_what_the_definition_says(a: list[tuple[float, ...]], b: list[tuple[float, ...]]) -> None:
    found = iou_matrix(array(a), array(b))
    assert found.shape == (len(a), len(b))
    assert found.dtype == np.float32
    expected = np.array([[naive_iou(one, other) for other in b] for one in a], np.float32).reshape(len(a), len(b))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_box_overlaps_itself_fully_and_an_empty_one_nothing() -> None:
    rows = array([(0, 0, 10, 10), (5, 0, 15, 10), (3, 3, 3, 8), (8, 8, 2, 2)])
    np.testing.assert_allclose(iou_matrix(rows, rows)[0], [1, 1 / 3, 0, 0])
    np.testing.assert_array_equal(areas(rows), [100, 100, 0, 0])


@given(affinities, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_pairs_are_one_to_one_best_first_and_leave_no_pair_that_would_do(
    affinity: NDArray[np.float32], least: float
) -> None:
    pairs = match_one_to_one(affinity, least)
    rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
    assert len(rows) == len(columns) == len(pairs)
    worth = [float(affinity[pair]) for pair in pairs]
    assert worth == sorted(worth, reverse=True)
    assert all(value >= least for value in worth)
    for row, column in np.argwhere(affinity >= least).tolist():
        rivals = [float(affinity[pair]) for pair in pairs if pair[0] == row or pair[1] == column]
        assert max(rivals, default=-1.0) >= affinity[row, column], "a pair is left only for a better one"
