"""Family ``anchor_free``: per stride a map of class logits and one of distances from each cell's centre.

Cell (x, y) of stride s has its centre at ``((x + 0.5) * s, (y + 0.5) * s)``; the box lies
``exp(clip(raw, -4, 4)) * s`` to the left, top, right and bottom of it; scores are ``sigmoid(logit)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from build_models.graph.best_anchors import best_anchors
from build_models.graph.model_io import outputs_of
from build_models.source.families.base import Arrays, DetectFamily, Head, reference_selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.model_io import TensorInfo
    from build_models.graph.writer import GraphWriter

# Keeps exp() of an untrained or quantised head finite: boxes reach from s/55 to 55 s from the centre.
CLIP = 4.0


class AnchorFree(DetectFamily):
    """Outputs in the order class logits ``[1, C, h, w]``, distances ``[1, 4, h, w]``, stride after stride."""

    expects: ClassVar[str] = "pairs of float32 outputs, logits [1,C,h,w] then distances [1,4,h,w], one pair a stride"
    family: Literal["anchor_free"] = "anchor_free"
    tensors: list[str] | None = Field(None, description="names of the outputs, in that order; null: all of them")
    strides: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="input pixels per cell, of each pair; null: from the shapes"
    )

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """Pairs of maps whose cells cover the input."""
        names = self.tensors if self.tensors is not None else [info.name for info in outputs_of(model)]
        infos = [self.pick(model, name) for name in names]
        if len(infos) < 2 or len(infos) % 2:
            raise self.mismatch(model, f"{len(infos)} outputs are no pairs")
        pairs = list(zip(infos[::2], infos[1::2], strict=True))
        strides = self.strides or [_stride(logits, input_hw) for logits, _ in pairs]
        classes, anchors = set(), 0
        for (logits, distances), stride in zip(pairs, strides, strict=False):
            rows, columns = (side // max(stride, 1) for side in input_hw)
            class_count = logits.shape[1] if len(logits.shape) == 4 else 0
            if logits.shape != (1, class_count, rows, columns) or distances.shape != (1, 4, rows, columns):
                raise self.mismatch(model, f"{logits} and {distances} are no pair of stride {stride}")
            classes.add(int(class_count))
            anchors += rows * columns
        if len(classes) != 1 or len(strides) != len(pairs):
            raise self.mismatch(model, f"{len(pairs)} pairs, {len(strides)} strides, class counts {sorted(classes)}")
        family = self.model_copy(update={"tensors": names, "strides": strides})
        rule = f"order and shapes of the outputs: strides {strides}"
        return Head(family, tuple(names), classes.pop(), anchors, rule)

    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """Rank by the best logit, then decode the K best."""
        anchors, classes = head.anchors, head.classes
        best = best_anchors(
            writer,
            _as_rows(writer, tensors[::2], classes, "class"),
            (anchors, classes),
            self.kept(anchors, classes),
            multi_label=self.multi_label,
            labels_output="labels",
        )
        writer.op("Sigmoid", best.scores, name="sigmoid", output="scores")
        centres, reach = self._tables(input_hw)
        rows = writer.op("Gather", _as_rows(writer, tensors[1::2], 4, "ltrb"), best.anchors, name="rows", axis=1)
        low, high = (writer.constant(bound, np.float32, "clip") for bound in (-CLIP, CLIP))
        distances = writer.op("Exp", writer.op("Clip", rows, low, high, name="clip"), name="exp")
        centre = writer.op(
            "Gather", writer.constant(centres, np.float32, "centres"), best.anchors, name="centre", axis=0
        )
        scale = writer.op("Gather", writer.constant(reach, np.float32, "reach"), best.anchors, name="scale", axis=0)
        offset = writer.op("Mul", distances, scale, name="offset")
        writer.op("Add", offset, centre, name="boxes", output="boxes")

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """Every cell decoded, then the K best."""
        assert self.tensors is not None, "reference() belongs to the family of a Head"
        assert self.strides is not None
        boxes, scores = [], []
        for stride, cls_name, ltrb_name in zip(self.strides, self.tensors[::2], self.tensors[1::2], strict=True):
            logits, distances = raw[cls_name][0], np.exp(np.clip(raw[ltrb_name][0], -CLIP, CLIP)) * stride
            _, height, width = logits.shape
            x = (np.arange(width)[None, :] + 0.5) * stride
            y = (np.arange(height)[:, None] + 0.5) * stride
            left, top, right, bottom = distances
            boxes.append(np.stack([x - left, y - top, x + right, y + bottom], axis=-1).reshape(-1, 4))
            scores.append(1 / (1 + np.exp(-logits.reshape(len(logits), -1).T)))
        return reference_selection(self, np.concatenate(boxes).astype(np.float32), np.concatenate(scores))

    def _tables(self, input_hw: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Each cell's centre as ``(x, y, x, y)`` and its stride as ``(-s, -s, s, s)``, both ``[N, 4]``."""
        centres, reach = [], []
        for stride in self.strides or ():
            height, width = input_hw[0] // stride, input_hw[1] // stride
            rows, columns = np.divmod(np.arange(height * width), width)
            x, y = (columns + 0.5) * stride, (rows + 0.5) * stride
            centres.append(np.stack([x, y, x, y], axis=1))
            reach.append(np.tile([-stride, -stride, stride, stride], (height * width, 1)))
        return np.concatenate(centres).astype(np.float32), np.concatenate(reach).astype(np.float32)


def _stride(logits: TensorInfo, input_hw: tuple[int, int]) -> int:
    sides = logits.static_shape or ()
    return input_hw[0] // sides[2] if len(sides) == 4 and sides[2] else 0


def _as_rows(writer: GraphWriter, maps: tuple[str, ...], channels: int, name: str) -> str:
    """Maps ``[1, channels, h, w]`` become one tensor ``[1, N, channels]``."""
    flat = [writer.reshape(tensor, (1, channels, -1), f"{name}_flat") for tensor in maps]
    joined = writer.op("Concat", *flat, name=f"{name}_all", axis=2) if len(flat) > 1 else flat[0]
    return writer.op("Transpose", joined, name=f"{name}_rows", perm=[0, 2, 1])
