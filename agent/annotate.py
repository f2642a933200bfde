"""A picture with what was seen in it, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.vision.draw import draw_caption, draw_detections, draw_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from agent.tasks import Sighting


def annotated(image_bgr: NDArray[np.uint8], sighting: Sighting, labels: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of a uint8 BGR picture ``[H, W, 3]`` with boxes, coloured areas, or the name of its class."""
    if sighting.detections is not None:
        return draw_detections(image_bgr, sighting.detections, labels)
    if sighting.mask is not None:
        return draw_mask(image_bgr, sighting.mask, labels)
    class_ = sighting.class_
    return draw_caption(image_bgr, f"{class_.label} {class_.score:.2f}" if class_ is not None else "no class")
