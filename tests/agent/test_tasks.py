from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.config import AgentConfig
from agent.delivery.events import ClassState, FrameRef
from agent.errors import BundleError, ConfigError
from agent.frame import Frame
from agent.model.manifest import Manifest
from agent.tasks import ClassWatcher, ObjectWatcher, Watcher, frame_ref, make_watcher
from agent.vision.decode import Thresholds
from agent.vision.resize import Placement
from agent.vision.track import TrackRules
from tests.support.bundles import GOLDEN_PATH, MODEL_PATH, manifest_of
from tests.support.tiny_models import classify_model, detect_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THRESHOLDS = Thresholds(0.3, 0.5, 10)
RULES = TrackRules(0.3, 2, 2.0, 5.0)


def frame(number: int, width: int = 200, height: int = 100) -> Frame:
    image = np.zeros((height, width, 3), np.uint8)
    return Frame("door", number, image, number / 10, 1_700_000_000_000 + number, number / 10)


def whole(width: int = 200, height: int = 100) -> Placement:
    return Placement((1.0, 1.0), (0.0, 0.0), (width, height))


def outputs(*rows: tuple[Sequence[float], float, int]) -> dict[str, NDArray[Any]]:
    return {
        "boxes": np.array([[row[0] for row in rows]], np.float32).reshape(1, -1, 4),
        "scores": np.array([[row[1] for row in rows]], np.float32),
        "labels": np.array([[row[2] for row in rows]], np.int64),
    }


def scores(*values: float) -> dict[str, NDArray[Any]]:
    return {"scores": np.array([values], np.float32)}


def config(**keys: Any) -> AgentConfig:
    plain = {"model": {"bundle": "b", "trusted_keys": ["k"]}, "cameras": [{"id": "door", "engine": "synthetic"}]}
    return AgentConfig.model_validate({**plain, **keys})


def manifest(**keys: Any) -> Manifest:
    tiny = classify_model() if keys.get("task") == "classify" else detect_model()
    return Manifest.model_validate({**manifest_of(tiny, {MODEL_PATH: b"", GOLDEN_PATH: b""}), **keys})


CAT = ((20.0, 10.0, 60.0, 50.0), 0.9, 0)
DOG = ((120.0, 10.0, 200.0, 100.0), 0.6, 1)


# --- detection


def test_an_object_is_seen_at_once_and_told_of_once_it_is_confirmed() -> None:
    watcher = ObjectWatcher(["cat", "dog"], THRESHOLDS, RULES)
    first = watcher.see(outputs(CAT, DOG), whole(), frame(1))
    assert [(each.id, each.label) for each in first.objects] == [(None, "cat"), (None, "dog")]
    assert (first.events, first.class_) == ([], None)
    second = watcher.see(outputs(CAT, DOG), whole(), frame(2))
    assert [(each.id, each.label) for each in second.objects] == [(1, "cat"), (2, "dog")]
    assert [(event.type, event.frame.id) for event in second.events] == [("new", 2), ("new", 2)]
    assert [event.object for event in second.events] == list(second.objects)
    assert all(event.class_ is None for event in second.events)


def test_boxes_are_shares_of_the_frame() -> None:
    watcher = ObjectWatcher(["cat", "dog"], THRESHOLDS, RULES)
    sighting = watcher.see(outputs(CAT, DOG), whole(), frame(1))
    assert sighting.objects[0].box_xyxy == pytest.approx((0.1, 0.1, 0.3, 0.5))
    assert sighting.objects[1].box_xyxy == pytest.approx((0.6, 0.1, 1.0, 1.0))
    assert sighting.objects[1].score == pytest.approx(0.6)
    assert sighting.detections is not None
    np.testing.assert_array_equal(sighting.detections.boxes_xyxy[0], CAT[0])


def test_plain_numbers_leave_the_watcher() -> None:
    watcher = ObjectWatcher(["cat", "dog"], THRESHOLDS, TrackRules(0.3, 1, 2.0, 5.0))
    event = watcher.see(outputs(CAT), whole(), frame(1)).events[0]
    assert event.object is not None
    assert {type(value) for value in (*event.object.box_xyxy, event.object.score)} == {float}
    assert type(event.object.id) is int


def test_when_a_camera_changes_its_resolution_the_object_stays_the_same() -> None:
    watcher = ObjectWatcher(["cat", "dog"], THRESHOLDS, RULES)
    for number in (1, 2):
        watcher.see(outputs(CAT), whole(), frame(number))
    half = tuple(side / 2 for side in CAT[0])
    smaller = watcher.see(outputs((half, 0.9, 0)), whole(100, 50), frame(3, 100, 50))
    assert [each.id for each in smaller.objects] == [1]
    ended = watcher.see(outputs(), whole(50, 25), frame(99, 50, 25)).events
    assert [event.type for event in ended] == ["end"]
    assert ended[0].object is not None
    assert ended[0].object.box_xyxy == pytest.approx((0.1, 0.1, 0.3, 0.5))


def test_finishing_ends_what_is_open_in_the_last_frame() -> None:
    watcher = ObjectWatcher(["cat", "dog"], THRESHOLDS, RULES)
    assert watcher.finish() == []
    for number in (1, 2, 3):
        watcher.see(outputs(CAT), whole(), frame(number))
    (event,) = watcher.finish()
    assert (event.type, event.frame.id, event.object and event.object.label) == ("end", 3, "cat")
    assert watcher.finish() == []


def test_a_class_without_a_label_is_told_by_its_number() -> None:
    watcher = ObjectWatcher(["cat"], THRESHOLDS, TrackRules(0.3, 1, 2.0, 5.0))
    sighting = watcher.see(outputs(CAT, DOG), whole(), frame(1))
    assert [each.label for each in sighting.objects] == ["cat", "class 1"]
    assert [event.object and event.object.label for event in sighting.events] == ["cat", "class 1"]
    assert sighting.present == {"cat": 1, "class 1": 1}


