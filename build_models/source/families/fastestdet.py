"""Family ``fastestdet``: one map ``[1, 5 + classes, h, w]`` of a single scale, as FastestDet writes it.

Channel 0 is objectness (sigmoid done), 1 and 2 the centre's offset, 3 and 4 width and height, then the classes
(softmax done). Cell (column x, row y): centre ``((x, y) + tanh(offset)) / (w, h)``, size ``sigmoid(size)``, both as
shares of the input; score ``objectness ** 0.6 * class ** 0.4`` (dog-qiuqiu, FastestDet, 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from build_models.errors import RecipeError
from build_models.graph.best_anchors import best_anchors
from build_models.source.families.base import Arrays, DetectFamily, Head, reference_selection
from build_models.source.families.probe import PROBES, probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.writer import GraphWriter

_OBJECT_POWER, _CLASS_POWER = 0.6, 0.4
_TOLERANCE = 1e-3


class FastestDet(DetectFamily):
    """One output ``[1, 5 + classes, h, w]`` of probabilities and boxes."""

    expects: ClassVar[str] = "one float32 output [1,5+classes,h,w]: objectness, box, classes of each cell"
    input_defaults: ClassVar[dict[str, Any]] = {"color": "bgr", "scale": 1 / 255, "resize": "stretch"}
    family: Literal["fastestdet"] = "fastestdet"
    tensor: str | None = Field(None, description="name of the output; null: the only one")
    box_activation: Literal["auto", "tanh_sigmoid", "none"] = Field(
        "auto",
        description="what boxes still need: tanh for offsets and sigmoid for sizes, or nothing; "
        '"auto": nothing if their values are in range already',
    )

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """By shape; for random pictures objectness and classes must be probabilities, and boxes tell what they need."""
        info = self.pick(model, self.tensor)
        shape = info.static_shape or ()
        if len(shape) != 4 or shape[0] != 1 or shape[1] < 6 or not _covers(shape[2:], input_hw):
            raise self.mismatch(model, f"h and w in the proportions of a {input_hw[1]}x{input_hw[0]} input")
        values = probe(model, info.name)[:, 0]
        objectness, offset, size, classes = np.split(values, [1, 3, 5], axis=1)
        for name, part in (("objectness", objectness), ("classes", classes)):
            if not _within(part, 0, 1):
                raise self.mismatch(model, f"{name} must be probabilities, but {_seen(part)}")
        done = _within(offset, -1, 1) and _within(size, 0, 1)
        seen = f"offsets: {_seen(offset)}; sizes: {_seen(size)}"
        if self.box_activation == "none" and not done:
            raise RecipeError(
                f"output.box_activation: none needs offsets -1..1 and sizes 0..1; {seen}; use tanh_sigmoid"
            )
        activation = self.box_activation if self.box_activation != "auto" else "none" if done else "tanh_sigmoid"
        family = self.model_copy(update={"tensor": info.name, "box_activation": activation})
        rule = f"shape of {info}, box activation {activation}; {seen}"
        return Head(family, (info.name,), shape[1] - 5, shape[2] * shape[3], rule, size_hw=(shape[2], shape[3]))

    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """Rank all cells, then decode the K best."""
        (raw,) = tensors
        columns, (height, width) = 5 + head.classes, head.size_hw
        rows = writer.op(
            "Transpose", writer.reshape(raw, (1, columns, head.anchors), "cells"), name="rows", perm=[0, 2, 1]
        )
        # Ranks as objectness^0.6 * class^0.4 does; only K powers of the product are left to take. What a quantised
        # network makes of a probability of 0 may lie below, where such powers are not defined.
        objectness = writer.op("Relu", writer.last_columns(rows, 0, 1, "objectness_all"), name="objectness")
        power = writer.constant(_OBJECT_POWER / _CLASS_POWER, np.float32, "objectness_power")
        weight = writer.op("Pow", objectness, power, name="weight")
        best = best_anchors(
            writer,
            writer.last_columns(rows, 5, columns, "classes_all"),
            (head.anchors, head.classes),
            self.kept(head.anchors, head.classes),
            multi_label=self.multi_label,
            weight=weight,
            labels_output="labels",
        )
        ranks = writer.op("Relu", best.scores, name="ranks")
        power = writer.constant(_CLASS_POWER, np.float32, "class_power")
        writer.op("Pow", ranks, power, name="scores", output="scores")
        chosen = writer.op("Gather", rows, best.anchors, name="best_rows", axis=1)
        offset, size = (writer.last_columns(chosen, *ends, name) for name, ends in (("xy", (1, 3)), ("wh", (3, 5))))
        if self.box_activation == "tanh_sigmoid":
            offset, size = writer.op("Tanh", offset, name="offset"), writer.op("Sigmoid", size, name="size")
        row, column = np.divmod(np.arange(head.anchors), width)
        grid = writer.constant(np.stack([column, row], axis=1), np.float32, "grid")
        cell = writer.op("Gather", grid, best.anchors, name="cell", axis=0)
        cell_wh = writer.constant([input_hw[1] / width, input_hw[0] / height], np.float32, "cell_wh")
        centre = writer.op("Mul", writer.op("Add", offset, cell, name="centre_cells"), cell_wh, name="centre")
        half_input = writer.constant([input_hw[1] / 2, input_hw[0] / 2], np.float32, "half_input")
        half = writer.op("Mul", size, half_input, name="half_size")
        low = writer.op("Sub", centre, half, name="top_left")
        high = writer.op("Add", centre, half, name="bottom_right")
        writer.op("Concat", low, high, name="boxes", output="boxes", axis=2)

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """Every cell decoded as the authors do, in shares of the input, then the K best."""
        assert self.tensor is not None, "reference() belongs to the family of a Head"
        maps = raw[self.tensor][0].astype(np.float64)
        (_, height, width), (input_height, input_width) = maps.shape, input_hw
        offset, size = maps[1:3], maps[3:5]
        if self.box_activation == "tanh_sigmoid":
            offset, size = np.tanh(offset), 1 / (1 + np.exp(-size))
        centre_x = (np.arange(width)[None, :] + offset[0]) / width
        centre_y = (np.arange(height)[:, None] + offset[1]) / height
        left, right = centre_x - size[0] / 2, centre_x + size[0] / 2
        top, bottom = centre_y - size[1] / 2, centre_y + size[1] / 2
        boxes = np.stack([left * input_width, top * input_height, right * input_width, bottom * input_height], axis=-1)
        scores = np.maximum(maps[0], 0) ** _OBJECT_POWER * np.maximum(maps[5:], 0) ** _CLASS_POWER
        per_cell = scores.reshape(len(scores), -1).T.astype(np.float32)
        return reference_selection(self, boxes.reshape(-1, 4).astype(np.float32), per_cell)


def _covers(map_hw: tuple[int, ...], input_hw: tuple[int, int]) -> bool:
    """Whether the cells are those of one stride."""
    return input_hw[0] * map_hw[1] == input_hw[1] * map_hw[0]


def _within(values: NDArray[np.float32], low: float, high: float) -> bool:
    return bool(values.min() >= low - _TOLERANCE and values.max() <= high + _TOLERANCE)


def _seen(values: NDArray[np.float32]) -> str:
    return f"{values.min():.3g}..{values.max():.3g} over {PROBES} random pictures"
