"""Appending nodes to a graph: every node and tensor gets a readable, free name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from build_models.graph.model_io import opset_of, tensor_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import ArrayLike, DTypeLike


class GraphWriter:
    """Collects nodes and constants; ``nodes`` is put where the caller wants it, constants go into the model at once.

    Args:
        model: the model whose names must not be used twice; its initialisers grow.
        prefix: the first part of every name, such as ``canonical``.
    """

    def __init__(self, model: onnx.ModelProto, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._model = model
        self._prefix = prefix
        self._opset = opset_of(model)
        self._taken = tensor_names(model) | {node.name for node in model.graph.node}

    def op(self, op_type: str, *inputs: str, name: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        return self.ops(op_type, *inputs, name=name, outputs=[output], **attributes)[0]

    def ops(self, op_type: str, *inputs: str, name: str, outputs: Sequence[str | None], **attributes: Any) -> list[str]:
        """Append a node; an output that is None is named after the node. Returns the names of the outputs."""
        node_name = self._free(name)
        many = len(outputs) > 1
        names = [
            given or self._free(f"{name}_{index}" if many else f"{name}_out") for index, given in enumerate(outputs)
        ]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=node_name, **attributes))
        return names

    def constant(self, value: ArrayLike, dtype: DTypeLike, name: str) -> str:
        """Add an initialiser; returns its name."""
        free = self._free(name)
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), free))
        return free

    def axes(self, *axes: int) -> str:
        """A constant int64 vector."""
        return self.constant(axes, np.int64, "axes")

    def reshape(self, tensor: str, shape: Sequence[int], name: str, output: str | None = None) -> str:
        """Reshape to a constant shape."""
        return self.op("Reshape", tensor, self.constant(shape, np.int64, f"{name}_shape"), name=name, output=output)

    def last_columns(self, tensor: str, start: int, end: int, name: str) -> str:
        """``tensor[..., start:end]``."""
        bounds = [self.constant([value], np.int64, f"{name}_bound") for value in (start, end, -1)]
        return self.op("Slice", tensor, *bounds, name=name)

    def reduce_max(self, tensor: str, axis: int, name: str) -> str:
        """Maximum along one axis, which is removed; opset 18 made the axes an input."""
        if self._opset >= 18:
            return self.op("ReduceMax", tensor, self.axes(axis), name=name, keepdims=0)
        return self.op("ReduceMax", tensor, name=name, keepdims=0, axes=[axis])

    def _free(self, name: str) -> str:
        base = f"{self._prefix}/{name}"
        free, count = base, 1
        while free in self._taken:
            count += 1
            free = f"{base}_{count}"
        self._taken.add(free)
        return free
