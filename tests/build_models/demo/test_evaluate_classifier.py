from __future__ import annotations

from itertools import chain

import numpy as np

from agent.vision.resize import Placement
from build_models.demo.crops import LABELS, crops_of
from build_models.demo.evaluate import HELD_OUT_SEED
from build_models.demo.evaluate_classifier import confusion_table, evaluate, of_bundle, table_text


def test_a_classifier_that_knows_the_truth_is_perfect_and_has_no_mistakes_to_show() -> None:
    result = evaluate(_Oracle(label_shift=0), pictures=12)
    assert result.top1 == 1.0
    assert result.mistakes_bgr is None
    assert result.sheet_bgr.shape == (4 * 118, 10 * 98, 3)
    assert "1.000" in table_text(confusion_table("all right", result.confusion))


def test_a_classifier_that_confuses_all_classes_is_never_right() -> None:
    result = evaluate(_Oracle(label_shift=1), pictures=12)
    assert result.top1 == 0.0
    assert result.mistakes_bgr is not None
    np.testing.assert_array_equal(np.diag(np.roll(result.confusion, -1, axis=1)), result.confusion.sum(axis=1))


def test_the_table_says_what_was_taken_for_what() -> None:
    confusion = np.zeros((6, 6), np.int64)
    confusion[1, 1], confusion[1, 4], confusion[3, 3] = 3, 1, 4
    table = confusion_table("title", confusion)
    assert table.columns[:4] == ("class", "crops", "top-1", "as nothing")
    assert table.rows[0] == ("all", "8", "0.875", *[""] * 6)
    assert table.rows[1] == ("nothing", "0", "-", *["0"] * 6)
    assert table.rows[2] == ("circle", "4", "0.750", "0", "3", "0", "0", "1", "0")
    assert [row[0] for row in table.rows] == ["all", *LABELS]


def test_held_out_crops_show_every_class_about_as_often() -> None:
    labels = [crop.label for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 200) for crop in crops_of(seed)]
    assert np.bincount(labels, minlength=len(LABELS)).min() > 0.12 * len(labels)


def test_the_bundles_evaluation_has_a_table_for_each_file_and_the_sheets_of_one() -> None:
    evaluation = of_bundle({"cpu-int8": _blind, "cpu-fp32": _blind}, pictures=4)
    names = [table.title.split(":")[0] for table in evaluation.tables]
    assert names == ["cpu-int8", "cpu-fp32"]
    nothing = evaluation.tables[0].rows[1]
    assert nothing[:3] == ("nothing", "4", "1.000")
    assert all(row[2] == "0.000" for row in evaluation.tables[0].rows[2:] if row[1] != "0")
    assert len(evaluation.sheets) == 2
    assert all(sheet.data[8:12] == b"WEBP" for sheet in evaluation.sheets)


class _Oracle:
    """Answers the held-out crops in their order with their truth, classes moved on by ``label_shift``."""

    def __init__(self, label_shift: int) -> None:
        self._label_shift = label_shift
        self._crops = chain.from_iterable(map(crops_of, range(HELD_OUT_SEED, HELD_OUT_SEED + 1000)))

    def __call__(self, image_bgr: np.ndarray) -> tuple[int, float]:
        crop = next(self._crops)
        np.testing.assert_array_equal(crop.image_bgr, image_bgr)
        return (crop.label + self._label_shift) % len(LABELS), 0.9


def _blind(image_bgr: np.ndarray) -> tuple[dict[str, np.ndarray], Placement]:
    """A file that sees nothing."""
    height, width, _ = image_bgr.shape
    return {"scores": np.array([[0.9, 0.1, 0, 0, 0, 0]], np.float32)}, Placement(
        (64 / width, 64 / height), (0.0, 0.0), (width, height), (64, 64)
    )
