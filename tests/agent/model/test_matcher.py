from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.manifest import Tolerances
from agent.model.matcher import Comparison, compare_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[Any]]

STRICT = Tolerances(score_floor=0.05, score=1e-3, box_px=0.05)
LOOSE = Tolerances(score_floor=0.3, score=0.1, box_px=4.0)


def outputs(rows: Sequence[tuple[Sequence[float], float, int]], kept: int = 8) -> Outputs:
    """Canonical detections from rows of box, score and label, padded with the silent tail that real models have."""
    rows = [*rows, *[((0.0, 0.0, 1.0, 1.0), 0.001, 0)] * (kept - len(rows))]
    return {
        "boxes": np.array([[row[0] for row in rows]], np.float32),
        "scores": np.array([[row[1] for row in rows]], np.float32),
        "labels": np.array([[row[2] for row in rows]], np.int64),
    }


def compare(expected: Outputs, actual: Outputs, tolerances: Tolerances = STRICT) -> Comparison:
    return compare_outputs("detect", expected, actual, tolerances)


CAT = ((10.0, 10.0, 30.0, 30.0), 0.9, 0)
DOG = ((40.0, 10.0, 60.0, 30.0), 0.7, 1)
TWIN = ((80.0, 10.0, 99.0, 30.0), 0.7, 1)


def test_equal_outputs_agree_and_say_how_many_were_compared() -> None:
    verdict = compare(outputs([CAT, DOG]), outputs([CAT, DOG]))
    assert verdict.ok
    assert verdict.compared == 2


def test_ties_may_stand_in_another_order() -> None:
    assert compare(outputs([CAT, DOG, TWIN]), outputs([CAT, TWIN, DOG])).ok


def test_differences_within_the_tolerances_agree() -> None:
    near = ((10.04, 10.0, 29.96, 30.0), 0.9009, 0)
    assert compare(outputs([CAT]), outputs([near])).ok


@pytest.mark.parametrize(
    ("actual", "reason"),
    [
        ([((10.06, 10.0, 30.0, 30.0), 0.9, 0), DOG], "a box is 0.06 px off"),
        ([((10.0, 10.0, 30.0, 30.0), 0.9, 1), DOG], "a label is another"),
        ([((10.0, 10.0, 30.0, 30.0), 0.89, 0), DOG], "a score is another"),
        ([CAT], "a detection is missing"),
        ([CAT, DOG, TWIN], "there is one more"),
        ([CAT, DOG, DOG], "one is there twice"),
        ([((40.0, 10.0, 60.0, 30.0), 0.9, 0), ((10.0, 10.0, 30.0, 30.0), 0.7, 1)], "boxes are swapped"),
        ([], "there is none"),
    ],
)
def test_it_is_noticed_when(actual: list[tuple[Sequence[float], float, int]], reason: str) -> None:
    verdict = compare(outputs([CAT, DOG]), outputs(actual))
    assert not verdict.ok, reason
    assert "detections have no partner within 0.05 px and 0.001 of score, such as class" in verdict.reason
    assert verdict.reason.isprintable()


def test_an_unexpected_detection_is_called_so() -> None:
    assert "1 of 2 unexpected detections" in compare(outputs([CAT]), outputs([CAT, DOG])).reason
    assert "1 of 2 expected detections" in compare(outputs([CAT, DOG]), outputs([CAT])).reason


def test_the_tail_below_the_floor_is_ignored() -> None:
    noise = ((3.0, 3.0, 9.0, 9.0), 0.04, 1)
    assert compare(outputs([CAT, noise]), outputs([CAT])).ok
    louder = ((3.0, 3.0, 9.0, 9.0), 0.06, 1)
    assert not compare(outputs([CAT, louder]), outputs([CAT])).ok


def test_a_score_that_moves_across_the_floor_needs_no_partner() -> None:
    above, below = ((3.0, 3.0, 9.0, 9.0), 0.0504, 1), ((3.0, 3.0, 9.0, 9.0), 0.0496, 1)
    assert compare(outputs([CAT, above]), outputs([CAT, below])).ok


