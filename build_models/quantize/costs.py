"""How much arithmetic each node of a graph of static shapes does."""

from __future__ import annotations

from math import prod

import onnx

from build_models.graph.model_io import attribute_of


def arithmetic_of(model: onnx.ModelProto) -> dict[str, float]:
    """Multiply-accumulates of every node by name; of what multiplies no matrices, the number of its results.

    Args:
        model: static shapes, every node named.
    """
    shapes = shapes_of(model)
    return {node.name: _of_node(node, shapes) for node in model.graph.node}


def _of_node(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> float:
    results = float(sum(prod(shapes.get(name, (0,))) for name in node.output if name))
    if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1:
        weight = shapes.get(node.input[1], ())
        if node.op_type == "Conv":  # weight [out, in / group, ...]: each result takes in / group * kernel products
            return results * prod(weight[1:])
        inner = 0 if node.op_type == "Gemm" and attribute_of(node, "transA", 0) else -1
        return results * (shapes.get(node.input[0], (1,)) or (1,))[inner]
    if node.op_type == "ConvTranspose":  # weight [in, out / group, ...]: each input meets out / group * kernel weights
        return prod(shapes.get(node.input[0], (0,))) * prod(shapes.get(node.input[1], (0, 0))[1:])
    return results


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that shape inference knows, constants included."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    shapes = {value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim) for value in values}
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
