"""Family ``boxes_scores``: one output of boxes, one of class scores, an anchor a row (the SSD style)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from build_models.errors import RecipeError
from build_models.graph.best_anchors import best_anchors
from build_models.graph.model_io import describe, outputs_of
from build_models.source.families.base import Arrays, DetectFamily, Head, reference_selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.model_io import TensorInfo
    from build_models.graph.writer import GraphWriter


class BoxesScores(DetectFamily):
    """Outputs ``boxes [1, N, 4]`` and ``scores [1, N, C]`` (a batch side of 1 may be missing, and C when it is 1)."""

    expects: ClassVar[str] = "two float32 outputs, boxes [1,N,4] and scores [1,N,C]"
    family: Literal["boxes_scores"] = "boxes_scores"
    boxes: str | None = Field(None, description="name of the boxes output; null: by shape, then by name")
    scores: str | None = Field(None, description="name of the scores output; null: the other one")
    box_format: Literal["xyxy", "cxcywh"] = Field("xyxy", description="corners, or centre and size")
    box_units: Literal["pixels", "normalized"] = Field(
        "pixels", description="input pixels, or shares 0..1 of the input"
    )
    score_activation: Literal["none", "sigmoid", "softmax"] = Field("none", description="what makes them probabilities")
    background_index: Annotated[int, Field(ge=0)] | None = Field(
        None, description="column of the scores that is no class of its own; labels skip it"
    )

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """Tell the two outputs apart by the recipe, else by shape, else by name."""
        boxes, scores, rule = self._find(model)
        anchors = _rows(boxes)
        columns = _columns(scores, anchors)
        if columns is None or _columns(boxes, anchors) != 4:
            raise self.mismatch(model, f"boxes: {boxes}, scores: {scores}")
        classes = columns
        if self.background_index is not None:
            classes -= 1
            if self.background_index >= columns or classes < 1:
                raise RecipeError(f"output.background_index: expected 0..{columns - 1}, got {self.background_index}")
        family = self.model_copy(update={"boxes": boxes.name, "scores": scores.name})
        return Head(family, (boxes.name, scores.name), classes, anchors, rule)

    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """Probabilities of all anchors (a sigmoid keeps the order, so it is left to the K best), then K boxes."""
        anchors, classes = head.anchors, head.classes
        columns = classes + (self.background_index is not None)
        scores = writer.reshape(tensors[1], (1, anchors, columns), "class_rows")
        if self.score_activation == "softmax":
            scores = writer.op("Softmax", scores, name="softmax", axis=2)
        if self.background_index is not None:
            foreground = [column for column in range(columns) if column != self.background_index]
            kept = writer.constant(foreground, np.int64, "foreground")
            scores = writer.op("Gather", scores, kept, name="without_background", axis=2)
        late_sigmoid = self.score_activation == "sigmoid"
        best = best_anchors(
            writer,
            scores,
            (anchors, classes),
            self.kept(anchors, classes),
            multi_label=self.multi_label,
            scores_output=None if late_sigmoid else "scores",
            labels_output="labels",
        )
        if late_sigmoid:
            writer.op("Sigmoid", best.scores, name="sigmoid", output="scores")
        rows = writer.reshape(tensors[0], (1, anchors, 4), "box_rows")
        self._append_boxes(writer, writer.op("Gather", rows, best.anchors, name="best_boxes", axis=1), input_hw)

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """All anchors decoded, then the K best."""
        assert self.boxes is not None, "reference() belongs to the family of a Head"
        assert self.scores is not None
        boxes = raw[self.boxes].reshape(-1, 4).copy()
        scores = raw[self.scores].reshape(len(boxes), -1)
        if self.score_activation == "sigmoid":
            scores = 1 / (1 + np.exp(-scores))
        elif self.score_activation == "softmax":
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = powers / powers.sum(axis=1, keepdims=True)
        if self.background_index is not None:
            scores = np.delete(scores, self.background_index, axis=1)
        if self.box_units == "normalized":
            boxes[:, 0::2] *= input_hw[1]
            boxes[:, 1::2] *= input_hw[0]
        if self.box_format == "cxcywh":
            centre, half = boxes[:, :2].copy(), boxes[:, 2:] / 2
            boxes = np.concatenate([centre - half, centre + half], axis=1)
        return reference_selection(self, boxes, scores)

    def _append_boxes(self, writer: GraphWriter, rows: str, input_hw: tuple[int, int]) -> None:
        """``boxes`` from the K chosen rows ``[1, K, 4]``: one matrix does centre-and-size and the units at once."""
        height, width = input_hw
        units = np.array([width, height, width, height] if self.box_units == "normalized" else [1, 1, 1, 1], np.float32)
        if self.box_format == "xyxy":
            if self.box_units == "pixels":
                writer.op("Identity", rows, name="boxes", output="boxes")
            else:
                writer.op("Mul", rows, writer.constant(units, np.float32, "units"), name="boxes", output="boxes")
            return
        centre = writer.op(
            "Mul",
            writer.last_columns(rows, 0, 2, "centre_raw"),
            writer.constant(units[:2], np.float32, "units_xy"),
            name="centre",
        )
        half = writer.op(
            "Mul",
            writer.last_columns(rows, 2, 4, "size_raw"),
            writer.constant(units[:2] / 2, np.float32, "half_units"),
            name="half_size",
        )
        low = writer.op("Sub", centre, half, name="top_left")
        high = writer.op("Add", centre, half, name="bottom_right")
        writer.op("Concat", low, high, name="boxes", output="boxes", axis=2)

    def _find(self, model: onnx.ModelProto) -> tuple[TensorInfo, TensorInfo, str]:
        outputs = outputs_of(model)
        if self.boxes is not None and self.scores is not None:
            return self.pick(model, self.boxes), self.pick(model, self.scores), "names in the recipe"
        if self.boxes is not None or self.scores is not None:
            given = self.pick(model, self.boxes or self.scores)
            others = [info for info in outputs if info.name != given.name]
            if len(others) != 1:
                raise self.mismatch(model, "name both outputs in the recipe")
            other = self.checked(others[0])
            pair = (given, other) if self.boxes is not None else (other, given)
            return *pair, "one name in the recipe, the other output"
        if len(outputs) != 2:
            raise self.mismatch(model, "name both outputs in the recipe: output.boxes, output.scores")
        first, second = map(self.checked, outputs)
        four = [info for info in (first, second) if info.shape and info.shape[-1] == 4]
        if len(four) == 1:
            return four[0], second if four[0] is first else first, "shape: only the boxes have rows of 4"
        named = [info for info in four if "box" in info.name.lower()]
        if len(named) == 1:
            return named[0], second if named[0] is first else first, "name: only one contains 'box'"
        raise RecipeError(
            f"family {self.family}: cannot tell boxes from scores in {describe(outputs)}; "
            "name them in the recipe: output.boxes, output.scores"
        )


def _rows(boxes: TensorInfo) -> int:
    shape = boxes.static_shape or ()
    return shape[-2] if len(shape) >= 2 else 0


def _columns(info: TensorInfo, anchors: int) -> int | None:
    """C of a shape [N], [N,C], [1,N] or [1,N,C]; None for any other."""
    shape = list(info.static_shape or ())
    if len(shape) >= 2 and shape[0] == 1 and shape[1] == anchors:
        shape = shape[1:]
    if not shape or shape[0] != anchors or len(shape) > 2:
        return None
    return shape[1] if len(shape) == 2 else 1