def test_what_the_cut_at_k_took_from_one_side_is_not_missed() -> None:
    last, other = ((3.0, 3.0, 9.0, 9.0), 0.5, 1), ((70.0, 3.0, 79.0, 9.0), 0.5005, 1)
    assert compare(outputs([CAT, DOG, last], kept=3), outputs([CAT, DOG, other], kept=3)).ok
    # Not at the cut, the same difference counts.
    assert not compare(outputs([CAT, DOG, last], kept=4), outputs([CAT, DOG, other], kept=4)).ok


def test_a_model_that_saturates_does_not_hide_behind_the_cut() -> None:
    everything = outputs([((1.0 * n, 0.0, 2.0 * n + 1, 5.0), 1.0, 0) for n in range(8)])
    verdict = compare(outputs([CAT, DOG]), everything)
    assert not verdict.ok
    assert verdict.reason == "the lowest kept score is 1.000, expected 0.050 (limit 0.001)"
    assert not compare(everything, outputs([CAT, DOG])).ok


@pytest.mark.parametrize("broken", ["boxes", "scores"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_never_agree(broken: str, number: float) -> None:
    sick = outputs([CAT, DOG])
    sick[broken].flat[-1] = number
    assert compare(outputs([CAT, DOG]), sick).reason == f"the actual output {broken} has values that are not finite"
    assert compare(sick, outputs([CAT, DOG])).reason == f"the expected output {broken} has values that are not finite"
    assert not compare(sick, sick).ok


def test_other_outputs_or_shapes_never_agree() -> None:
    whole = outputs([CAT])
    part = {name: array for name, array in whole.items() if name != "boxes"}
    assert "expected outputs" in compare(whole, part).reason
    assert not compare(part, whole).ok
    assert not compare(part, part | {"more": np.zeros(1)}).ok
    assert not compare(whole, outputs([CAT], kept=9)).ok


clusters = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 40), st.integers(0, 50)), min_size=1, max_size=12
)


@given(clusters, st.randoms(use_true_random=False))
def test_no_change_within_the_tolerances_is_ever_refused(cluster: list[tuple[int, int, int, int]], random: Any) -> None:
    # Neighbouring anchors see one object almost alike: the closest partner is often not the right one.
    rows = [((20.0 * place + shift / 10, 5, 20.0 * place + 9, 15), 0.4 + score / 100, label)
            for place, label, shift, score in cluster]  # fmt: skip
    changed = [
        (tuple(side + random.uniform(-3.99, 3.99) for side in box), score + random.uniform(-0.099, 0.099), label)
        for box, score, label in rows
    ]
    random.shuffle(changed)
    verdict = compare(outputs(rows, kept=16), outputs(changed, kept=16), LOOSE)
    assert verdict.ok, verdict.reason


@given(clusters, st.data())
def test_one_detection_beyond_the_tolerance_is_always_noticed(
    cluster: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    rows: list[tuple[Sequence[float], float, int]] = [
        ((50.0 * number, 5, 50.0 * number + 9, 15), 0.5 + score / 200, label)
        for number, (_, label, _, score) in enumerate(cluster)
    ]
    index = data.draw(st.integers(0, len(rows) - 1))
    box, score, label = rows[index]
    changed = list(rows)
    kind = data.draw(st.sampled_from(["box", "score", "label", "gone"]))
    if kind == "box":
        changed[index] = (tuple(side + 5 for side in box), score, label)
    elif kind == "score":
        changed[index] = (box, score + 0.11, label)
    elif kind == "label":
        changed[index] = (box, score, 1 - label)
    else:
        del changed[index]
    assert not compare(outputs(rows, kept=16), outputs(changed, kept=16), LOOSE).ok
    assert compare(outputs(rows, kept=16), outputs(rows, kept=16), LOOSE).ok


def test_classes_agree_within_the_tolerance() -> None:
    expected = {"scores": np.array([[0.2, 0.8]], np.float32)}
    assert compare_outputs("classify", expected, {"scores": np.array([[0.2005, 0.7995]], np.float32)}, STRICT).ok
    verdict = compare_outputs("classify", expected, {"scores": np.array([[0.8, 0.2]], np.float32)}, STRICT)
    assert (verdict.ok, verdict.reason) == (False, "scores differ by up to 0.6 (limit 0.001)")


def test_a_task_without_a_comparison_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="expected task classify, detect or segment, got 'pose'"):
        compare_outputs("pose", {}, {}, STRICT)  # type: ignore[arg-type]


