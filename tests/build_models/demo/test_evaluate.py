from __future__ import annotations

import numpy as np

from agent.demo.scenes import random_picture
from agent.vision.detections import Detections
from build_models.demo.average_precision import mean_precision
from build_models.demo.evaluate import HELD_OUT_SEED, evaluate, table_text


def test_a_detector_that_knows_the_truth_is_perfect() -> None:
    table, sheet_bgr = evaluate(_Oracle(label_shift=0), pictures=12)
    assert mean_precision(table) == 1.0
    assert mean_precision(table, "<24") == 1.0
    assert sheet_bgr.dtype == np.uint8
    assert sheet_bgr.shape == (3 * 288, 4 * 480, 3)
    assert "1.000" in table_text(table)


def test_a_detector_that_confuses_all_classes_finds_nothing() -> None:
    table, _ = evaluate(_Oracle(label_shift=1), pictures=12)
    assert mean_precision(table) < 0.1


class _Oracle:
    """Answers the held-out pictures in their order with their truth, classes moved on by ``label_shift``."""

    def __init__(self, label_shift: int) -> None:
        self._label_shift = label_shift
        self._next_seed = HELD_OUT_SEED

    def __call__(self, image_bgr: np.ndarray) -> Detections:
        image, truth = random_picture(self._next_seed)
        np.testing.assert_array_equal(image, image_bgr)
        self._next_seed += 1
        scores = np.linspace(0.9, 0.5, len(truth.labels), dtype=np.float32)
        return Detections(truth.boxes_xyxy, scores, (truth.labels + self._label_shift) % 5)
