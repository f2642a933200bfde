from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision.detections import Detections
from agent.vision.track import TrackChange, Tracker, TrackRules

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES = TrackRules(least_iou=0.3, confirm_frames=3, lost_after_s=2.0, update_interval_s=5.0)
Seen = tuple[float, int]  # the left edge of a 20 x 20 box, and its label


def frame(*seen: Seen, score: float = 0.9) -> Detections:
    """Detections of 20 x 20 boxes side by side."""
    if not seen:
        return Detections.empty()
    boxes = np.array([[left, 0, left + 20, 20] for left, _ in seen], np.float32)
    return Detections(boxes, np.full(len(seen), score, np.float32), np.array([label for _, label in seen], np.int64))


def play(
    tracker: Tracker, frames: Sequence[Sequence[Seen]], start_s: float = 0.0, step_s: float = 0.1
) -> list[list[str]]:
    """What each frame changes, as ``new 1``; one frame every ``step_s``."""
    return [told(tracker.update(frame(*seen), start_s + n * step_s)) for n, seen in enumerate(frames)]


def told(changes: Sequence[TrackChange]) -> list[str]:
    return [f"{change.type} {change.track_id}" for change in changes]


def test_an_object_is_new_after_enough_frames_in_a_row() -> None:
    tracker = Tracker(RULES)
    assert play(tracker, [[(0, 0)]] * 4) == [[], [], ["new 1"], []]
    assert tracker.track_ids == [1]


def test_until_then_it_has_no_id() -> None:
    tracker = Tracker(RULES)
    tracker.update(frame((0, 0)), 0.0)
    assert tracker.track_ids == [None]


def test_a_frame_missed_before_that_begins_again() -> None:
    tracker = Tracker(RULES)
    assert play(tracker, [[(0, 0)], [(0, 0)], [], [(0, 0)], [(0, 0)], [(0, 0)]]) == [[], [], [], [], [], ["new 1"]]


def test_with_one_frame_to_confirm_it_is_new_at_once() -> None:
    tracker = Tracker(TrackRules(0.3, 1, 2.0, 5.0))
    assert play(tracker, [[(0, 0)]]) == [["new 1"]]


def test_it_ends_when_it_was_unseen_for_long_enough_in_the_streams_own_time() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(0, 0)]] * 3)  # last seen at 0.2 s
    assert told(tracker.update(frame(), 2.1)) == []
    assert told(tracker.update(frame(), 2.2)) == ["end 1"]
    assert told(tracker.update(frame(), 9.9)) == []


def test_a_shorter_absence_is_forgiven() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(0, 0)]] * 3)
    tracker.update(frame(), 1.0)
    assert told(tracker.update(frame((1, 0)), 2.1)) == []
    assert tracker.track_ids == [1]


def test_ends_come_before_news() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(0, 0)]] * 3)
    assert play(tracker, [[(100, 0)]] * 3, start_s=2.0) == [[], [], ["end 1", "new 2"]]


def test_updates_keep_their_distance() -> None:
    tracker = Tracker(RULES)
    changes = play(tracker, [[(0, 0)]] * 14, step_s=1.0)  # new at 2 s
    assert [(n, change) for n, change in enumerate(changes) if change] == [
        (2, ["new 1"]),
        (7, ["update 1"]),
        (12, ["update 1"]),
    ]


def test_an_unseen_object_has_no_updates() -> None:
    tracker = Tracker(TrackRules(0.3, 1, 100.0, 5.0))
    play(tracker, [[(0, 0)]])
    assert told(tracker.update(frame(), 50.0)) == []
    assert told(tracker.update(frame((0, 0)), 60.0)) == ["update 1"]


def test_two_labels_never_become_one_object() -> None:
    tracker = Tracker(RULES)
    assert play(tracker, [[(0, 0), (0, 1)]] * 3)[-1] == ["new 1", "new 2"]
    assert tracker.track_ids == [1, 2]
    flickering = Tracker(RULES)
    assert play(flickering, [[(0, n % 2)] for n in range(20)]) == [[]] * 20


