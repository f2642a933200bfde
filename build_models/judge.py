"""Judging variants against fp32 on pictures: with their labels, or by how far a variant agrees with fp32 without."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from build_models.errors import RecipeError
from build_models.metrics.agreement import truth_of
from build_models.metrics.base import value
from build_models.metrics.bootstrap import paired_bootstrap
from build_models.metrics.table import make_measure, usual_measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.model.manifest import Task
    from agent.model.session import Session
    from agent.vision.resize import Placement
    from build_models.data.sample import Truth
    from build_models.metrics.base import Measure, Outputs
    from build_models.metrics.bootstrap import Drop
    from build_models.pictures import Picture, Pictures
    from build_models.progress import Progress
    from build_models.recipe import Recipe

# Without labels fp32's own answers are the truth, and int8 boxes need not lie as exactly as labelled ones.
_AGREEMENT: Mapping[Task, str] = {"classify": "top1", "detect": "map50", "segment": "pixel_accuracy"}


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at all pictures tells of a variant.

    Attributes:
        drop: of the metric, with its 95 % interval.
        agreement: the part of fp32's own answers that it loses; without labels the same as ``drop``. Few labels are a
            rough scale for small differences, and the answers of fp32 are many: what ranks variants is this.
    """

    drop: Drop
    agreement: Drop


class Judge:
    """Compares variants with fp32 on one set of pictures.

    Args:
        recipe: its budget, labels and thresholds.
        pictures: those to judge with; without labels fp32's answers stand in.
        reference: a session of the fp32 file.
        progress: shows how far a look at all pictures has come.
        merge: for masks, predicted label: the label that it counts as.

    Raises:
        RecipeError: the pictures show nothing that could be judged.
    """

    def __init__(
        self,
        recipe: Recipe,
        pictures: Pictures,
        reference: Session,
        progress: Progress,
        merge: Mapping[str, str] | None = None,
    ) -> None:
        self.pictures = pictures
        self.labelled = pictures.dataset.task is not None
        self._progress = progress
        self._seed = recipe.data.seed if recipe.data else 0
        self._task = recipe.task
        self._defaults = recipe.defaults
        agreement = _Scale(_measure(recipe, _AGREEMENT[recipe.task], None))
        self._agreement = agreement
        self._metric = agreement
        if self.labelled:
            wanted = recipe.budget.metric
            self._metric = _Scale(_measure(recipe, usual_measure(recipe.task) if wanted == "auto" else wanted, merge))
        self._observe_reference(reference)
        if math.isnan(value(self._metric.measure, self._metric.reference)):
            raise RecipeError(_nothing_to_judge(self.name, len(pictures), labelled=self.labelled))

    @property
    def name(self) -> str:
        """What is measured: ``map50_95``, or ``agreement (map50)`` without labels."""
        name = self._metric.measure.name
        return name if self.labelled else f"agreement ({name})"

    @property
    def reference_value(self) -> float | None:
        """What fp32 itself reaches; None without labels."""
        return value(self._metric.measure, self._metric.reference) if self.labelled else None

    def drop(self, candidate: Session) -> Drop:
        """What a variant loses, with its 95 % interval."""
        (drop,) = self._drops(candidate, [self._metric])
        return drop

    def look(self, candidate: Session) -> Look:
        """The same, and how far the variant agrees with fp32."""
        if not self.labelled:
            drop = self.drop(candidate)
            return Look(drop, drop)
        return Look(*self._drops(candidate, [self._metric, self._agreement]))

    def _drops(self, candidate: Session, scales: Sequence[_Scale]) -> list[Drop]:
        observations: list[list[Any]] = [[] for _ in scales]
        for index, picture in enumerate(self._track("judging")):
            candidate.input_image[:] = picture.input_image
            outputs = candidate.run()
            for scale, seen in zip(scales, observations, strict=True):
                seen.append(scale.measure.observe(outputs, scale.truths[index], picture.placement))
        return [
            paired_bootstrap(scale.measure, scale.reference, seen, seed=self._seed)
            for scale, seen in zip(scales, observations, strict=True)
        ]

    def _observe_reference(self, reference: Session) -> None:
        for picture in self._track("fp32"):
            reference.input_image[:] = picture.input_image
            outputs = reference.run()
            answers = truth_of(outputs, picture.placement, self._task, self._defaults)
            self._agreement.add(outputs, answers, picture.placement)
            if self._metric is not self._agreement:
                assert picture.truth is not None, "a dataset with a task has labels"
                self._metric.add(outputs, picture.truth, picture.placement)

    def _track(self, what: str) -> Iterator[Picture]:
        return self._progress.track(self.pictures, len(self.pictures), "picture", what)


class _Scale:
    """A measure with the truths that it is taken against, and what it saw of fp32."""

    def __init__(self, measure: Measure[Any]) -> None:
        self.measure = measure
        self.truths: list[Truth] = []
        self.reference: list[Any] = []

    def add(self, outputs: Outputs, truth: Truth, placement: Placement) -> None:
        self.truths.append(truth)
        self.reference.append(self.measure.observe(outputs, truth, placement))


def _measure(recipe: Recipe, name: str, merge: Mapping[str, str] | None) -> Measure[Any]:
    return make_measure(name, recipe.task, recipe.defaults, recipe.labels, recipe.budget.classes, merge)


def _nothing_to_judge(name: str, pictures: int, *, labelled: bool) -> str:
    if labelled:
        return (
            f"data: expected something labelled in the {pictures} pictures to judge by {name}, found nothing; are "
            "these the right labels, and budget.classes among them?"
        )
    return (
        f"data: expected fp32 to find something in the {pictures} pictures to judge by {name}, it finds nothing; give "
        "pictures like those that the device will see, or look at input and defaults of the recipe"
    )
