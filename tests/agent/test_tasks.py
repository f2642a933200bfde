from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.config import AgentConfig
from agent.delivery.events import CameraState, ClassState, FrameRef
from agent.errors import ConfigError
from agent.frame import Frame
from agent.model.manifest import Manifest
from agent.tasks import AreaWatcher, ClassWatcher, ObjectWatcher, Sighting, Watcher, frame_ref, look, make_watcher
from agent.vision.decode import Thresholds
from agent.vision.resize import Placement
from agent.vision.track import TrackRules
from tests.support.bundles import GOLDEN_PATH, MODEL_PATH, manifest_of
from tests.support.tiny_models import classify_model, detect_model, segment_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THRESHOLDS = Thresholds(0.3, 0.5, 10)
RULES = TrackRules(0.3, 2, 2.0, 5.0)


def frame(number: int, width: int = 200, height: int = 100) -> Frame:
    image = np.zeros((height, width, 3), np.uint8)
    return Frame("door", number, image, number / 10, 1_700_000_000_000 + number, number / 10)


def whole(width: int = 200, height: int = 100) -> Placement:
    return Placement((1.0, 1.0), (0.0, 0.0), (width, height), (width, height))


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
    tiny = {"detect": detect_model(), "classify": classify_model(), "segment": segment_model()}[
        keys.get("task", "detect")
    ]
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


# --- segmentation


def mask(*counts: int) -> dict[str, NDArray[Any]]:
    """A mask of one row with so many pixels of each class."""
    return {"mask": np.repeat(np.arange(len(counts), dtype=np.uint8), counts)[None, None]}


def area_watcher(*labels: str, confirm_frames: int = 2) -> AreaWatcher:
    return AreaWatcher(labels, confirm_frames)


def sightings(watcher: Watcher, *frames: dict[str, NDArray[Any]]) -> list[Sighting]:
    return [watcher.see(each, whole(), frame(number)) for number, each in enumerate(frames)]


def told_areas(watcher: Watcher, *frames: dict[str, NDArray[Any]]) -> list[str | None]:
    """The label with the largest area that each frame's event tells, None where there is none."""
    return [next(iter(each.events[0].areas)) if each.events else None for each in sightings(watcher, *frames)]


WALL, ROAD = mask(60, 40), mask(40, 60)


def test_areas_are_shares_by_label_largest_first() -> None:
    (sighting,) = sightings(area_watcher("wall", "road", "sky"), mask(25, 75))
    assert list(sighting.areas.items()) == [("road", 0.75), ("wall", 0.25)], "there is no sky"
    assert {type(share) for share in sighting.areas.values()} == {float}
    assert (sighting.objects, sighting.detections, sighting.class_) == ((), None, None)
    assert sighting.mask is not None
    assert sighting.mask.areas() == {1: 0.75, 0: 0.25}


def test_a_class_id_without_a_label_is_told_by_its_number() -> None:
    watcher = area_watcher("wall", "road")
    (sighting,) = sightings(watcher, {"mask": np.array([[[255, 255, 0, 2]]], np.uint8)})
    assert sighting.areas == {"class 255": 0.5, "wall": 0.25, "class 2": 0.25}


def test_two_classes_with_one_label_are_one_area() -> None:
    (sighting,) = sightings(area_watcher("plant", "road", "plant"), mask(30, 40, 30))
    assert list(sighting.areas.items()) == [("plant", 0.6), ("road", 0.4)]


def test_another_largest_area_is_told_once_it_was_that_for_some_frames_in_a_row() -> None:
    watcher = area_watcher("wall", "road")
    assert told_areas(watcher, WALL, WALL, WALL, ROAD, ROAD, WALL) == [None, "wall", None, None, "road", None]
    assert watcher.finish() == []


def test_two_areas_that_take_turns_at_being_the_largest_change_nothing() -> None:
    watcher = area_watcher("wall", "road")
    told = told_areas(watcher, WALL, WALL, ROAD, WALL, ROAD, mask(50, 50), WALL)
    assert told == [None, "wall", None, None, None, None, None]


def test_an_event_carries_the_areas_of_its_frame() -> None:
    first, second = sightings(area_watcher("wall", "road"), WALL, mask(55, 45))
    (event,) = second.events
    assert (event.type, event.frame.id, event.object, event.class_) == ("changed", 1, None, None)
    assert event.areas == second.areas == {"wall": 0.55, "road": 0.45}
    assert first.events == []


