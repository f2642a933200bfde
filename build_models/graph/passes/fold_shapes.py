"""Shape arithmetic begins with Shape and Size: where the shape is known they are constants, and the rest folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from build_models.graph.model_io import attribute_of
from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Picked = NDArray[np.object_]


def fold_shapes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Also a Gather or Slice that picks known sides out of a shape of which others are not known, such as the batch."""
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes("Shape", "Size", "Gather", "Slice"):
        sides = _RULES[node.op_type](edit, node)
        if sides is None or any(side is None for side in sides.flat):
            continue
        if edit.replace_by_constant(node.output[0], sides.astype(np.int64)):
            edit.drop(node)
            count += 1
    return edit.finish(), count


def _shape(edit: GraphEdit, node: onnx.NodeProto) -> Picked | None:
    """The sides, None for each that is not known."""
    dims = edit.dims(node.input[0])
    if dims is None:
        return None
    return np.array(dims[attribute_of(node, "start", 0) : attribute_of(node, "end", None)], object)


def _size(edit: GraphEdit, node: onnx.NodeProto) -> Picked | None:
    shape = edit.shape(node.input[0])
    return None if shape is None else np.array(int(np.prod(shape, dtype=np.int64)), object)


def _gather(edit: GraphEdit, node: onnx.NodeProto) -> Picked | None:
    sides, places = _shape_behind(edit, node), edit.constant(node.input[1])
    if sides is None or places is None or np.any(places >= len(sides)) or np.any(places < -len(sides)):
        return None
    picked: Picked = np.empty(places.shape, object)
    for place, index in np.ndenumerate(places):
        picked[place] = sides[index]
    return picked


def _slice(edit: GraphEdit, node: onnx.NodeProto) -> Picked | None:
    sides = _shape_behind(edit, node)
    if sides is None or len(node.input) < 3:
        return None
    starts, ends = (edit.constant(name) for name in node.input[1:3])
    steps = edit.constant(node.input[4]) if len(node.input) > 4 and node.input[4] else np.array([1])
    if starts is None or ends is None or steps is None or not starts.size == ends.size == steps.size == 1:
        return None
    if steps.item() < 1:
        return None
    return sides[starts.item() : ends.item() : steps.item()]


def _shape_behind(edit: GraphEdit, node: onnx.NodeProto) -> Picked | None:
    source = edit.writer(node.input[0], "Shape")
    return None if source is None else _shape(edit, source)


_RULES = {"Shape": _shape, "Size": _size, "Gather": _gather, "Slice": _slice}
