"""What stands between a segmenter's last convolution and its output, where the same mask can be had for less.

Measured on one x86 thread, float32: a Softmax in front of ArgMax changes no class and costs 8 of 60 ms (512x896x4).
A linear Resize is twice as fast with the channels last (21 classes, 33x33 to 257x257: 1.3 for 2.5 ms; 19 classes,
64x128 to 512x1024: 9.7 for 21.5 ms) from about 4 classes on, and transposing before it moves fewer numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import helper, shape_inference

from build_models.graph.model_io import constant_of

if TYPE_CHECKING:
    import onnx

    from build_models.graph.writer import GraphWriter

    Layout = Literal["nchw", "nhwc"]

CLASS_AXIS: dict[Layout, int] = {"nchw": 1, "nhwc": 3}
_OTHER: dict[Layout, Layout] = {"nchw": "nhwc", "nhwc": "nchw"}
_TO: dict[Layout, list[int]] = {"nhwc": [0, 2, 3, 1], "nchw": [0, 3, 1, 2]}
_WORTH_IT = 4  # classes
# Of Resize: with these it treats both sides of the picture alike and nothing else.
_PLAIN_RESIZE: dict[str, set[Any]] = {
    "mode": {b"linear", b"nearest"},
    "coordinate_transformation_mode": {b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"},
    "antialias": {0},
    "keep_aspect_ratio_policy": {b"stretch"},
}


@dataclass(frozen=True, slots=True)
class MaskTail:
    """Where the decoding may start.

    Attributes:
        tensor: class scores ``[1, C, h, w]`` or ``[1, h, w, C]``.
        layout: which of the two.
        size_hw: their h and w.
        resize: what still has to be done to them, as `write_resize` takes it; None: nothing.
        left_out: the operators passed over, last first.
    """

    tensor: str
    layout: Layout
    size_hw: tuple[int, int]
    resize: Resize | None
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resize:
    """A Resize of height and width alone: its attributes, and either its factors (height, width) or its result."""

    attributes: dict[str, Any]
    scales_hw: tuple[float, float] | None
    result_hwc: tuple[int, int, int]


def mask_tail(model: onnx.ModelProto, output: str, layout: Layout, *, coarse: bool = False) -> MaskTail:
    """Go back from the scores as long as what is passed over can be left out, or done for less, in front of ArgMax.

    Args:
        model: of static shape.
        output: the tensor of class scores, more than one class.
        layout: of that tensor.
        coarse: whether to stop where the network does, before a Resize that only enlarges what it found.
    """
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    }
    makers = {name: node for node in model.graph.node for name in node.output}
    tensor, left_out = output, []
    while (node := makers.get(tensor)) is not None:
        if _keeps_the_order_of_classes(node, layout):
            pass
        elif node.op_type == "Transpose" and _attributes(node).get("perm") == _TO[layout]:
            layout = _OTHER[layout]
        else:
            break
        left_out.append(node.op_type)
        tensor = node.input[0]
    resize = None
    if node is not None and node.op_type == "Resize":
        if coarse:
            left_out.append("Resize")
            tensor = node.input[0]
        elif layout == "nchw":
            resize = _movable(model, node, shapes.get(node.input[0], []), shapes.get(tensor, []))
            tensor = tensor if resize is None else node.input[0]
    height, width = shapes[tensor][2:] if layout == "nchw" else shapes[tensor][1:3]
    return MaskTail(tensor, layout, (height, width), resize, tuple(left_out))


def write_resize(writer: GraphWriter, scores: str, resize: Resize) -> str:
    """Scores ``[1, C, h, w]`` become ``[1, H, W, C]`` of the size that the Resize makes."""
    channels_last = writer.op("Transpose", scores, name="scores", perm=_TO["nhwc"])
    if resize.scales_hw is not None:
        given = [writer.constant([1, *resize.scales_hw, 1], np.float32, "resize_scales")]
    else:
        given = ["", writer.constant([1, *resize.result_hwc], np.int64, "resize_sizes")]
    return writer.op("Resize", channels_last, "", *given, name="resize", **resize.attributes)


def _keeps_the_order_of_classes(node: onnx.NodeProto, layout: Layout) -> bool:
    if node.op_type in {"Softmax", "LogSoftmax"}:
        return int(_attributes(node).get("axis", -1)) % 4 == CLASS_AXIS[layout]
    return node.op_type == "Sigmoid"


def _movable(model: onnx.ModelProto, node: onnx.NodeProto, before: list[int], after: list[int]) -> Resize | None:
    """The Resize, if it is one of height and width alone and worth moving."""
    attributes = _attributes(node)
    plain = all(name not in attributes or attributes[name] in allowed for name, allowed in _PLAIN_RESIZE.items())
    if not plain or "axes" in attributes or len(before) != 4 or before[:2] != after[:2] or before[1] < _WORTH_IT:
        return None
    result_hwc = (after[2], after[3], after[1])
    if len(node.input) > 3 and node.input[3]:
        return Resize(attributes, None, result_hwc)
    scales = constant_of(model, node.input[2])
    return None if scales is None else Resize(attributes, (float(scales[2]), float(scales[3])), result_hwc)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
