"""Nodes that hand their input on unchanged.

``x + 0`` counts as such although it turns -0 into 0: the two compare equal, and only a division by the result could
tell. What broadcasts to another shape, casts to another type or crops is no identity; where a shape decides and is not
known, the node stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from build_models.graph.model_io import attribute_of
from build_models.graph.passes.editing import GraphEdit, keeps_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    Rule = Callable[[GraphEdit, onnx.NodeProto], int | None]


def remove_identities(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Readers read the input instead; a node between a graph input and a graph output stays, for both names' sake."""
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes(*_RULES):
        index = _RULES[node.op_type](edit, node)
        if index is None or any(not edit.is_unused(name) for name in node.output[1:]):
            continue
        if edit.replace(node.output[0], node.input[index]):
            edit.drop(node)
            count += 1
    return edit.finish(), count


def _always(_: GraphEdit, __: onnx.NodeProto) -> int | None:
    return 0


def _single(_: GraphEdit, node: onnx.NodeProto) -> int | None:
    """Concat, Sum, Max, Min or Mean of one tensor; Split into one."""
    return 0 if (len(node.output) if node.op_type == "Split" else len(node.input)) == 1 else None


def _neutral(either_side: bool, value: float) -> Rule:
    def rule(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
        if edit.opset < 7:  # broadcasting was an attribute
            return None
        for index in (0, 1) if either_side else (0,):
            other = edit.constant(node.input[1 - index])
            if other is not None and (other == value).all() and other.size:
                return index if keeps_shape(edit.dims(node.input[index]), other.shape) else None
        return None

    return rule


def _cast(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    return 0 if edit.element_type(node.input[0]) == attribute_of(node, "to", -1) else None


def _dropout(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    if edit.opset < 7:
        return 0 if attribute_of(node, "is_test", 0) else None
    if edit.opset < 12 or len(node.input) < 3 or not node.input[2]:
        return 0
    training = edit.constant(node.input[2])
    return 0 if training is not None and not training.any() else None


def _same_shape(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    """For operators that only rename axes or repeat: the shape says all."""
    shape = edit.shape(node.input[0])
    return 0 if shape is not None and shape == edit.shape(node.output[0]) else None


def _transpose(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    perm = list(attribute_of(node, "perm", []))
    if perm and perm == sorted(perm):
        return 0
    shape = edit.shape(node.input[0])
    if shape is None or len(shape) != len(perm):
        return None
    # Axes of one element may move: what is longer keeps its order, and the shape is the same.
    moved = [axis for axis in perm if shape[axis] != 1]
    return 0 if moved == sorted(moved) and tuple(shape[axis] for axis in perm) == shape else None


def _slice(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    steps = edit.constant(node.input[4]) if len(node.input) > 4 and node.input[4] else np.array([1])
    return _same_shape(edit, node) if steps is not None and (steps == 1).all() else None


def _pad(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    pads = np.array(attribute_of(node, "pads", [1])) if edit.opset < 11 else edit.constant(node.input[1])
    return 0 if pads is not None and not pads.any() else None


def _tile(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    repeats = edit.constant(node.input[1]) if edit.opset >= 6 else None
    return 0 if repeats is not None and (repeats == 1).all() else None


def _clip(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    if edit.opset < 11:
        return 0 if not node.attribute else None
    return 0 if not any(node.input[1:]) else None


def _resize(edit: GraphEdit, node: onnx.NodeProto) -> int | None:
    """Scales must be exactly one: a shape can stay the same by rounding while the samples move."""
    if edit.opset < 11 or attribute_of(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        return None
    sizes = edit.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    if sizes is not None:
        return _same_shape(edit, node)
    scales = edit.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return 0 if scales is not None and scales.size and (scales == 1).all() else None


_RULES: dict[str, Rule] = {
    "Identity": _always,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Split": _single,
    "Mul": _neutral(either_side=True, value=1),
    "Add": _neutral(either_side=True, value=0),
    "Div": _neutral(either_side=False, value=1),
    "Sub": _neutral(either_side=False, value=0),
    "Pow": _neutral(either_side=False, value=1),
    "Cast": _cast,
    "Dropout": _dropout,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Pad": _pad,
    "Tile": _tile,
    "Clip": _clip,
    "Resize": _resize,
}
