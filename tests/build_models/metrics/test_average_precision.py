"""Mean average precision: pycocotools' figures, on scenes with equal scores, crowds, many classes and repetitions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.vision.detections import Detections
from agent.vision.resize import Placement
from build_models.data.sample import BoxesTruth, ClassTruth
from build_models.metrics import average_precision
from build_models.metrics import match_boxes as matching
from build_models.metrics.average_precision import MeanAveragePrecision
from build_models.metrics.base import value
from build_models.metrics.match_boxes import Matches, match_boxes

GOLDEN = json.loads(Path(__file__).with_name("coco_golden.json").read_text())
LEAST_IOUS = np.linspace(0.5, 0.95, 10)
HERE = Placement((1.0, 1.0), (0.0, 0.0), (200, 200), (200, 200))


def truth_in(picture: dict[str, Any]) -> BoxesTruth:
    rows = np.array(picture["truth"], np.float64).reshape(-1, 6)
    return BoxesTruth(rows[:, 1:5].astype(np.float32), rows[:, 0].astype(np.int64), rows[:, 5] > 0)


def detections_in(picture: dict[str, Any]) -> Detections:
    rows = np.array(picture["detections"], np.float64).reshape(-1, 6)
    return Detections(rows[:, 1:5].astype(np.float32), rows[:, 5].astype(np.float32), rows[:, 0].astype(np.int64))


def observed(scene: dict[str, Any], least_ious: Any = LEAST_IOUS) -> list[Matches]:
    return [match_boxes(detections_in(each), truth_in(each), least_ious) for each in scene["pictures"]]


@pytest.mark.parametrize("scene", GOLDEN["scenes"], ids=lambda scene: scene["name"])
def test_the_figures_are_pycocotools(scene: dict[str, Any]) -> None:
    weights = np.array(scene["weights"], np.int64)

    assert value(MeanAveragePrecision(1.0), observed(scene), weights) == pytest.approx(scene["map50_95"], abs=1e-9)
    loose = MeanAveragePrecision(1.0, loose=True)
    assert value(loose, observed(scene, LEAST_IOUS[:1]), weights) == pytest.approx(scene["map50"], abs=1e-9)


def test_a_repeated_picture_counts_as_so_many() -> None:
    scene = next(scene for scene in GOLDEN["scenes"] if scene["name"] == "repeated pictures")
    one_by_one = [each for each, weight in zip(observed(scene), scene["weights"], strict=True) for _ in range(weight)]
    assert value(MeanAveragePrecision(1.0), one_by_one) == pytest.approx(scene["map50_95"], abs=1e-9)
    assert value(MeanAveragePrecision(1.0), observed(scene)) != pytest.approx(scene["map50_95"], abs=1e-3)


@pytest.mark.parametrize("name", ["crowds", "more than a hundred of a class"])
def test_the_scenes_tell_right_from_nearly_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the scene is for, another figure comes out: crowds as objects, and no limit per class."""
    scene = next(scene for scene in GOLDEN["scenes"] if scene["name"] == name)
    if name == "crowds":
        for picture in scene["pictures"]:
            picture["truth"] = [[*row[:5], 0] for row in picture["truth"]]
    else:
        monkeypatch.setattr(matching, "MOST_PER_CLASS", 50)
    assert value(MeanAveragePrecision(1.0), observed(scene)) != pytest.approx(scene["map50_95"], abs=1e-4)


def canonical(boxes: list[list[float]], scores: list[float], labels: list[int]) -> dict[str, Any]:
    return {
        "boxes": np.array([boxes], np.float32).reshape(1, -1, 4),
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
    }


def boxes_truth(boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None) -> BoxesTruth:
    return BoxesTruth(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(ignore or [False] * len(labels), np.bool_),
    )


def test_outputs_are_decoded_as_on_the_device() -> None:
    """Scaled back to the picture, doubles suppressed by the recipe's overlap, scores down to 0.001 kept."""
    placement = Placement((0.5, 0.5), (10.0, 0.0), (200, 200), (120, 100))
    truth = boxes_truth([[20, 20, 60, 60], [100, 100, 140, 140]], [0, 0])
    outputs = canonical(
        [[20, 10, 40, 30], [20, 10, 40, 29], [60, 50, 80, 70], [0, 0, 120, 100]], [0.9, 0.8, 0.002, 0.0005], [0] * 4
    )
    measure = MeanAveragePrecision(0.5)

    seen = measure.observe(outputs, truth, placement)

    assert seen.scores.tolist() == pytest.approx([0.9, 0.002])
    assert value(measure, [seen]) == pytest.approx(1.0)
    doubled = MeanAveragePrecision(1.0).observe(outputs, truth, placement)
    assert value(measure, [doubled]) < 1.0  # the double stands between the two objects