def test_an_object_is_present_from_its_confirmation_to_its_end_seen_or_not() -> None:
    watcher = ObjectWatcher(["cat", "dog"], THRESHOLDS, RULES)
    assert watcher.see(outputs(CAT, DOG), whole(), frame(1)).present == {}
    assert watcher.see(outputs(CAT, DOG), whole(), frame(2)).present == {"cat": 1, "dog": 1}
    hidden = watcher.see(outputs(DOG), whole(), frame(15))
    assert hidden.present == {"cat": 1, "dog": 1}
    assert [each.label for each in hidden.objects] == ["dog"]
    assert watcher.see(outputs(DOG), whole(), frame(22)).present == {"dog": 1}


# --- classification


def changed(watcher: Watcher, *frames: dict[str, NDArray[Any]]) -> list[str | None]:
    """The label that each frame's event tells, None where there is none."""
    told: list[str | None] = []
    for number, each in enumerate(frames):
        events = watcher.see(each, whole(), frame(number)).events
        told.append(events[0].class_.label if events and events[0].class_ else None)
    return told


RED, BLUE = scores(0.1, 0.9), scores(0.8, 0.2)


def test_a_class_is_told_once_it_was_the_best_for_some_frames_in_a_row() -> None:
    watcher = ClassWatcher(["blue", "red"], confirm_frames=2)
    assert changed(watcher, RED, RED, RED, BLUE, BLUE, RED) == [None, "red", None, None, "blue", None]
    assert watcher.finish() == []


def test_a_flickering_class_changes_nothing() -> None:
    watcher = ClassWatcher(["blue", "red"], confirm_frames=2)
    assert changed(watcher, RED, RED, BLUE, RED, BLUE, RED, RED) == [None, "red", None, None, None, None, None]


def test_the_class_of_each_frame_is_seen_with_its_score() -> None:
    watcher = ClassWatcher(["blue", "red"], confirm_frames=1)
    sighting = watcher.see(RED, whole(), frame(7))
    assert sighting.class_ == ClassState("red", float(np.float32(0.9)))
    assert (sighting.events[0].type, sighting.events[0].frame.id) == ("changed", 7)
    assert sighting.events[0].object is None


def test_scores_that_are_no_numbers_show_nothing() -> None:
    watcher = ClassWatcher(["blue", "red"], confirm_frames=2)
    sick = watcher.see(scores(0.9, float("nan")), whole(), frame(1))
    assert (sick.class_, sick.events, sick.objects) == (None, (), ())
    assert changed(watcher, RED, scores(float("nan"), float("nan")), RED) == [None, None, "red"]


# --- making them


def test_each_task_has_its_watcher() -> None:
    assert isinstance(make_watcher(manifest(), config()), ObjectWatcher)
    assert isinstance(make_watcher(manifest(task="classify"), config()), ClassWatcher)
    with pytest.raises(BundleError, match="bundle tiny: task 'segment' is not supported by this version"):
        make_watcher(manifest(task="segment"), config())


@pytest.mark.parametrize(
    ("detect", "seen"),
    [
        ({}, ["cat"]),  # the bundle's threshold, 0.8
        ({"score_threshold": 0.5}, ["cat", "dog"]),
        ({"score_threshold": 0.0}, ["cat", "dog", "cat"]),  # zero is a threshold, not the lack of one
        ({"score_threshold": 0.5, "max_detections": 1}, ["cat"]),
        ({"score_threshold": 0.0, "iou_threshold": 0.0}, ["cat", "dog"]),
    ],
)
def test_the_configs_thresholds_go_before_the_bundles(detect: dict[str, Any], seen: list[str]) -> None:
    watcher = make_watcher(manifest(defaults={"score_threshold": 0.8}), config(detect=detect))
    near = ((50.0, 10.0, 90.0, 50.0), 0.1, 0)  # overlaps the first cat a little
    assert [each.label for each in watcher.see(outputs(CAT, DOG, near), whole(), frame(1)).objects] == seen


@pytest.mark.parametrize(
    ("labels", "seen"), [(["dog"], ["dog"]), (["cat", "dog"], ["cat", "dog"]), (None, ["cat", "dog"])]
)
def test_only_the_labels_that_count_are_seen(labels: list[str] | None, seen: list[str]) -> None:
    watcher = make_watcher(manifest(), config(detect={"labels": labels}))
    assert [each.label for each in watcher.see(outputs(CAT, DOG), whole(), frame(1)).objects] == seen


def test_a_label_of_two_classes_counts_for_both() -> None:
    watcher = make_watcher(manifest(labels=["crane", "crane"]), config(detect={"labels": ["crane"]}))
    assert len(watcher.see(outputs(CAT, DOG), whole(), frame(1)).objects) == 2


@pytest.mark.parametrize(
    ("label", "advice"), [("dgo", r"did you mean 'dog'\?"), ("zebra", "`edge-agent model inspect` lists its labels")]
)
def test_a_label_that_the_bundle_does_not_have_is_the_users_to_mend(label: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"bundle tiny has no label '{label}'; {advice}"):
        make_watcher(manifest(), config(detect={"labels": ["cat", label]}))


def test_the_configs_tracking_is_used() -> None:
    watcher = make_watcher(manifest(), config(tracking={"confirm_frames": 1}))
    assert [event.type for event in watcher.see(outputs(CAT), whole(), frame(1)).events] == ["new"]


def test_a_frame_is_told_with_its_size_and_time() -> None:
    assert frame_ref(frame(5, 320, 180)) == FrameRef("door", 5, 320, 180, 1_700_000_000_005)
