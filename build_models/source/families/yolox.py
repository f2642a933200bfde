"""Family ``yolox``: a raw grid ``[1, N, 5 + classes]``; objectness and classes went through a sigmoid already.

Per cell (column x, row y) of a grid of stride s: centre ``(xy + (x, y)) * s``, size ``exp(wh) * s``,
score ``objectness * class`` (Ge et al., YOLOX: Exceeding YOLO Series in 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from build_models.graph.best_anchors import best_anchors
from build_models.source.families.base import Arrays, DetectFamily, Head, reference_selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.writer import GraphWriter


class Yolox(DetectFamily):
    """One output ``[1, N, 5 + classes]``, N the cells of all grids, largest grid first, row by row."""

    expects: ClassVar[str] = "one float32 output [1,N,5+classes] (N: the cells of the grids of all strides)"
    input_defaults: ClassVar[dict[str, Any]] = {
        "color": "bgr",
        "scale": 1.0,
        "resize": "letterbox",
        "align": "top_left",
        "pad_bgr": [114, 114, 114],
    }
    family: Literal["yolox"] = "yolox"
    strides: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        [8, 16, 32], description="input pixels per cell, of each grid"
    )
    tensor: str | None = Field(None, description="name of the output; null: the only one")

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """The number of rows must be that of the grids."""
        info = self.pick(model, self.tensor)
        shape = info.static_shape or ()
        cells = sum(height * width for height, width in self._grids_hw(input_hw))
        if len(shape) != 3 or shape[0] != 1 or shape[2] < 6:
            raise self.mismatch(model)
        if shape[1] != cells:
            height, width = input_hw
            raise self.mismatch(model, f"strides {self.strides} of a {width}x{height} input have N={cells} cells")
        family = self.model_copy(update={"tensor": info.name})
        return Head(family, (info.name,), shape[2] - 5, cells, f"shape of {info}")

    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """Rank ``objectness * best class``, then decode the K best rows."""
        (raw,) = tensors
        columns = 5 + head.classes
        anchors = head.anchors
        best = best_anchors(
            writer,
            writer.last_columns(raw, 5, columns, "classes_all"),
            (anchors, head.classes),
            self.kept(anchors, head.classes),
            multi_label=self.multi_label,
            weight=writer.last_columns(raw, 4, 5, "objectness"),
            scores_output="scores",
            labels_output="labels",
        )
        grid_xy, stride = self._tables(input_hw)
        rows = writer.op("Gather", raw, best.anchors, name="rows", axis=1)
        cell_xy = writer.op("Gather", writer.constant(grid_xy, np.float32, "grid"), best.anchors, name="cells", axis=0)
        scale = writer.op("Gather", writer.constant(stride, np.float32, "stride"), best.anchors, name="strides", axis=0)
        shifted = writer.op("Add", writer.last_columns(rows, 0, 2, "xy_raw"), cell_xy, name="xy_cells")
        centre = writer.op("Mul", shifted, scale, name="centre")
        size = writer.op(
            "Mul", writer.op("Exp", writer.last_columns(rows, 2, 4, "wh_raw"), name="wh_cells"), scale, name="size"
        )
        half = writer.op("Mul", size, writer.constant(0.5, np.float32, "half"), name="half_size")
        low = writer.op("Sub", centre, half, name="top_left")
        high = writer.op("Add", centre, half, name="bottom_right")
        writer.op("Concat", low, high, name="boxes", output="boxes", axis=2)

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """Every cell decoded in a loop over the grids, then the K best."""
        assert self.tensor is not None, "reference() belongs to the family of a Head"
        rows = raw[self.tensor][0]
        boxes = []
        start = 0
        for stride in self.strides:
            height, width = input_hw[0] // stride, input_hw[1] // stride
            cells = rows[start : start + height * width].reshape(height, width, -1)
            start += height * width
            centre_x = (cells[..., 0] + np.arange(width)[None, :]) * stride
            centre_y = (cells[..., 1] + np.arange(height)[:, None]) * stride
            half_w, half_h = np.exp(cells[..., 2]) * stride / 2, np.exp(cells[..., 3]) * stride / 2
            corners = [centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h]
            boxes.append(np.stack(corners, axis=-1).reshape(-1, 4))
        return reference_selection(self, np.concatenate(boxes).astype(np.float32), rows[:, 4:5] * rows[:, 5:])

    def _grids_hw(self, input_hw: tuple[int, int]) -> list[tuple[int, int]]:
        return [(input_hw[0] // stride, input_hw[1] // stride) for stride in self.strides]

    def _tables(self, input_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Each cell's column and row ``[N, 2]``, and its stride ``[N, 1]``."""
        cells, strides = [], []
        for stride, (height, width) in zip(self.strides, self._grids_hw(input_hw), strict=True):
            rows, columns = np.divmod(np.arange(height * width), width)
            cells.append(np.stack([columns, rows], axis=1))
            strides.append(np.full((height * width, 1), stride))
        return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