def test_only_the_chosen_classes_are_judged() -> None:
    truth = boxes_truth([[0, 0, 50, 50], [60, 60, 90, 90]], [0, 1])
    outputs = canonical([[0, 0, 50, 50], [0, 0, 50, 50]], [0.9, 0.8], [0, 1])

    def judged(classes: frozenset[int] | None) -> float:
        measure = MeanAveragePrecision(0.5, classes)
        return value(measure, [measure.observe(outputs, truth, HERE)])

    assert judged(frozenset({0})) == pytest.approx(1.0)
    assert judged(frozenset({1})) == 0.0
    assert judged(None) == pytest.approx(0.5)


def test_an_ignored_object_counts_neither_way_and_takes_any_number() -> None:
    truth = boxes_truth([[0, 0, 50, 50], [100, 100, 180, 180]], [0, 0], [False, True])
    within_the_crowd: list[list[float]] = [[100, 100, 120, 120], [130, 130, 160, 160]]
    outputs = canonical([*within_the_crowd, [0, 0, 50, 50]], [0.9, 0.8, 0.7], [0, 0, 0])
    measure = MeanAveragePrecision(0.5)

    assert value(measure, [measure.observe(outputs, truth, HERE)]) == pytest.approx(1.0)
    beside = canonical([[60, 0, 90, 50], *within_the_crowd, [0, 0, 50, 50]], [0.95, 0.9, 0.8, 0.7], [0] * 4)
    assert value(measure, [measure.observe(beside, truth, HERE)]) == pytest.approx(0.5)


def test_without_objects_there_is_no_figure() -> None:
    measure = MeanAveragePrecision(0.5)
    found_nothing = measure.observe(canonical([], [], []), boxes_truth([[0, 0, 9, 9]], [0]), HERE)
    nothing_there = measure.observe(canonical([[0, 0, 9, 9]], [0.9], [0]), boxes_truth([], []), HERE)

    assert np.isnan(value(measure, []))
    assert np.isnan(value(measure, [nothing_there]))
    assert np.isnan(value(measure, [nothing_there, found_nothing], np.array([1, 0])))
    assert value(measure, [found_nothing]) == 0.0
    assert value(measure, [nothing_there, found_nothing]) == 0.0


def test_another_kind_of_truth_is_refused() -> None:
    with pytest.raises(TypeError, match="expected boxes as the truth, got ClassTruth"):
        MeanAveragePrecision(0.5).observe(canonical([], [], []), ClassTruth(0), HERE)


def crowded_pictures(count: int, classes: int, per_picture: int) -> list[Matches]:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(count):
        labels = rng.integers(classes, size=per_picture)
        hits = rng.random(per_picture) < 0.3
        least = rng.integers(1, 11, per_picture)
        at_each = hits & (np.arange(10)[:, None] < least)
        scores = rng.random(per_picture).astype(np.float32) ** 3
        objects = labels[hits | (rng.random(per_picture) < 0.2)]
        found.append(Matches(scores, labels, at_each, np.zeros_like(at_each), objects))
    return found


def test_many_weighings_of_many_pictures_are_quick() -> None:
    """A thousand take 1.6 s of a CPU; an evaluation anew for each of them would take ten minutes."""
    pictures = crowded_pictures(5000, 80, 15)
    weights = np.random.default_rng(0).integers(0, 3, (50, 5000))
    measure = MeanAveragePrecision(0.5)
    began = time.process_time()
    values = measure.values(pictures, weights)
    took_s = time.process_time() - began
    assert len(set(values.tolist())) == 50
    assert took_s < 3.0


def test_weighings_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = crowded_pictures(60, 5, 15)
    weights = np.random.default_rng(0).integers(0, 3, (9, 60))
    measure = MeanAveragePrecision(0.5)
    together = measure.values(pictures, weights)
    monkeypatch.setattr(average_precision, "_CELLS", 1)
    assert measure.values(pictures, weights) == pytest.approx(together, abs=1e-12)
    assert [value(measure, pictures, row) for row in weights] == pytest.approx(together, abs=1e-12)
