"""Nodes whose results nobody uses, and initialisers that nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.model_io import remove_dead_nodes

if TYPE_CHECKING:
    import onnx


def remove_dead(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """An initialiser that is also an input stays: without its value the input would have to be fed."""
    before = len(model.graph.node) + len(model.graph.initializer)
    inputs = {value.name for value in model.graph.input}
    defaults = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    remove_dead_nodes(model)
    left = {tensor.name for tensor in model.graph.initializer}
    model.graph.initializer.extend(tensor for tensor in defaults if tensor.name not in left)
    return model, before - len(model.graph.node) - len(model.graph.initializer)
