"""The same operator on the same tensors gives the same result: it is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.passes.editing import QUANTISING_OPS, RANDOM_OPS, GraphEdit, inner_graphs

if TYPE_CHECKING:
    import onnx

# The runtime fuses a quantised operator with a DequantizeLinear of its own.
_LEFT = RANDOM_OPS | QUANTISING_OPS


def common_subexpressions(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Attributes count in any order. Random operators, and those with graphs inside, are never the same."""
    edit = GraphEdit(model)
    first: dict[tuple[object, ...], onnx.NodeProto] = {}
    count = 0
    for node in edit.nodes():
        if node.op_type in _LEFT or inner_graphs(node):
            continue
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        present = tuple(bool(name) for name in node.output)
        # A reader of an earlier duplicate reads the first by now, so chains of duplicates go in one pass.
        same = first.setdefault((node.op_type, tuple(node.input), tuple(attributes), present), node)
        if same is not node and _merge(edit, same, node):
            count += 1
    return edit.finish(), count


def _merge(edit: GraphEdit, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    pairs = [(old, new) for old, new in zip(second.output, first.output, strict=True) if old]
    if len(pairs) > 1 and any(old in edit.outputs for old, _ in pairs):
        return False  # half of it cannot be undone
    if not all(edit.replace(old, new) for old, new in pairs):
        return False
    edit.drop(second)
    return True
