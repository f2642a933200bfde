"""A tensor as a picture: channels side by side, each stretched to its own range, which stands under it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CHANNELS = 64
_MOST_BARS = 512
_TILE_PX, _LEAST_TILE_PX, _GAP_PX = 224, 112, 6
_SHEET_PX = 1600
_CAPTION_PX, _HEAD_PX = 16, 24
_MATRIX_WH = (1200, 900)
_BARS_WH = (1024, 256)
_INK, _PAPER, _BAR, _BROKEN = (40, 40, 40), (255, 255, 255), (160, 90, 30), (60, 60, 230)  # BGR


def draw(array: NDArray[Any], title: str, channel_axis: int | None) -> NDArray[np.uint8]:
    """BGR picture of a tensor of any shape; of a batch, the first.

    Args:
        array: numbers or truth values.
        title: stands on top, with what is shown.
        channel_axis: 1 or 3 when it is a batch of pictures; None: by its shape alone.

    Returns:
        A sheet with a tile a channel for three axes or more, one picture for a matrix, bars for a vector. Numbers
        that are not finite are red.
    """
    values = np.asarray(array, np.float64)
    if values.ndim == 4 and channel_axis == 3:
        values = values.transpose(0, 3, 1, 2)
    while values.ndim > 3:
        values = values[0]
    while values.ndim > 1 and 1 in values.shape[:2] and values.ndim < 3:
        values = values.reshape(-1)  # a row or a column is a vector
    if values.ndim == 3 and values.shape[1:] == (1, 1):
        values = values.reshape(-1)  # a number a channel
    if values.ndim == 3 and len(values) == 1 and channel_axis is None:
        values = values[0]
    if values.ndim < 2:
        return _with_head(_bars(values.reshape(-1)), f"{title}  {_range(values)}")
    if values.ndim == 2:
        return _with_head(_shrunk(_colored(values), _MATRIX_WH), f"{title}  {_range(values)}")
    shown = values[:MOST_CHANNELS]
    note = (
        f"  first {len(shown)} of {len(values)} channels" if len(shown) < len(values) else f"  {len(values)} channels"
    )
    return _with_head(_tiles(shown), title + note)


def _tiles(channels: NDArray[np.float64]) -> NDArray[np.uint8]:
    count, height, width = channels.shape
    columns = max(1, min(count, math.ceil(math.sqrt(count)), (_SHEET_PX + _GAP_PX) // (_LEAST_TILE_PX + _GAP_PX)))
    tile_px = max(_LEAST_TILE_PX, min(_TILE_PX, _SHEET_PX // columns - _GAP_PX))
    ratio = tile_px / max(height, width)
    inner_wh = max(1, round(width * ratio)), max(1, round(height * ratio))
    cell_w, cell_h = tile_px + _GAP_PX, inner_wh[1] + _CAPTION_PX + _GAP_PX
    sheet = np.full((math.ceil(count / columns) * cell_h, columns * cell_w, 3), _PAPER, np.uint8)
    for index, channel in enumerate(channels):
        row, column = divmod(index, columns)
        y, x = row * cell_h, column * cell_w
        smaller = cv2.INTER_NEAREST if ratio >= 1 else cv2.INTER_AREA
        sheet[y : y + inner_wh[1], x : x + inner_wh[0]] = cv2.resize(_colored(channel), inner_wh, interpolation=smaller)
        _write(sheet, f"{index}: {_range(channel)}", (x, y + inner_wh[1] + _CAPTION_PX - 4), 0.36)
    return sheet


def _colored(plane: NDArray[np.float64]) -> NDArray[np.uint8]:
    """From the least value, dark, to the largest, yellow; one and the same value everywhere is dark."""
    finite = np.isfinite(plane)
    low, high = (plane[finite].min(), plane[finite].max()) if finite.any() else (0.0, 0.0)
    # Halved before the subtraction: the distance of two float64 may be more than a float64 can hold.
    span = high / 2 - low / 2
    share = np.where(finite, plane / 2 - low / 2, 0.0) / span if span > 0 else np.zeros(plane.shape)
    colored = cv2.applyColorMap(np.round(share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    colored[~finite] = _BROKEN
    return np.asarray(colored, np.uint8)


def _bars(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One bar a number from the zero line; of many, groups with their smallest and largest."""
    width, height = _BARS_WH
    picture = np.full((height, width, 3), _PAPER, np.uint8)
    if not values.size:
        return picture
    groups = np.array_split(values, min(len(values), _MOST_BARS))
    finite = values[np.isfinite(values)]
    low, high = (min(0.0, finite.min()), max(0.0, finite.max())) if finite.size else (0.0, 0.0)
    span = (high - low) or 1.0

    def y_of(value: float) -> int:
        return round((high - value) / span * (height - 1))

    for index, group in enumerate(groups):
        left, right = (round(place * width / len(groups)) for place in (index, index + 1))
        if len(groups) * 3 < width:
            right -= 1
        if not np.isfinite(group).all():
            picture[:, left:right] = _BROKEN
            continue
        top, bottom = y_of(max(0.0, group.max())), y_of(min(0.0, group.min()))
        picture[top : bottom + 1, left:right] = _BAR
    picture[y_of(0.0)] = _INK
    return picture


def _shrunk(picture: NDArray[np.uint8], most_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """At most so large; a small matrix is enlarged to squares that can be seen."""
    height, width = picture.shape[:2]
    larger = max(1, min(16, most_wh[0] // width, most_wh[1] // height))
    wanted_wh = min(most_wh[0], width * larger), min(most_wh[1], height * larger)
    how = cv2.INTER_NEAREST if wanted_wh[0] >= width and wanted_wh[1] >= height else cv2.INTER_AREA
    return np.asarray(cv2.resize(picture, wanted_wh, interpolation=how), np.uint8)


def _with_head(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    width = max(picture.shape[1], min(_SHEET_PX, 8 * len(text)))
    sheet = np.full((picture.shape[0] + _HEAD_PX, width, 3), _PAPER, np.uint8)
    sheet[_HEAD_PX:, : picture.shape[1]] = picture
    _write(sheet, text, (2, _HEAD_PX - 8), 0.42)
    return sheet


def _write(picture: NDArray[np.uint8], text: str, place_xy: tuple[int, int], scale: float) -> None:
    """OpenCV's font has ASCII only."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, place_xy, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)


def _range(values: NDArray[np.float64]) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "nothing finite" if values.size else "empty"
    broken = "" if finite.size == values.size else f", {values.size - finite.size} not finite"
    return f"{finite.min():.3g} .. {finite.max():.3g}{broken}"
