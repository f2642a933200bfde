"""Judging variants against fp32 on pictures: with their labels, or by how far a variant agrees with fp32 without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build_models.metrics.agreement import truth_of
from build_models.metrics.base import value
from build_models.metrics.bootstrap import paired_bootstrap
from build_models.metrics.table import make_measure, usual_measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.model.manifest import Task
    from agent.model.session import Session
    from build_models.metrics.base import Measure
    from build_models.metrics.bootstrap import Drop
    from build_models.pictures import Picture, Pictures
    from build_models.progress import Progress
    from build_models.recipe import Recipe

# Without labels fp32's own answers are the truth, and int8 boxes need not lie as exactly as labelled ones.
_AGREEMENT: Mapping[Task, str] = {"classify": "top1", "detect": "map50", "segment": "pixel_accuracy"}


class Judge:
    """Compares variants with fp32 on one set of pictures.

    Args:
        recipe: its budget, labels and thresholds.
        pictures: those to judge with; without labels fp32's answers stand in.
        reference: a session of the fp32 file.
        progress: shows how far a look at all pictures has come.
    """

    def __init__(self, recipe: Recipe, pictures: Pictures, reference: Session, progress: Progress) -> None:
        self.pictures = pictures
        self._progress = progress
        self.labelled = pictures.dataset.task is not None
        self._seed = recipe.data.seed if recipe.data else 0
        self._task = recipe.task
        self._measure = _measure_for(recipe, self.labelled)
        self._truths: list[Any] = []
        self._reference = self._observe_reference(reference, recipe)

    @property
    def name(self) -> str:
        """What is measured: ``map50_95``, or ``agreement (map50)`` without labels."""
        return self._measure.name if self.labelled else f"agreement ({self._measure.name})"

    @property
    def reference_value(self) -> float | None:
        """What fp32 itself reaches; None without labels."""
        if not self.labelled:
            return None
        return value(self._measure, self._reference)

    def drop(self, candidate: Session) -> Drop:
        """What a variant loses, with its 95 % interval."""
        observations = []
        for picture, truth in zip(self._track(self.pictures, "judging"), self._truths, strict=True):
            candidate.input_image[:] = picture.input_image
            observations.append(self._measure.observe(candidate.run(), truth, picture.placement))
        return paired_bootstrap(self._measure, self._reference, observations, seed=self._seed)

    def _observe_reference(self, reference: Session, recipe: Recipe) -> Sequence[Any]:
        observations = []
        for picture in self._track(self.pictures, "fp32"):
            reference.input_image[:] = picture.input_image
            outputs = reference.run()
            truth = picture.truth if self.labelled else None
            if truth is None:
                truth = truth_of(outputs, picture.placement, self._task, recipe.defaults)
            self._truths.append(truth)
            observations.append(self._measure.observe(outputs, truth, picture.placement))
        return observations

    def _track(self, pictures: Pictures, what: str) -> Iterator[Picture]:
        return self._progress.track(pictures, len(pictures), "picture", what)


def _measure_for(recipe: Recipe, labelled: bool) -> Measure[Any]:
    wanted = recipe.budget.metric
    usual = usual_measure(recipe.task) if labelled else _AGREEMENT[recipe.task]
    name = usual if wanted == "auto" or not labelled else wanted
    merge = getattr(recipe.data and (recipe.data.val or recipe.data.train), "merge", None) if labelled else None
    return make_measure(name, recipe.task, recipe.defaults, recipe.labels, recipe.budget.classes, merge)
