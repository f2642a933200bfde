"""A Transpose of a Transpose is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.model_io import attribute_of, set_attribute
from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx


def merge_transposes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The later reads the earlier one's input; the earlier stays for its other readers, if it has any."""
    edit = GraphEdit(model)
    count = 0
    for later in edit.nodes("Transpose"):
        earlier = edit.writer(later.input[0], "Transpose")
        if earlier is None:
            continue
        first, second = (_perm(edit, node) for node in (earlier, later))
        if first is None or second is None:
            continue
        set_attribute(later, "perm", [first[axis] for axis in second])
        edit.set_input(later, 0, earlier.input[0])
        count += 1
    return edit.finish(), count


def _perm(edit: GraphEdit, node: onnx.NodeProto) -> list[int] | None:
    """The default is to reverse all axes."""
    perm = attribute_of(node, "perm", None)
    if perm is not None:
        return list(perm)
    dims = edit.dims(node.input[0])
    return None if dims is None else list(range(len(dims)))[::-1]
