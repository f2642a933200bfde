from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision.boxes import iou_matrix
from agent.vision.decode import Thresholds, decode_class, decode_detections, suppress
from agent.vision.resize import Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WHOLE = Placement((1.0, 1.0), (0.0, 0.0), (100, 80), (100, 80))
Row = tuple[tuple[float, float, float, float], float, int]

sides = st.integers(0, 30).map(float)
rows = st.lists(
    st.tuples(
        st.tuples(sides, sides, sides, sides).map(lambda b: (b[0], b[1], b[0] + b[2] + 1, b[1] + b[3] + 1)),
        st.integers(0, 100).map(lambda score: score / 100),
        st.integers(0, 2),
    ),
    max_size=12,
).map(lambda found: sorted(found, key=lambda row: -row[1]))


def outputs(found: Sequence[Row]) -> dict[str, NDArray[Any]]:
    return {
        "boxes": np.array([[row[0] for row in found]], np.float32).reshape(1, -1, 4),
        "scores": np.array([[row[1] for row in found]], np.float32),
        "labels": np.array([[row[2] for row in found]], np.int64),
    }


def decode(
    found: Sequence[Row], score: float = 0.3, iou: float = 0.5, most: int = 100, placement: Placement = WHOLE
) -> list[Row]:
    detections = decode_detections(outputs(found), placement, Thresholds(score, iou, most))
    return [
        ((box[0], box[1], box[2], box[3]), score, label)
        for box, score, label in zip(
            detections.boxes_xyxy.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
        )
    ]


def naive_suppress(boxes: NDArray[np.float32], labels: NDArray[np.int64], iou: float) -> list[int]:
    kept: list[int] = []
    overlaps = iou_matrix(boxes, boxes)
    for index in range(len(boxes)):
        if not any(labels[index] == labels[better] and overlaps[better, index] > iou for better in kept):
            kept.append(index)
    return kept


@given(rows, st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
def test_suppression_is_the_greedy_one_class_by_class(found: list[Row], iou: float) -> None:
    packed = outputs(found)
    boxes, labels = packed["boxes"][0], packed["labels"][0]
    assert suppress(boxes, labels, iou).tolist() == naive_suppress(boxes, labels, iou)


@given(rows, st.sampled_from([0.0, 0.3, 0.7]), st.sampled_from([0.3, 0.5]), st.integers(1, 5))
def test_decoding_is_threshold_suppression_and_cut(found: list[Row], score: float, iou: float, most: int) -> None:
    above = [row for row in found if np.float32(row[1]) >= score]
    packed = outputs(above)
    kept = naive_suppress(packed["boxes"][0], packed["labels"][0], iou)[:most]
    result = decode(found, score, iou, most)
    assert [(box, label) for box, _, label in result] == [(above[i][0], above[i][2]) for i in kept]
    assert [row[1] for row in result] == pytest.approx([above[i][1] for i in kept])


BOX = (10.0, 10.0, 30.0, 30.0)
SHIFTED = (12.0, 10.0, 32.0, 30.0)
FAR = (50.0, 10.0, 70.0, 30.0)


def test_a_worse_box_of_the_same_class_goes_one_of_another_stays() -> None:
    assert [row[1] for row in decode([(BOX, 0.9, 0), (SHIFTED, 0.8, 0), (FAR, 0.7, 0)])] == pytest.approx([0.9, 0.7])
    assert len(decode([(BOX, 0.9, 0), (SHIFTED, 0.8, 1)])) == 2


def test_a_suppressed_box_suppresses_none() -> None:
    # Each overlaps its neighbour by a half or more, the first and the third only by a third.
    chain = [((10.0 * n, 0.0, 10.0 * n + 30, 20.0), 0.9 - n / 10, 0) for n in range(3)]
    assert [row[1] for row in decode(chain, iou=0.4)] == pytest.approx([0.9, 0.7])


def test_the_cut_comes_after_suppression() -> None:
    found = [(BOX, 0.9, 0), (SHIFTED, 0.8, 0), (FAR, 0.7, 0)]
    assert [row[0] for row in decode(found, most=2)] == [BOX, FAR]


def test_nothing_above_the_threshold_is_nothing_at_all() -> None:
    assert decode([(BOX, 0.29, 0)]) == []
    assert decode([]) == []
    assert len(decode([(BOX, 0.31, 0)])) == 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e30, -1e30])
def test_a_box_that_is_not_finite_or_beyond_all_reason_is_left_out(number: float) -> None:
    found = [((10.0, number, 30.0, 30.0), 0.9, 0), (FAR, 0.8, 1), ((number,) * 4, 0.7, 0)]
    assert [row[0] for row in decode(found)] == [FAR]
    assert decode(found[:1]) == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_left_out(number: float) -> None:
    assert [row[0] for row in decode([(BOX, number, 0), (FAR, 0.8, 1)])] == [FAR]


def test_boxes_come_back_clipped_to_the_frame_and_those_beyond_it_not_at_all() -> None:
    # A letterbox: the frame of 100 x 80 lies at half its size 10 pixels below the input's upper edge.
    placement = Placement((0.5, 0.5), (0.0, 10.0), (100, 80), (50, 60))
    found: list[Row] = [
        ((10.0, 0.0, 30.0, 30.0), 0.9, 0),
        ((10.0, 1.0, 30.0, 9.0), 0.8, 0),  # within the upper border
        ((-20.0, 20.0, -1.0, 30.0), 0.8, 0),  # left of everything
        ((40.0, 20.0, 70.0, 70.0), 0.7, 1),
        ((20.0, 20.0, 20.0, 30.0), 0.6, 1),  # without width
    ]
    assert [row[0] for row in decode(found, placement=placement)] == [(20, 0, 60, 40), (80, 20, 100, 80)]
    assert [row[0] for row in decode(found, most=2, placement=placement)] == [(20, 0, 60, 40), (80, 20, 100, 80)]


def test_the_outputs_are_only_read_and_not_kept() -> None:
    packed = outputs([(BOX, 0.9, 0), (FAR, 0.8, 1)])
    for array in packed.values():
        array.flags.writeable = False
    detections = decode_detections(packed, WHOLE, Thresholds(0.3, 0.5, 10))
    for name, column in (
        ("boxes", detections.boxes_xyxy), ("scores", detections.scores), ("labels", detections.labels)
    ):  # fmt: skip
        assert not np.shares_memory(packed[name], column)


def test_the_class_of_a_picture_is_its_best() -> None:
    best, score = decode_class({"scores": np.array([[0.1, 0.7, 0.2]], np.float32)})
    assert best == 1
    assert score == pytest.approx(0.7)
    assert math.isnan(decode_class({"scores": np.array([[0.9, math.nan]], np.float32)})[1])
