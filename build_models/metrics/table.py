"""The measures by name, and the usual one per task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from build_models.data.problems import LabelIds, Problems
from build_models.errors import RecipeError
from build_models.metrics.average_precision import MeanAveragePrecision
from build_models.metrics.iou import MeanIou, PixelAccuracy
from build_models.metrics.top_k import TopK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.model.manifest import Defaults, Task
    from build_models.metrics.base import Measure

MeasureName = Literal["top1", "top5", "map50_95", "map50", "miou", "pixel_accuracy"]
OF_TASK: dict[Task, tuple[MeasureName, ...]] = {
    "classify": ("top1", "top5"),
    "detect": ("map50_95", "map50"),
    "segment": ("miou", "pixel_accuracy"),
}


def usual_measure(task: Task) -> MeasureName:
    """The one that a recipe means which names none."""
    return OF_TASK[task][0]


def make_measure(
    name: str,
    task: Task,
    defaults: Defaults,
    labels: Sequence[str],
    classes: Sequence[str] | None = None,
    merge: Mapping[str, str] | None = None,
) -> Measure[Any]:
    """The measure of that name.

    Args:
        name: one of `MeasureName`.
        task: of the model; must be the measure's.
        defaults: the recipe's thresholds: of them, the overlap for suppression counts.
        labels: index = class id.
        classes: judge these labels alone; None: all.
        merge: for masks, predicted label: the label that it counts as.

    Raises:
        RecipeError: an unknown name, another task's measure, or a label that there is not.
    """
    if name not in OF_TASK[task]:
        raise RecipeError(f"expected a measure to {task}, one of {', '.join(OF_TASK[task])}, got {name!r}")
    problems = Problems()
    ids = LabelIds(labels, problems)
    chosen = None if classes is None else frozenset(_ids(ids, classes, "classes"))
    merged = dict(zip(_ids(ids, merge or {}, "merge"), _ids(ids, (merge or {}).values(), "merge"), strict=False))
    if len(problems):
        problems.raise_for(f"measure {name}")
    if task == "classify":
        return TopK({"top1": 1, "top5": 5}[name], chosen)
    if task == "detect":
        return MeanAveragePrecision(defaults.iou_threshold, chosen, loose=name == "map50")
    return (MeanIou if name == "miou" else PixelAccuracy)(len(labels), chosen, merged)


def _ids(ids: LabelIds, names: Iterable[str], where: str) -> list[int]:
    """Class ids of those names that are labels; of the others, problems are noted."""
    found = (ids.id_of(name, where) for name in names)
    return [label_id for label_id in found if label_id is not None]