# --- masks: a road below, a wall above, a sign of 4 x 4 pixels; 40 x 50 pixels, of which 0.5 % are ten


def scene() -> NDArray[np.uint8]:
    mask = np.zeros((1, 40, 50), np.uint8)
    mask[0, 20:] = 1
    mask[0, 5:9, 30:34] = 2
    return mask


def masks(mask: NDArray[np.uint8], confidence: NDArray[np.uint8] | None = None) -> Outputs:
    return {"mask": mask} if confidence is None else {"mask": mask, "confidence": confidence}


def compare_masks(expected: Outputs, actual: Outputs, tolerances: Tolerances = STRICT) -> Comparison:
    return compare_outputs("segment", expected, actual, tolerances)


def flipped(pixels: int) -> NDArray[np.uint8]:
    mask = scene()
    mask[0, 20, :pixels] = 0
    return mask


def test_equal_masks_agree_and_say_how_many_pixels_were_compared() -> None:
    verdict = compare_masks(masks(scene()), masks(scene()))
    assert (verdict.ok, verdict.compared) == (True, 2000)
    assert verdict.reason == "0 % of the mask has another class (limit 0.5 %)"


def test_a_few_pixels_between_two_classes_may_fall_to_either_side() -> None:
    assert compare_masks(masks(scene()), masks(flipped(10))).ok
    verdict = compare_masks(masks(scene()), masks(flipped(11)))
    assert not verdict.ok
    assert verdict.reason == "0.55 % of the mask has another class (limit 0.5 %), such as class 0 in place of 1"
    assert compare_masks(masks(scene()), masks(flipped(40)), Tolerances(mask=0.02)).ok
    assert not compare_masks(masks(scene()), masks(flipped(41)), Tolerances(mask=0.02)).ok


def swap_road_and_wall(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.array([1, 0, 2], np.uint8)[mask]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (np.zeros_like, "the mask of another picture"),
        (lambda mask: mask[:, ::-1], "upside down"),
        (lambda mask: np.roll(mask, 1, axis=1), "shifted by a pixel"),
        (swap_road_and_wall, "swapped classes"),
        (lambda mask: mask + 1, "classes counted from one"),
        (lambda mask: np.where(mask == 2, 0, mask).astype(np.uint8), "the sign is gone"),
        (lambda mask: np.full_like(mask, 255), "nothing but void"),
    ],
)
def test_it_is_noticed_of_a_mask_that_it_is(change: Any, why: str) -> None:
    for tolerances in (STRICT, LOOSE):
        assert not compare_masks(masks(scene()), masks(change(scene())), tolerances).ok, why


def test_a_mask_of_another_size_or_without_its_confidence_never_agrees() -> None:
    sure = np.full_like(scene(), 255)
    assert "expected outputs" in compare_masks(masks(scene()), masks(scene()[:, 1:])).reason
    assert not compare_masks(masks(scene(), sure), masks(scene())).ok
    assert not compare_masks(masks(scene()), masks(scene(), sure)).ok


def test_confidences_agree_within_the_tolerance_for_scores_and_a_level_of_rounding() -> None:
    sure = np.full_like(scene(), 200)
    assert compare_masks(masks(scene(), sure), masks(scene(), sure + 1)).ok
    assert compare_masks(masks(scene(), sure), masks(scene(), sure - 26), LOOSE).ok, "26 levels are a tenth"
    verdict = compare_masks(masks(scene(), sure), masks(scene(), sure - 2))
    assert not verdict.ok
    assert verdict.reason == "100 % of the confidences differ by more than 1 of 255 (limit 0.5 %)"
    assert not compare_masks(masks(scene(), sure * 0), masks(scene(), sure * 0 + 255), LOOSE).ok, "255 is far from 0"
