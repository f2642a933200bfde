"""An If whose condition is known becomes the branch that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from build_models.graph.model_io import attribute_of
from build_models.graph.passes.editing import GraphEdit, inner_graphs, rename_captured

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx


def inline_branches(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """The branch's nodes and constants move to where the If stood, under names of their own."""
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes("If"):
        condition = edit.constant(node.input[0])
        if condition is None or condition.size != 1:
            continue
        branch = attribute_of(node, "then_branch" if condition.item() else "else_branch", None)
        if branch is not None:
            _inline(edit, node, branch)
            count += 1
    return edit.finish(), count


def _inline(edit: GraphEdit, node: onnx.NodeProto, branch: onnx.GraphProto) -> None:
    prefix = node.name or node.output[0]
    own = [name for inner in branch.node for name in inner.output if name]
    own += [tensor.name for tensor in branch.initializer]
    names = {name: edit.free_name(f"{prefix}/{name}") for name in own}
    edit.drop(node)
    for tensor in branch.initializer:
        edit.add_tensor(tensor, names[tensor.name])
    for inner in branch.node:
        _rename(inner, names)
        edit.insert_before(node, inner)
    # Identity keeps the If's own names, also where a branch hands out a constant; it goes later.
    for value, output in zip(branch.output, node.output, strict=True):
        if output:
            source = names.get(value.name, value.name)
            edit.insert_before(node, helper.make_node("Identity", [source], [output]))


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for index, name in enumerate(node.output):
        node.output[index] = names.get(name, name)
    for graph in inner_graphs(node):
        for old, new in names.items():
            rename_captured(graph, old, new)
