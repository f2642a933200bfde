"""The measures by name, and the usual one per task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.model.manifest import Defaults, Task
    from build_models.metrics.base import Measure

MeasureName = Literal["top1", "top5", "map50_95", "map50", "miou", "pixel_accuracy"]
USUAL: dict[Task, MeasureName] = {"classify": "top1", "detect": "map50_95", "segment": "miou"}


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
    raise NotImplementedError
