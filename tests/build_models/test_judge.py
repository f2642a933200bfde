"""The judge: labels where there are some, fp32's own answers elsewhere, and every picture once a look."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from agent.vision.resize import Placement
from build_models.data.sample import ClassTruth
from build_models.errors import RecipeError
from build_models.judge import Judge
from build_models.pictures import Picture, Pictures
from build_models.progress import Progress
from build_models.recipe_file import make_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from agent.model.session import Session
    from build_models.data.sample import Truth
    from build_models.recipe import Recipe

pytestmark = pytest.mark.build

SIDE = 8
LABELS = ["cat", "dog", "cow"]
TRUTHS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


class FakePictures:
    """The n-th picture is all n; counts the looks at it."""

    def __init__(self, truths: Sequence[int], *, labelled: bool) -> None:
        self.dataset = self
        self.task = "classify" if labelled else None
        self.looks = 0
        placement = Placement((1.0, 1.0), (0.0, 0.0), (SIDE, SIDE), (SIDE, SIDE))
        self._pictures = []
        for number, label in enumerate(truths):
            truth: Truth | None = ClassTruth(label) if labelled else None
            image = np.full((SIDE, SIDE, 3), number, np.uint8)
            self._pictures.append(Picture(f"{number}.png", truth, image, placement))

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[Picture]:
        self.looks += 1
        return iter(self._pictures)


class FakeSession:
    """Says the n-th of its answers of the n-th picture, and counts its runs."""

    def __init__(self, answers: Sequence[int]) -> None:
        self.input_image = np.zeros((SIDE, SIDE, 3), np.uint8)
        self.runs = 0
        self._answers = answers

    def run(self) -> dict[str, NDArray[Any]]:
        self.runs += 1
        scores = np.full((1, len(LABELS)), 0.1, np.float32)
        scores[0, self._answers[int(self.input_image[0, 0, 0])]] = 0.8
        return {"scores": scores}


def session(answers: Sequence[int]) -> Session:
    return cast("Session", FakeSession(answers))


def recipe(**budget: Any) -> Recipe:
    return make_recipe(
        {
            "name": "judged",
            "source": {"kind": "onnx", "path": "none.onnx"},
            "output": {"family": "logits"},
            "labels": LABELS,
            "budget": budget,
        }
    )


def judge_of(reference: Sequence[int], *, labelled: bool, **budget: Any) -> tuple[Judge, FakePictures]:
    pictures = FakePictures(TRUTHS, labelled=labelled)
    judge = Judge(recipe(**budget), cast("Pictures", pictures), session(reference), Progress(1, io.StringIO()))
    return judge, pictures


def changed(answers: Sequence[int], *places: int) -> list[int]:
    return [(answer + 1) % 3 if index in places else answer for index, answer in enumerate(answers)]


def test_with_labels_they_are_the_scale() -> None:
    judge, _ = judge_of(changed(TRUTHS, 0), labelled=True)
    assert (judge.name, judge.reference_value) == ("top1", 0.9)
    drop = judge.drop(session(changed(TRUTHS, 1, 2, 3)))
    assert (drop.reference, drop.candidate) == (0.9, 0.7)
    assert drop.value == pytest.approx(0.2)
    assert drop.low < drop.value < drop.high


def test_a_variant_may_be_better_than_fp32() -> None:
    judge, _ = judge_of(changed(TRUTHS, 0, 1), labelled=True)
    assert judge.drop(session(TRUTHS)).value == pytest.approx(-0.2)


def test_without_labels_fp32_is_the_scale_also_where_it_is_wrong() -> None:
    judge, _ = judge_of(changed(TRUTHS, 0, 1), labelled=False)
    assert (judge.name, judge.reference_value) == ("agreement (top1)", None)
    assert judge.drop(session(TRUTHS)).value == pytest.approx(0.2)
    assert judge.drop(session(changed(TRUTHS, 0, 1))).value == 0.0


def test_a_look_also_tells_how_many_of_fp32s_answers_are_kept() -> None:
    wrong = changed(TRUTHS, 0, 1)
    judge, _ = judge_of(wrong, labelled=True)
    look = judge.look(session(changed(changed(TRUTHS, 0), 0)))
    assert look.drop.value == pytest.approx(-0.1), "picture 1 is right now, 0 is wrong in another way"
    assert look.agreement.value == pytest.approx(0.2), "two answers are others than fp32's"


def test_without_labels_both_are_the_same() -> None:
    judge, _ = judge_of(TRUTHS, labelled=False)
    look = judge.look(session(changed(TRUTHS, 4)))
    assert look.drop == look.agreement


@pytest.mark.parametrize("labelled", [True, False])
def test_every_picture_is_looked_at_once_by_fp32_and_once_by_each_variant(*, labelled: bool) -> None:
    judge, pictures = judge_of(TRUTHS, labelled=labelled)
    assert pictures.looks == 1
    candidate = FakeSession(TRUTHS)
    judge.look(cast("Session", candidate))
    assert (pictures.looks, candidate.runs) == (2, len(TRUTHS))


def test_the_interval_is_the_same_every_time() -> None:
    judge, _ = judge_of(TRUTHS, labelled=True)
    assert judge.drop(session(changed(TRUTHS, 3))) == judge.drop(session(changed(TRUTHS, 3)))


def test_some_labels_alone_can_be_judged() -> None:
    wrong_dogs = [2 if label == 1 else label for label in TRUTHS]
    dogs, _ = judge_of(TRUTHS, labelled=True, classes=["dog"])
    others, _ = judge_of(TRUTHS, labelled=True, classes=["cat", "cow"])
    assert dogs.drop(session(wrong_dogs)).value == 1.0
    assert others.drop(session(wrong_dogs)).value == 0.0


def test_labels_that_never_occur_are_told_before_anything_is_judged() -> None:
    cats = [0] * len(TRUTHS)
    with pytest.raises(RecipeError, match="expected something labelled in the 10 pictures to judge by top1"):
        Judge(
            recipe(classes=["dog"]),
            cast("Pictures", FakePictures(cats, labelled=True)),
            session(cats),
            Progress(1, io.StringIO()),
        )
    assert judge_of(TRUTHS, labelled=True, classes=["dog"])[0].reference_value == 1.0
