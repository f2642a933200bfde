"""Top-k, IoU and pixel accuracy; agreement with the float model; the table of measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.model.manifest import Defaults, InputSpec, Task
from agent.vision.resize import Placement, Resizer
from build_models.data.sample import BoxesTruth, ClassTruth, MaskTruth
from build_models.errors import RecipeError
from build_models.metrics.agreement import truth_of
from build_models.metrics.base import value
from build_models.metrics.iou import MeanIou, PixelAccuracy
from build_models.metrics.table import OF_TASK, make_measure, usual_measure
from build_models.metrics.top_k import TopK

HERE = Placement((1.0, 1.0), (0.0, 0.0), (4, 2), (4, 2))
LABELS = ["background", "road", "marking", "car", "tree", "sky"]


def mask_truth(rows: Any) -> MaskTruth:
    ids = np.array(rows, np.int16)
    return MaskTruth(lambda: ids, "")


def mask(rows: Any) -> dict[str, Any]:
    return {"mask": np.array([rows], np.uint8)}


def scores(*values: float) -> dict[str, Any]:
    return {"scores": np.array([values], np.float32)}


def test_the_right_class_must_be_among_the_best() -> None:
    outputs = scores(0.1, 0.4, 0.3, 0.2, 0.0, 0.0)
    right = [TopK(k).observe(outputs, ClassTruth(label), HERE) for k, label in ((1, 1), (1, 2), (2, 2), (5, 4), (5, 5))]
    assert right == [1, 0, 1, 1, 0]  # of the equal scores of 4 and 5 the lower id is better


def test_nan_is_never_right() -> None:
    assert TopK(5).observe(scores(float("nan"), 0.5), ClassTruth(1), HERE) == 0


def test_top_k_is_the_weighted_share_of_the_pictures_that_count() -> None:
    measure = TopK(1, frozenset({0, 2}))
    seen = [measure.observe(scores(0.6, 0.1, 0.3), ClassTruth(label), HERE) for label in (0, 1, 2)]
    assert value(measure, seen) == 0.5
    assert value(measure, seen, np.array([3, 9, 1])) == 0.75
    assert np.isnan(value(measure, seen, np.array([0, 9, 0])))


def test_iou_is_over_all_pictures_and_the_classes_that_the_truth_shows() -> None:
    measure = MeanIou(len(LABELS))
    first = measure.observe(mask([[0, 0, 1, 1], [0, 0, 1, 3]]), mask_truth([[0, 0, 1, 1], [0, 1, 1, 1]]), HERE)
    second = measure.observe(mask([[0, 0, 0, 0], [0, 0, 0, 0]]), mask_truth([[0, 0, 0, 0], [-1, -1, -1, -1]]), HERE)
    # Background: 3 + 4 right of 4 + 4 said, 3 + 4 true. Road: 3 right of 3 said, 5 true. Cars are not in the truth.
    assert value(measure, [first, second]) == pytest.approx((7 / 8 + 3 / 5) / 2)
    assert value(measure, [first, second], np.array([0, 2])) == 1.0
    assert value(MeanIou(len(LABELS), frozenset({1})), [first, second]) == pytest.approx(3 / 5)
    assert np.isnan(value(MeanIou(len(LABELS), frozenset({3})), [first, second]))
    accuracy = PixelAccuracy(len(LABELS))
    assert value(accuracy, [first, second]) == pytest.approx(10 / 12)
    assert value(PixelAccuracy(len(LABELS), frozenset({1})), [first, second]) == pytest.approx(3 / 5)


def test_a_merged_label_counts_as_the_other_in_answers_and_in_truths() -> None:
    merged = MeanIou(len(LABELS), frozenset({1}), {2: 1})
    apart = MeanIou(len(LABELS), frozenset({1}))
    outputs, truth = mask([[1, 2, 2, 0], [1, 1, 0, 0]]), mask_truth([[1, 1, 2, 0], [1, 1, 0, 0]])
    assert value(merged, [merged.observe(outputs, truth, HERE)]) == 1.0
    assert value(apart, [apart.observe(outputs, truth, HERE)]) == pytest.approx(3 / 4)


def test_ids_beyond_the_labels_are_wrong_and_no_error() -> None:
    measure = PixelAccuracy(2)
    outputs = mask([[0, 1, 200, 255], [0, 1, 0, 1]])
    assert value(measure, [measure.observe(outputs, mask_truth([[0, 1, 0, 1], [0, 1, 0, 1]]), HERE)]) == 6 / 8


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
def test_a_mask_is_laid_over_the_picture_as_the_device_lays_it(resize: Any) -> None:
    """A coarse mask made from the truth itself: wrong only along the edges, whatever the resize."""
    picture = np.zeros((90, 160, 3), np.uint8)
    truth = np.zeros((90, 160), np.int16)
    truth[30:60, 40:120] = 1
    picture[truth == 1] = 255
    spec = InputSpec(height=64, width=64, resize=resize)
    image = np.zeros((64, 64, 3), np.uint8)
    placement = Resizer(spec, image)(picture)
    outputs = mask((image[::2, ::2, 0] > 127).astype(np.uint8))
    measure = MeanIou(2)

    assert value(measure, [measure.observe(outputs, mask_truth(truth), placement)]) > 0.85
    moved = mask(np.roll(outputs["mask"][0], 3, axis=1))
    assert value(measure, [measure.observe(moved, mask_truth(truth), placement)]) < 0.85


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a mask of the picture's \[2, 4\] pixels, got \[1, 1\]"):
        MeanIou(2).observe(mask([[0]]), mask_truth([[0]]), HERE)


@pytest.mark.parametrize("measure", [MeanIou(2), TopK(1)])
def test_another_kind_of_truth_is_refused(measure: Any) -> None:
    nothing = BoxesTruth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    with pytest.raises(TypeError, match="got BoxesTruth"):
        measure.observe({**mask([[0]]), **scores(1.0)}, nothing, HERE)


def detections(*rows: tuple[float, float, int]) -> dict[str, Any]:
    return {
        "boxes": np.array([[[x, 10, x + 20, 30] for x, _, _ in rows]], np.float32),
        "scores": np.array([[score for _, score, _ in rows]], np.float32),
        "labels": np.array([[label for _, _, label in rows]], np.int64),
    }


AGREEING: list[tuple[Task, dict[str, Any], dict[str, Any]]] = [
    ("classify", scores(0.1, 0.8, 0.1), scores(0.6, 0.3, 0.1)),
    ("detect", detections((0, 0.9, 0), (50, 0.6, 1), (90, 0.2, 1)), detections((0, 0.9, 0), (80, 0.7, 1))),
    ("segment", mask([[0, 1], [1, 1]]), mask([[0, 0], [1, 1]])),
]


@pytest.mark.parametrize(("task", "outputs", "other"), AGREEING)
def test_the_float_model_agrees_with_itself_and_another_less(
    task: Task, outputs: dict[str, Any], other: dict[str, Any]
) -> None:
    placement = Placement((0.5, 0.5), (4.0, 0.0), (200, 100), (108, 50))
    truth = truth_of(outputs, placement, task, Defaults())
    for name in OF_TASK[task][:1]:
        measure = make_measure(name, task, Defaults(), LABELS[:3])
        assert value(measure, [measure.observe(outputs, truth, placement)]) == pytest.approx(1.0)
        assert value(measure, [measure.observe(other, truth, placement)]) < 0.9


def test_only_what_the_device_would_report_is_a_truth() -> None:
    truth = truth_of(AGREEING[1][1], HERE, "detect", Defaults(score_threshold=0.7))
    assert isinstance(truth, BoxesTruth)
    assert truth.labels.tolist() == []  # both lie outside this small picture, or score less
    wide = Placement((1.0, 1.0), (0.0, 0.0), (200, 100), (200, 100))
    truth = truth_of(AGREEING[1][1], wide, "detect", Defaults(score_threshold=0.5))
    assert isinstance(truth, BoxesTruth)
    assert truth.labels.tolist() == [0, 1]


def test_what_a_crop_cuts_off_is_no_truth() -> None:
    placement = Placement((1.0, 1.0), (-2.0, 0.0), (8, 2), (4, 2))
    outputs = mask([[1, 1, 1, 1], [1, 1, 1, 1]])
    truth = truth_of(outputs, placement, "segment", Defaults())
    outputs["mask"][:] = 0  # the session writes its next answer there
    assert isinstance(truth, MaskTruth)
    assert truth.ids().tolist() == [[-1, -1, 1, 1, 1, 1, -1, -1]] * 2


def test_every_task_has_its_measures() -> None:
    for task, names in OF_TASK.items():
        assert usual_measure(task) == names[0]
        for name in names:
            measure = make_measure(name, task, Defaults(), LABELS)
            assert (measure.name, measure.task) == (name, task)


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"a measure to detect, one of map50_95, map50, got 'top1'"):
        make_measure("top1", "detect", Defaults(), LABELS)
    with pytest.raises(RecipeError, match=r"classes: 'rode' is no label of the recipe; did you mean 'road'\?"):
        make_measure("miou", "segment", Defaults(), LABELS, classes=["rode"])
    with pytest.raises(RecipeError, match="2 problems"):
        make_measure("miou", "segment", Defaults(), LABELS, merge={"x1": "road", "marking": "y2"})


def test_names_become_ids() -> None:
    measure = make_measure("miou", "segment", Defaults(), LABELS, classes=["road"], merge={"marking": "road"})
    seen = measure.observe(mask([[2, 2, 0, 0], [1, 0, 0, 0]]), mask_truth([[1, 1, 0, 0], [1, 1, 0, 0]]), HERE)
    assert value(measure, [seen]) == pytest.approx(3 / 4)
