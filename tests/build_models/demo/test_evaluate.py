from __future__ import annotations

import numpy as np

from agent.demo.scenes import LABELS, random_picture
from agent.vision.detections import Detections
from agent.vision.resize import Placement
from build_models.demo.average_precision import mean_precision
from build_models.demo.evaluate import HELD_OUT_SEED, PICTURES, evaluate, of_bundle, table_text


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


def test_at_least_three_in_ten_held_out_objects_are_small() -> None:
    boxes = [random_picture(HELD_OUT_SEED + number)[1].boxes_xyxy for number in range(PICTURES)]
    sides = np.concatenate([(xyxy[:, 2:] - xyxy[:, :2]).max(axis=1) for xyxy in boxes if len(xyxy)])
    assert np.mean(sides < 24) >= 0.30


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


def test_the_bundles_evaluation_has_a_table_for_each_file_and_one_sheet() -> None:
    evaluation = of_bundle({"cpu-int8": _blind, "cpu-fp32": _blind}, pictures=4)
    assert [table.title for table in evaluation.tables] == ["cpu-int8: mAP50 0.000", "cpu-fp32: mAP50 0.000"]
    table = evaluation.tables[0]
    assert table.columns == ("class", "all", "<24 px", "24-48 px", ">=48 px")
    assert [row[0] for row in table.rows] == ["all", *LABELS, "objects"]
    objects = [int(count) for count in table.rows[-1][1:]]
    assert objects[0] == sum(objects[1:]) > 0
    assert len(evaluation.sheets) == 1
    assert evaluation.sheets[0].data[8:12] == b"WEBP"


def _blind(image_bgr: np.ndarray) -> tuple[dict[str, np.ndarray], Placement]:
    """A file that finds nothing."""
    height, width, _ = image_bgr.shape
    nothing = {"boxes": np.zeros((1, 3, 4), np.float32), "scores": np.zeros((1, 3), np.float32)}
    return {**nothing, "labels": np.zeros((1, 3), np.int64)}, Placement(
        (1.0, 1.0), (0.0, 0.0), (width, height), (width, height)
    )