def test_the_ids_follow_the_objects_not_their_order() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(0, 0), (50, 0)]] * 3)
    tracker.update(frame((50, 0), (200, 0), (0, 0)), 0.3)
    assert tracker.track_ids == [2, None, 1]


def test_the_best_overlap_wins() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(0, 0)]] * 3)
    tracker.update(frame((8, 0), (2, 0)), 0.3)
    assert tracker.track_ids == [None, 1]


def test_an_object_that_moves_is_found_where_it_would_be_after_a_gap() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(8.0 * n, 0)] for n in range(10)])
    later = frame((8.0 * 14, 0))  # five frames on, two of its widths away
    assert told(tracker.update(later, 1.4)) == []
    assert tracker.track_ids == [1]
    still = Tracker(RULES)
    play(still, [[(72.0, 0)]] * 10)
    still.update(later, 1.4)
    assert still.track_ids == [None], "without its motion it would not be"


def test_two_frames_of_one_time_do_no_harm() -> None:
    tracker = Tracker(RULES)
    assert play(tracker, [[(n, 0)] for n in range(5)], step_s=0.0) == [[], [], ["new 1"], [], []]


def test_a_change_tells_the_last_box_and_the_median_score() -> None:
    tracker = Tracker(TrackRules(0.3, 3, 2.0, 5.0))
    for n, score in enumerate([0.5, 0.9, 0.8]):
        changes = tracker.update(frame((float(n), 4), score=score), n / 10)
    assert (changes[0].type, changes[0].label) == ("new", 4)
    assert changes[0].score == pytest.approx(0.8)
    np.testing.assert_array_equal(changes[0].box_xyxy, [2, 0, 22, 20])
    for n in range(10):
        tracker.update(frame((2.0, 4), score=0.6), 0.4 + n / 10)
    assert tracker.finish()[0].score == pytest.approx(0.6), "only the last ten scores count"


def test_finishing_ends_everything_once_and_ids_go_on() -> None:
    tracker = Tracker(RULES)
    play(tracker, [[(0, 0), (50, 1)]] * 3)
    tracker.update(frame((0, 0), (50, 1), (100, 0)), 0.3)  # the third is unconfirmed: nobody knows of it
    assert told(tracker.finish()) == ["end 1", "end 2"]
    assert tracker.finish() == []
    assert tracker.track_ids == []
    assert play(tracker, [[(0, 0)]] * 3, start_s=10.0)[-1] == ["new 3"]


scenes = st.lists(
    st.tuples(
        st.sampled_from([0.1, 0.5, 1.0, 3.0]),
        st.lists(st.tuples(st.integers(0, 60).map(float), st.integers(0, 1)), max_size=4),
    ),
    max_size=30,
)


@given(scenes, st.integers(1, 3))
def test_every_object_is_new_once_then_updated_then_ended_once(
    scene: list[tuple[float, list[Seen]]], confirm_frames: int
) -> None:
    rules = TrackRules(0.3, confirm_frames, 2.0, 1.0)
    tracker = Tracker(rules)
    now_s, newest = 0.0, 0
    told_s: dict[int, float] = {}
    labels: dict[int, int] = {}
    for elapsed_s, seen in scene:
        now_s += elapsed_s
        detections = frame(*seen)
        for change in tracker.update(detections, now_s):
            if change.type == "new":
                assert change.track_id == newest + 1, "ids count up and are never used again"
                newest, labels[change.track_id] = change.track_id, change.label
            elif change.type == "update":
                assert now_s - told_s[change.track_id] >= rules.update_interval_s
            if change.type == "end":
                del told_s[change.track_id]
            else:
                told_s[change.track_id] = now_s
            assert labels[change.track_id] == change.label
        ids = [track_id for track_id in tracker.track_ids if track_id is not None]
        assert len(tracker.track_ids) == len(detections)
        assert len(set(ids)) == len(ids), "no object is seen twice in one frame"
        assert set(ids) <= told_s.keys(), "what has an id was told of and has not ended"
    assert {change.track_id for change in tracker.finish()} == told_s.keys()
