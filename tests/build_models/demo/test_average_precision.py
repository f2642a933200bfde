from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision.detections import Detections
from build_models.demo.average_precision import average_precision, mean_precision, precision_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
SMALL: Box = (0, 0, 10, 10)
OTHER_SMALL: Box = (50, 50, 60, 60)
LARGE: Box = (100, 100, 200, 160)


@dataclass(frozen=True)
class Truth:
    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]


def truth(*rows: tuple[Box, int]) -> Truth:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    return Truth(boxes, np.array([label for _, label in rows], np.int64))


def found(*rows: tuple[Box, float, int]) -> Detections:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], np.float32)
    return Detections(boxes, scores, np.array([label for _, _, label in rows], np.int64))


def map50(detections: Sequence[Detections], truths: Sequence[Truth], size: str = "all") -> float:
    return mean_precision(precision_table(detections, truths, ["a", "b"]), size)


@pytest.mark.parametrize(
    ("correct", "objects", "expected", "why"),
    [
        ([True, True], 2, 1.0, "all found, nothing else"),
        ([True], 2, 0.5, "half found"),
        ([False, True], 1, 0.5, "a wrong one first halves the precision"),
        ([True, False, True], 2, 0.5 * 1 + 0.5 * 2 / 3, "the second object costs one wrong detection"),
        ([False, True, True], 2, 0.5 * 2 / 3 + 0.5 * 2 / 3, "the envelope lifts 1/2 to the later 2/3"),
        ([True, False, False], 1, 1.0, "wrong ones after the last object cost nothing"),
        ([False, False], 3, 0.0, "nothing found"),
        ([], 3, 0.0, "no detections"),
    ],
)
def test_average_precision_is_the_area_worked_out_by_hand(
    correct: list[bool], objects: int, expected: float, why: str
) -> None:
    scores = np.linspace(0.9, 0.1, len(correct), dtype=np.float32)
    shuffled = np.random.default_rng(0).permutation(len(correct))
    ap = average_precision(scores[shuffled], np.array(correct, bool)[shuffled], objects)
    assert ap == pytest.approx(expected), why


def test_the_mean_is_taken_over_the_classes_that_have_objects() -> None:
    truths = [truth((SMALL, 0), (LARGE, 1))]
    assert map50([found((SMALL, 0.9, 0), (LARGE, 0.9, 1))], truths) == 1.0
    assert map50([found((SMALL, 0.9, 0))], truths) == 0.5
    assert map50([found((SMALL, 0.9, 0))], [truth((SMALL, 0))]) == 1.0


def test_a_box_of_the_wrong_class_or_place_finds_nothing() -> None:
    truths = [truth((SMALL, 0))]
    assert map50([found((SMALL, 0.9, 1))], truths) == 0.0
    assert map50([found((OTHER_SMALL, 0.9, 0))], truths) == 0.0
    assert map50([found()], truths) == 0.0


def test_detections_of_one_picture_do_not_find_objects_of_another() -> None:
    truths = [truth((SMALL, 0)), truth((OTHER_SMALL, 0))]
    right, wrong = found((SMALL, 0.9, 0)), found((OTHER_SMALL, 0.9, 0))
    assert map50([right, wrong], truths) == 1.0
    assert map50([wrong, right], truths) == 0.0


def test_the_second_detection_of_an_object_is_wrong() -> None:
    truths = [truth((SMALL, 0), (OTHER_SMALL, 0))]
    twice = found((SMALL, 0.9, 0), (SMALL, 0.8, 0), (OTHER_SMALL, 0.7, 0))
    assert map50([twice], truths) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_overlap_decides_at_one_half() -> None:
    truths = [truth(((0, 0, 10, 10), 0))]
    assert map50([found(((0, 0, 10, 5.01), 0.9, 0))], truths) == 1.0
    assert map50([found(((0, 0, 10, 4.99), 0.9, 0))], truths) == 0.0


def test_a_size_leaves_objects_and_detections_of_other_sizes_out() -> None:
    truths = [truth((SMALL, 0), (LARGE, 0))]
    only_large = [found((LARGE, 0.9, 0))]
    assert map50(only_large, truths, "<24") == 0.0
    assert map50(only_large, truths, ">=48") == 1.0
    with_stray = [found((OTHER_SMALL, 0.95, 0), (LARGE, 0.9, 0))]
    assert map50(with_stray, truths, ">=48") == 1.0, "a stray small box is no error among the large"
    assert map50(with_stray, truths, "all") == pytest.approx(0.25)


def test_a_table_has_a_row_for_every_class_and_size() -> None:
    table = precision_table([found()], [truth((SMALL, 0), (LARGE, 1))], ["a", "b"])
    assert [(row.label, row.size, row.objects, row.ap) for row in table if row.size != "24-48"] == [
        ("all", "all", 2, 0.0),
        ("a", "all", 1, 0.0),
        ("b", "all", 1, 0.0),
        ("all", "<24", 1, 0.0),
        ("a", "<24", 1, 0.0),
        ("b", "<24", 0, None),
        ("all", ">=48", 1, 0.0),
        ("a", ">=48", 0, None),
        ("b", ">=48", 1, 0.0),
    ]
    assert {row.ap for row in table if row.size == "24-48"} == {None}


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 10))
def test_average_precision_lies_between_recall_times_precision_and_recall(correct: list[bool], missed: int) -> None:
    hits = sum(correct)
    objects = max(1, hits + missed)
    scores = np.linspace(1, 0, len(correct), dtype=np.float32)
    ap = average_precision(scores, np.array(correct, bool), objects)
    recall = hits / objects
    assert recall * hits / max(1, len(correct)) - 1e-9 <= ap <= recall + 1e-9
