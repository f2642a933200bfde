from __future__ import annotations

import numpy as np
import pytest

from agent.demo.scenes import random_picture
from agent.vision.resize import Placement
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.evaluate_segmenter import Result, evaluate, of_bundle, overlap_table, table_text
from build_models.demo.masks import BACKGROUND, LABELS, class_mask


def test_a_segmenter_that_knows_the_truth_is_perfect() -> None:
    result = evaluate(_Oracle(shift=0), pictures=5)
    assert result.mean_iou == 1.0
    assert np.trace(result.confusion) == result.confusion.sum() == 5 * 320 * 192
    assert result.sheet_bgr.shape == (3 * 384, 2 * 1280, 3)
    assert "1.000" in table_text(overlap_table("all right", result))


def test_a_segmenter_that_confuses_all_classes_overlaps_nowhere() -> None:
    assert evaluate(_Oracle(shift=1), pictures=5).mean_iou == 0.0


def test_overlap_is_intersection_over_union_over_all_pixels() -> None:
    """Half of ten circle pixels found, five of background beside them taken for circle: 5 / (10 + 5)."""
    confusion = np.zeros((6, 6), np.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1], confusion[1, 0] = 85, 5, 5, 5
    result = Result(confusion, np.zeros((1, 1, 3), np.uint8))
    assert result.iou[:2] == pytest.approx([85 / 95, 5 / 15])
    assert np.isnan(result.iou[2:]).all(), "what was not there and not found counts neither way"
    assert result.mean_iou == pytest.approx((85 / 95 + 5 / 15) / 2)


def test_shapes_as_one_overlap_whatever_they_are_taken_for() -> None:
    confusion = np.zeros((6, 6), np.int64)
    confusion[0, 0], confusion[0, 5], confusion[1, 4], confusion[2, 2], confusion[3, 0] = 80, 2, 6, 4, 8
    assert Result(confusion, np.zeros((1, 1, 3), np.uint8)).object_iou == (6 + 4) / (2 + 6 + 4 + 8)


def test_the_table_says_what_was_taken_for_what() -> None:
    confusion = np.zeros((6, 6), np.int64)
    confusion[0, 0], confusion[1, 1], confusion[1, 4] = 60, 30, 10
    table = overlap_table("title", Result(confusion, np.zeros((1, 1, 3), np.uint8)))
    assert table.columns[:4] == ("class", "IoU", "pixels", "as background")
    assert table.rows[0][:3] == ("mean", "0.583", "100")
    assert table.rows[2][:8] == ("circle", "0.750", "40", "0.0 %", "75.0 %", "0.0 %", "0.0 %", "25.0 %")
    assert [row[0] for row in table.rows] == ["mean", *LABELS]


def test_the_bundles_evaluation_has_a_table_for_each_file_and_the_sheet_of_one() -> None:
    evaluation = of_bundle({"cpu-int8": _blind, "cpu-fp32": _blind}, pictures=3)
    assert [table.title.split(":")[0] for table in evaluation.tables] == ["cpu-int8", "cpu-fp32"]
    background, *shapes = evaluation.tables[0].rows[1:]
    assert 0.5 < float(background[1]) < 1
    assert {row[1] for row in shapes} <= {"0.000", "-"}
    (sheet,) = evaluation.sheets
    assert sheet.data[8:12] == b"WEBP"


def test_a_mask_that_is_coarser_than_the_picture_is_laid_over_it() -> None:
    """Each mask pixel is a square of four: what the truth loses by that is all that may be missing."""
    (table,) = of_bundle({"coarse": _coarse_oracle}, pictures=3).tables
    assert 0.85 < float(table.title.rpartition(" ")[2]) < 1.0


class _Oracle:
    """Answers the held-out pictures in their order with their truth, classes moved on by ``shift``."""

    def __init__(self, shift: int) -> None:
        self._shift, self._seed = shift, HELD_OUT_SEED

    def __call__(self, image_bgr: np.ndarray) -> np.ndarray:
        expected, truth = random_picture(self._seed)
        self._seed += 1
        np.testing.assert_array_equal(expected, image_bgr)
        return (class_mask(truth) + self._shift) % len(LABELS)


def _placement(image_bgr: np.ndarray) -> Placement:
    height, width, _ = image_bgr.shape
    return Placement((1.0, 1.0), (0.0, 0.0), (width, height), (width, height))


def _blind(image_bgr: np.ndarray) -> tuple[dict[str, np.ndarray], Placement]:
    """A file that sees only background."""
    return {"mask": np.full((1, 192, 320), BACKGROUND, np.uint8)}, _placement(image_bgr)


def _coarse_oracle(image_bgr: np.ndarray) -> tuple[dict[str, np.ndarray], Placement]:
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + 3)
    (truth,) = (truth for picture, truth in map(random_picture, seeds) if np.array_equal(picture, image_bgr))
    return {"mask": class_mask(truth)[None, ::2, ::2]}, _placement(image_bgr)
