from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.demo.scenes import HIDDEN, LABELS, MIN_VISIBLE_SHARE, Scene, Truth, random_picture


def test_a_frame_depends_on_seed_and_index_alone() -> None:
    forward, backward = Scene(160, 96, seed=5), Scene(160, 96, seed=5)
    indices = [0, 1, 40, 400, 4000]
    frames = {index: forward.render(index) for index in indices}
    for index in reversed(indices):
        image, truth = backward.render(index)
        np.testing.assert_array_equal(image, frames[index][0])
        np.testing.assert_array_equal(truth.mask, frames[index][1].mask)
        np.testing.assert_array_equal(truth.boxes_xyxy, frames[index][1].boxes_xyxy)
        np.testing.assert_array_equal(truth.ids, frames[index][1].ids)


def test_another_seed_or_index_gives_another_picture() -> None:
    image, _ = Scene(160, 96, seed=5).render(3)
    assert not np.array_equal(image, Scene(160, 96, seed=6).render(3)[0])
    assert not np.array_equal(image, Scene(160, 96, seed=5).render(4)[0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(32, 400), height=st.integers(32, 300))
def test_boxes_are_the_extent_of_the_mask(seed: int, width: int, height: int) -> None:
    image, truth = random_picture(seed, width, height)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert not np.any(truth.mask == HIDDEN)
    _check_boxes_against_mask(truth)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 100_000))
def test_a_scene_tells_the_truth_at_any_time(seed: int, index: int) -> None:
    _, truth = Scene(160, 96, seed).render(index)
    _check_boxes_against_mask(truth)
    assert np.unique(truth.ids).size == truth.ids.size


def test_an_object_stands_out_from_the_picture_without_it() -> None:
    """The boxes lie where the pixels differ: the mean difference inside a mask is far above the noise outside."""
    scene = Scene(320, 192, seed=9)
    first, truth = scene.render(0)
    later, later_truth = scene.render(3000)
    anywhere = np.abs(first.astype(int) - later).mean(axis=2)
    still = (truth.mask == 0) & (later_truth.mask == 0)
    inside = (truth.mask > 0) & (later_truth.mask == 0)
    assert anywhere[inside].mean() > 2 * anywhere[still].mean()


def test_objects_enter_stay_for_seconds_move_smoothly_and_leave() -> None:
    scene = Scene(320, 192, seed=2)
    seen: dict[int, list[tuple[int, np.ndarray]]] = {}
    for index in range(0, 1200, 3):
        _, truth = scene.render(index)
        for row, identity in enumerate(truth.ids.tolist()):
            seen.setdefault(identity, []).append((index, truth.boxes_xyxy[row]))
    lives = [track[-1][0] - track[0][0] for track in seen.values()]
    assert len(lives) > 15, "within 40 s objects follow one another"
    assert np.median(lives) > 4 * 30
    ends = [identity for identity, track in seen.items() if track[-1][0] < 1100]
    assert len(ends) > 10
    for track in seen.values():
        for (before, box), (after, next_box) in itertools.pairwise(track):
            if after - before == 3:
                centres = (box[:2] + box[2:] - next_box[:2] - next_box[2:]) / 2
                assert np.abs(centres).max() < 24, "an object jumped"


def test_the_distribution_holds_all_labels_and_low_and_high_contrast() -> None:
    labels, contrasts = [], []
    for seed in range(150):
        image, truth = random_picture(seed)
        labels.extend(truth.labels.tolist())
        for row in range(len(truth.labels)):
            inside = image[truth.mask == row + 1].mean(axis=0)
            contrasts.append(float(np.linalg.norm(inside - image[truth.mask == 0].mean(axis=0))))
    assert min(np.bincount(labels, minlength=len(LABELS))) > len(labels) / len(LABELS) / 2
    low, high = np.percentile(contrasts, (10, 90))
    assert low < 35
    assert high > 90


def test_more_objects_can_be_asked_for_or_none() -> None:
    counts = [len(random_picture(seed, most_objects=24)[1].labels) for seed in range(30)]
    assert max(counts) > 12
    assert [len(random_picture(seed, most_objects=0)[1].labels) for seed in range(5)] == [0] * 5


def test_a_finer_picture_shows_the_same_scene() -> None:
    _, coarse = Scene(320, 192, seed=4).render(60)
    _, fine = Scene(640, 384, seed=4).render(60)
    assert coarse.labels.tolist() == fine.labels.tolist()
    np.testing.assert_allclose(coarse.boxes_xyxy * 2, fine.boxes_xyxy, atol=3)


def _check_boxes_against_mask(truth: Truth) -> None:
    count = len(truth.labels)
    assert truth.boxes_xyxy.shape == (count, 4)
    assert truth.boxes_xyxy.dtype == np.float32
    assert truth.labels.dtype == truth.ids.dtype == np.int64
    assert set(np.unique(truth.mask)) <= {0, HIDDEN, *range(1, count + 1)}
    for row in range(count):
        y, x = np.nonzero(truth.mask == row + 1)
        extent = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert truth.boxes_xyxy[row].tolist() == pytest.approx(extent)
        assert 0 <= truth.labels[row] < len(LABELS)
    assert 0 < MIN_VISIBLE_SHARE < 1
