"""Without labels, the float model's own answers are the truth: any measure then says how well a variant agrees."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

import numpy as np

from agent.vision.decode import Thresholds, decode_class, decode_detections, decode_mask
from build_models.data.sample import IGNORE, BoxesTruth, ClassTruth, MaskTruth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.model.manifest import Defaults, Task
    from agent.vision.mask import FrameMask
    from agent.vision.resize import Placement
    from build_models.data.sample import Truth
    from build_models.metrics.base import Outputs


def truth_of(outputs: Outputs, placement: Placement, task: Task, defaults: Defaults) -> Truth:
    """What the device would report for these outputs, as a truth of its own.

    A mask is kept as coarse as the model gives it, and laid over the picture when it is asked for.

    Args:
        outputs: canonical, of the float model; they are copied.
        placement: where the picture lies in the input.
        task: of the model.
        defaults: thresholds from which a detection counts.
    """
    if task == "classify":
        return ClassTruth(decode_class(outputs)[0])
    if task == "segment":
        mask = decode_mask(outputs, placement)
        return MaskTruth(functools.partial(_on_picture, mask), hashlib.sha256(mask.ids.tobytes()).hexdigest())
    thresholds = Thresholds(defaults.score_threshold, defaults.iou_threshold, defaults.max_detections)
    seen = decode_detections(outputs, placement, thresholds)
    return BoxesTruth(seen.boxes_xyxy, seen.labels, np.zeros(len(seen.labels), np.bool_))


def _on_picture(mask: FrameMask) -> NDArray[np.int16]:
    width, height = mask.frame_wh
    ids: NDArray[np.int16] = np.full((height, width), IGNORE, np.int16)
    seen_ids, seen = mask.on_frame()
    ids[seen] = seen_ids
    return ids
