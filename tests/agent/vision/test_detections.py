from __future__ import annotations

import numpy as np
import pytest

from agent.vision.detections import Detections, name_of


def test_columns_of_one_length_are_detections() -> None:
    assert len(Detections(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros(2, np.int64))) == 2
    assert len(Detections.empty()) == 0


@pytest.mark.parametrize(
    ("boxes", "scores", "labels"), [((2, 4), 3, 2), ((2, 5), 2, 2), ((2, 4), 2, 1), ((4, 2), 2, 2)]
)
def test_columns_that_do_not_fit_together_are_refused_with_their_shapes(
    boxes: tuple[int, int], scores: int, labels: int
) -> None:
    with pytest.raises(ValueError, match=r"expected boxes \[N, 4\].*got \(\("):
        Detections(np.zeros(boxes, np.float32), np.zeros(scores, np.float32), np.zeros(labels, np.int64))


@pytest.mark.parametrize(("label", "name"), [(0, "cat"), (1, "dog"), (2, "class 2"), (-1, "class -1")])
def test_a_class_without_a_label_is_called_by_its_number(label: int, name: str) -> None:
    assert name_of(["cat", "dog"], label) == name
