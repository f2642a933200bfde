"""Which of the wanted nodes are worth running in int8 together: each change between float and int8 costs a pass.

A tensor is *of int8* when an int8 node made it, or when it still holds the camera's bytes. What only passes values on
(a pool of maxima, a resize, a move) and what joins them (a sum, a concatenation) earn nothing by themselves, so they
run in int8 only beside a convolution or matrix product, and never take a value that float readers want through int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from build_models.errors import BuildError
from build_models.graph.model_io import constant_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
JOINS = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid")
ABSORBED = ("Relu", "Clip")  # become the bounds of the range of what is in front of them
PASSED_THROUGH = (
    *("MaxPool", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
    *("Slice", "Split", "Gather", "DepthToSpace"),
)
# What the CPU provider runs in int8, and what passes int8 through; quantising around others leaves float islands.
FUSIBLE = (*WEIGHTED, *JOINS, *ABSORBED, *PASSED_THROUGH)


def settle(model: onnx.ModelProto, wanted: Collection[str], pixels: Collection[str]) -> list[str]:
    """The nodes to run in int8, in graph order: those wanted that pay, and the Relu or Clip right behind them.

    Args:
        model: a float graph.
        wanted: names of nodes; each must be of a kind in `FUSIBLE`.
        pixels: tensors that hold the camera's bytes.

    Raises:
        BuildError: a wanted node does not exist, or the CPU provider has no int8 kernel for it.
    """
    graph = _Graph.of(model)
    _check(graph, wanted)
    chosen = {name for name in wanted if _is_possible(model, graph.nodes[name])}
    while True:
        made = set(pixels) | {tensor for name in chosen for tensor in graph.nodes[name].output}
        chosen |= set(_absorbed(model, graph, chosen))
        kept = {name for name in chosen if _pays(graph, graph.nodes[name], chosen, made)}
        kept -= _without_weights(graph, kept)
        if kept == chosen:
            return [node.name for node in model.graph.node if node.name in chosen]
        chosen = kept


@dataclass(frozen=True)
class _Graph:
    nodes: dict[str, onnx.NodeProto]
    makers: dict[str, str]
    readers: dict[str, list[str]]
    constants: frozenset[str]
    outputs: frozenset[str]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        readers: dict[str, list[str]] = {}
        for node in model.graph.node:
            for tensor in node.input:
                readers.setdefault(tensor, []).append(node.name)
        return cls(
            {node.name: node for node in model.graph.node},
            {tensor: node.name for node in model.graph.node for tensor in node.output},
            readers,
            frozenset(tensor.name for tensor in model.graph.initializer),
            frozenset(value.name for value in model.graph.output),
        )

    def data(self, node: onnx.NodeProto) -> list[str]:
        """The tensors whose values a node works on; shapes, bounds and indices are none."""
        names = node.input if node.op_type in (*WEIGHTED, *JOINS) else node.input[:1]
        return [name for name in names if name and name not in self.constants]

    def goes_to(self, node: onnx.NodeProto) -> Iterator[str | None]:
        """Who reads a node's results; None stands for the caller of the graph."""
        for tensor in node.output:
            yield from self.readers.get(tensor, [])
            if tensor in self.outputs:
                yield None


def _check(graph: _Graph, wanted: Collection[str]) -> None:
    unknown = sorted(set(wanted) - set(graph.nodes))
    if unknown:
        raise BuildError(f"expected names of nodes in the graph, there is no {', '.join(unknown[:3])}")
    strange = sorted({graph.nodes[name].op_type for name in wanted} - {*FUSIBLE})
    if strange:
        raise BuildError(
            f"expected nodes that the CPU provider runs in int8 ({', '.join(FUSIBLE)}), got {', '.join(strange)}"
        )


def _is_possible(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Weights must be constants; a Clip becomes the bounds of a range, and every range holds 0."""
    if node.op_type != "Clip":
        return node.op_type not in ("Conv", "Gemm") or constant_of(model, node.input[1]) is not None
    low, high = (
        constant_of(model, node.input[index]) if len(node.input) > index and node.input[index] else np.float32(default)
        for index, default in ((1, -np.inf), (2, np.inf))
    )
    return low is not None and high is not None and bool(low <= 0 <= high)


def _absorbed(model: onnx.ModelProto, graph: _Graph, chosen: Collection[str]) -> Iterator[str]:
    for name in chosen:
        node = graph.nodes[name]
        readers = list(graph.goes_to(node))
        if node.op_type in (*WEIGHTED, *JOINS) and len(readers) == 1 and readers[0] is not None:
            after = graph.nodes[readers[0]]
            if after.op_type in ABSORBED and _is_possible(model, after):
                yield after.name


def _pays(graph: _Graph, node: onnx.NodeProto, chosen: Collection[str], made: Collection[str]) -> bool:
    if node.op_type in WEIGHTED:
        return True
    data = graph.data(node)
    if not data:
        return False
    from_int8 = [tensor in made for tensor in data]
    to_int8 = [reader in chosen for reader in graph.goes_to(node)]
    if node.op_type == "MaxPool":
        return from_int8[0] and _leads_to_int8(graph, node, chosen)
    if node.op_type in PASSED_THROUGH and not any(from_int8):
        return all(to_int8)  # else a float value would reach a float reader through int8
    if node.op_type in JOINS and not all(from_int8):
        return any(from_int8) and all(to_int8)
    return from_int8[0]


def _leads_to_int8(graph: _Graph, node: onnx.NodeProto, chosen: Collection[str]) -> bool:
    """Whether all results end in int8 convolutions or products: else the provider leaves a pool in the planes' layout.

    Its int8 kernel for that takes up to 100 times as long as the float one (measured: 13x13 over 128 planes).
    """
    readers = list(graph.goes_to(node))
    return (
        bool(readers)
        and all(
            reader in chosen
            and (graph.nodes[reader].op_type in WEIGHTED or _leads_to_int8(graph, graph.nodes[reader], chosen))
            for reader in readers
            if reader is not None
        )
        and None not in readers
    )


def _without_weights(graph: _Graph, chosen: Collection[str]) -> set[str]:
    """Nodes of int8 stretches that hold no convolution or matrix product."""
    left = set(chosen)
    idle: set[str] = set()
    while left:
        stretch: set[str] = set()
        todo = [left.pop()]
        while todo:
            name = todo.pop()
            stretch.add(name)
            node = graph.nodes[name]
            beside = {*(graph.makers.get(tensor) for tensor in graph.data(node)), *graph.goes_to(node)}
            near = {other for other in left if other in beside}
            left -= near
            todo.extend(near)
        if not any(graph.nodes[name].op_type in WEIGHTED for name in stretch):
            idle |= stretch
    return idle
