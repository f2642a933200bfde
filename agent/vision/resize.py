"""The agent's whole preprocessing: one resize of a frame into the model's bound input buffer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.model.manifest import InputSpec

_INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in the input of ``input_wh``: ``input = frame * scale_xy + offset_xy``, all in pixels."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]
    frame_wh: tuple[int, int]
    input_wh: tuple[int, int]

    def to_frame(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes ``[N, 4]`` in input pixels become boxes in frame pixels, clipped to the frame."""
        scale, offset, limit = _columns(self)
        boxes: NDArray[np.float32] = (boxes_xyxy - offset) / scale
        np.minimum(boxes, limit, out=boxes)
        return np.maximum(boxes, 0, out=boxes)


@lru_cache(maxsize=64)
def _columns(placement: Placement) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Scale, offset and limit of the four columns of boxes: the same for every frame of a camera."""
    both = (placement.scale_xy, placement.offset_xy, placement.frame_wh)
    scale, offset, limit = (np.array(pair * 2, np.float32) for pair in both)
    return scale, offset, limit


class Resizer:
    """Resizes frames of any size into one buffer; what depends on the frame's size is worked out once per size.

    Args:
        spec: the variant's input.
        out_image: uint8 ``[height, width, 3]``, the bound input buffer; borders of a letterbox are filled once
            per frame size, so others may write to it only through `load`.
    """

    def __init__(self, spec: InputSpec, out_image: NDArray[np.uint8]) -> None:
        if out_image.shape != (spec.height, spec.width, 3) or out_image.dtype != np.uint8:
            expected = [spec.height, spec.width, 3]
            raise ValueError(f"expected a uint8 buffer {expected}, got {out_image.dtype} {list(out_image.shape)}")
        self._spec = spec
        self._out = out_image
        self._interpolation = _INTERPOLATIONS[spec.interpolation]
        # A whole row, because numpy copies rows a hundred times as fast as it repeats three bytes.
        self._pad_row: NDArray[np.uint8] = np.full((spec.width, 3), spec.pad_bgr, np.uint8)
        self._plan: _Plan | None = None

    def __call__(self, image_bgr: NDArray[np.uint8]) -> Placement:
        """Resize a uint8 BGR frame ``[h, w, 3]`` into the buffer and say where it lies there."""
        height, width = image_bgr.shape[:2]
        plan = self._plan
        if plan is None or plan.placement.frame_wh != (width, height):
            plan = self._plan = _make_plan(self._spec, width, height)
            if self._spec.resize == "letterbox":
                self._out[:] = self._pad_row
        source = image_bgr[plan.source]
        target = self._out[plan.target]
        if source.shape == target.shape:
            np.copyto(target, source)
        else:
            cv2.resize(source, (target.shape[1], target.shape[0]), dst=target, interpolation=self._interpolation)
        return plan.placement

    def load(self, prepared: NDArray[np.uint8]) -> None:
        """Copy a picture that is an input already, such as another `Resizer` of this input made, into the buffer."""
        np.copyto(self._out, prepared)
        self._plan = None  # its borders may lie elsewhere


@dataclass(frozen=True, slots=True)
class _Plan:
    """The part of the frame that is read, the part of the buffer that is written, and what that means for boxes."""

    source: tuple[slice, slice]
    target: tuple[slice, slice]
    placement: Placement


def _make_plan(spec: InputSpec, width: int, height: int) -> _Plan:
    if spec.resize == "stretch":
        target_xywh, source_xywh = (0, 0, spec.width, spec.height), (0, 0, width, height)
    elif spec.resize == "letterbox":
        ratio = min(spec.width / width, spec.height / height)
        inner_w = min(spec.width, max(1, round(width * ratio)))
        inner_h = min(spec.height, max(1, round(height * ratio)))
        centred = spec.align == "center"
        x = (spec.width - inner_w) // 2 if centred else 0
        y = (spec.height - inner_h) // 2 if centred else 0
        target_xywh, source_xywh = (x, y, inner_w, inner_h), (0, 0, width, height)
    else:
        # The largest part with the input's proportions, of which crop_ratio is kept, from the middle.
        ratio = max(spec.width / width, spec.height / height) / spec.crop_ratio
        crop_w = min(width, max(1, round(spec.width / ratio)))
        crop_h = min(height, max(1, round(spec.height / ratio)))
        target_xywh = (0, 0, spec.width, spec.height)
        source_xywh = ((width - crop_w) // 2, (height - crop_h) // 2, crop_w, crop_h)
    scale_x, scale_y = target_xywh[2] / source_xywh[2], target_xywh[3] / source_xywh[3]
    offset_x, offset_y = target_xywh[0] - source_xywh[0] * scale_x, target_xywh[1] - source_xywh[1] * scale_y
    placement = Placement((scale_x, scale_y), (offset_x, offset_y), (width, height), (spec.width, spec.height))
    return _Plan(_slices(source_xywh), _slices(target_xywh), placement)


def _slices(xywh: tuple[int, int, int, int]) -> tuple[slice, slice]:
    x, y, width, height = xywh
    return slice(y, y + height), slice(x, x + width)