def test_a_cameras_state_has_the_areas_rounded() -> None:
    (sighting,) = sightings(area_watcher("wall", "road", "sign"), mask(1000, 500, 7))
    assert sighting.camera_state == CameraState("up", areas={"wall": 0.66, "road": 0.33})


def test_noise_leaves_the_state_alone_and_a_real_change_does_not() -> None:
    watcher = area_watcher("wall", "road")
    noisy = [mask(500 + shift, 500 - shift) for shift in (0, 6, -14, 15, -15, 19, 5)]
    first, *others = sightings(watcher, *noisy)
    assert first.steady_areas == {"wall": 0.5, "road": 0.5}
    assert all(each.steady_areas is first.steady_areas for each in others)
    (moved,) = sightings(watcher, mask(521, 479))
    assert moved.steady_areas == {"wall": 0.52, "road": 0.48}


def test_a_slow_drift_is_told_in_steps_and_never_far_off() -> None:
    seen = sightings(area_watcher("wall", "road"), *[mask(1000 - wall, wall) for wall in range(1, 1000)])
    assert all(abs(each.areas[name] - each.steady_areas.get(name, 0)) < 0.02 for each in seen for name in each.areas)
    assert 30 < len({tuple(each.steady_areas.items()) for each in seen}) < 70


def test_a_class_that_comes_or_goes_is_told() -> None:
    watcher = area_watcher("wall", "road", "sign")
    without, with_sign, again = sightings(watcher, mask(50, 50), mask(49, 48, 3), mask(50, 50))
    assert "sign" not in without.steady_areas
    assert with_sign.steady_areas == {"wall": 0.49, "road": 0.48, "sign": 0.03}
    assert again.steady_areas == {"wall": 0.5, "road": 0.5}


def test_many_areas_too_small_to_be_told_make_an_empty_state() -> None:
    watcher = area_watcher()
    everything = {"mask": np.arange(256, dtype=np.uint8).reshape(1, 16, 16)}
    first, second = sightings(watcher, everything, everything)
    assert first.camera_state == second.camera_state == CameraState("up")
    assert len(first.areas) == 256


def test_areas_that_are_all_small_are_told_nevertheless() -> None:
    many = {"mask": np.arange(64, dtype=np.uint8).reshape(1, 8, 8)}
    (sighting,) = sightings(area_watcher(), many)
    assert sighting.steady_areas == {f"class {class_id}": 0.02 for class_id in range(64)}


def test_areas_do_not_count_the_border_of_a_letterbox() -> None:
    # The frame of 200 x 100 lies in the middle two of four rows of an input of 64 x 64.
    placement = Placement((0.32, 0.32), (0.0, 16.0), (200, 100), (64, 64))
    rows = {"mask": np.array([[[0], [1], [2], [0]]], np.uint8)}
    sighting = AreaWatcher(["border", "wall", "road"], 1).see(rows, placement, frame(1))
    assert sighting.areas == pytest.approx({"wall": 0.5, "road": 0.5})


# --- one picture


def test_a_picture_by_itself_has_what_its_task_sees_and_no_events() -> None:
    thresholds = Thresholds(0.3, 0.5, 10)
    seen = look(outputs(CAT, DOG), whole(), manifest(), thresholds)
    assert ([(each.id, each.label) for each in seen.objects], seen.present) == (
        [(None, "cat"), (None, "dog")], {"cat": 1, "dog": 1},
    )  # fmt: skip
    seen = look(scores(0.1, 0.8, 0.1), whole(), manifest(task="classify"), thresholds)
    assert seen == Sighting(class_=ClassState("green", float(np.float32(0.8))))
    fitting = Placement((1.0, 1.0), (0.0, 0.0), (64, 48), (64, 48))
    seen = look(mask(1, 0, 3), fitting, manifest(task="segment"), thresholds)
    assert seen.areas == {"red": 0.75, "blue": 0.25}
    assert seen.mask is not None
    assert seen.mask.on_frame()[0].shape == (48, 64)
    assert (seen.events, seen.steady_areas) == ((), {})


def test_the_state_of_a_camera_is_what_was_sighted() -> None:
    class_ = ClassState("red", 0.9)
    sighting = Sighting(present={"cat": 1}, class_=class_, steady_areas={"road": 0.5})
    assert sighting.camera_state == CameraState("up", {"cat": 1}, class_, {"road": 0.5})


# --- making them


def test_each_task_has_its_watcher() -> None:
    assert isinstance(make_watcher(manifest(), config()), ObjectWatcher)
    assert isinstance(make_watcher(manifest(task="classify"), config()), ClassWatcher)
    assert isinstance(make_watcher(manifest(task="segment"), config()), AreaWatcher)


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
