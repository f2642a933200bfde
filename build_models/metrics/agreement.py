"""Without labels, the float model's own answers are the truth: any measure then says how well a variant agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.model.manifest import Defaults, Task
    from agent.vision.resize import Placement
    from build_models.data.sample import Truth
    from build_models.metrics.base import Outputs


def truth_of(outputs: Outputs, placement: Placement, task: Task, defaults: Defaults) -> Truth:
    """What the device would report for these outputs, as a truth of its own; nothing of the outputs is kept.

    Args:
        outputs: canonical, of the float model.
        placement: where the picture lies in the input.
        task: of the model.
        defaults: thresholds from which a detection counts.
    """
    raise NotImplementedError
