"""Of several nodes in a row that only give the same numbers another shape, the last is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from build_models.graph.model_io import attribute_of
from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def merge_reshapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The later becomes a Reshape of the earlier one's input, where its own shape does not depend on the earlier."""
    edit = GraphEdit(model)
    count = 0
    for later in edit.nodes(*_RESHAPING):
        earlier = edit.writer(later.input[0], *_RESHAPING)
        target = _target(edit, later) if earlier is not None and edit.opset >= 5 else None
        if earlier is None or target is None:
            continue
        shape = edit.add_constant(np.array(target, np.int64), f"{later.output[0]}/shape")
        merged = helper.make_node("Reshape", [earlier.input[0], shape], [later.output[0]], name=later.name)
        edit.drop(later)
        edit.insert_before(later, merged)
        count += 1
    return edit.finish(), count


def _target(edit: GraphEdit, node: onnx.NodeProto) -> list[int] | None:
    """The shape it gives, with at most one side left open; None when that is not known."""
    shape = edit.shape(node.output[0])
    if shape is not None:
        # A zero would mean "as in the input"; tensors without elements are not worth the care.
        return list(shape) if all(shape) else None
    if node.op_type != "Reshape" or attribute_of(node, "allowzero", 0):
        return None
    asked = edit.constant(node.input[1])
    return None if asked is None or not asked.all() else asked.tolist()
