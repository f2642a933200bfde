"""Boxes, masks and labels drawn on a picture, for people."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.vision.detections import name_of
from agent.vision.mask import CLASS_IDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.vision.detections import Detections
    from agent.vision.mask import FrameMask

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TINT = 0.45  # of a mask's colour in a pixel: the picture stays recognisable under it
_UNNAMED = (128, 128, 128)
_LEGEND_LINES = 12


def draw_detections(image_bgr: NDArray[np.uint8], detections: Detections, labels: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of a uint8 BGR picture ``[H, W, 3]`` with a box, a label and a score for each detection."""
    canvas = image_bgr.copy()
    for box_xyxy, score, label in zip(
        detections.boxes_xyxy.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    ):
        _draw_box(canvas, box_xyxy, f"{name_of(labels, label)} {score:.2f}", color_of(label))
    return canvas


def draw_mask(image_bgr: NDArray[np.uint8], mask: FrameMask, labels: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of a uint8 BGR picture ``[H, W, 3]``, the frame of the mask, tinted with the classes' colours.

    Class ids without a label, such as 255 for "void", are grey. A legend names the classes with the largest shares, as
    many as fit. What a crop hid from the model is not tinted.
    """
    palette = _palette(len(labels))
    canvas = image_bgr.copy()
    ids, seen = mask.on_frame()
    canvas[seen] = cv2.addWeighted(canvas[seen], 1 - _TINT, cv2.applyColorMap(ids, palette), _TINT, 0)
    line_px = _strip_px(canvas)
    lines = min(_LEGEND_LINES, max(1, canvas.shape[0] // line_px))
    for number, (class_id, share) in enumerate(list(mask.areas().items())[:lines], start=1):
        blue, green, red = palette[class_id, 0].tolist()
        text = f"{name_of(labels, class_id)} {share:.1%}"
        _draw_text(canvas, text, 0, number * line_px, (blue, green, red))
    return canvas


def draw_caption(image_bgr: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """A copy of a uint8 BGR picture with one line of text in its top left corner."""
    canvas = image_bgr.copy()
    _draw_text(canvas, text, 0, 0, (48, 48, 48))
    return canvas


def color_of(label: int) -> tuple[int, int, int]:
    """A colour (BGR) for a class id; neighbours differ: hues are a golden angle apart."""
    hue = int(label * 180 * 0.381966) % 180  # OpenCV counts half degrees, so that hues fit into a byte
    color = cv2.cvtColor(np.array([[[hue, 200, 230]]], np.uint8), cv2.COLOR_HSV2BGR)
    return int(color[0, 0, 0]), int(color[0, 0, 1]), int(color[0, 0, 2])


@lru_cache(maxsize=8)
def _palette(labels: int) -> NDArray[np.uint8]:
    """The colours of all class ids, uint8 ``[256, 1, 3]``; the first ``labels`` of them have one of their own."""
    colors = [color_of(class_id) if class_id < labels else _UNNAMED for class_id in range(CLASS_IDS)]
    return np.array(colors, np.uint8)[:, None]


def _draw_box(canvas: NDArray[np.uint8], box_xyxy: Sequence[float], text: str, color: tuple[int, int, int]) -> None:
    left, top, right, bottom = (round(side) for side in box_xyxy)
    cv2.rectangle(canvas, (left, top), (right, bottom), color, _line_px(canvas))
    _draw_text(canvas, text, left, top, color)


def _draw_text(canvas: NDArray[np.uint8], text: str, left: int, bottom: int, color: tuple[int, int, int]) -> None:
    """Text on a filled strip above ``bottom``, moved inside the picture."""
    scale = _text_scale(canvas)
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, 1)
    strip = height + baseline + 2
    left = max(0, min(left, canvas.shape[1] - width))
    top = max(0, min(bottom - strip, canvas.shape[0] - strip))
    cv2.rectangle(canvas, (left, top), (left + width, top + strip), color, -1)
    ink = (0, 0, 0) if sum(color) > 300 else (255, 255, 255)
    cv2.putText(canvas, text, (left, top + height + 1), _FONT, scale, ink, 1, cv2.LINE_AA)


def _line_px(canvas: NDArray[np.uint8]) -> int:
    return max(1, int(canvas.shape[1]) // 500)


def _strip_px(canvas: NDArray[np.uint8]) -> int:
    """The height of the highest strip of text: letters that reach below the line may make one higher than others."""
    (_, height), baseline = cv2.getTextSize("Xgp|", _FONT, _text_scale(canvas), 1)
    return int(height + baseline + 2)


def _text_scale(canvas: NDArray[np.uint8]) -> float:
    return max(0.5, float(canvas.shape[1]) / 1600)
