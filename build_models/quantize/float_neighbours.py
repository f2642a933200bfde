"""What is float beside int8 stays exactly float: its weights, its values from other float nodes, its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from build_models.graph.writer import GraphWriter

if TYPE_CHECKING:
    from collections.abc import Collection


def part_constants(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Float nodes get copies of the weights that they share with int8 nodes, which would lose theirs."""
    shared = {name for node in model.graph.node if node.name in chosen for name in node.input}
    values = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in shared}
    writer = GraphWriter(model, "float")
    copies: dict[str, str] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if node.name not in chosen and name in values and values[name].data_type == onnx.TensorProto.FLOAT:
                if name not in copies:
                    copies[name] = writer.constant(numpy_helper.to_array(values[name]), np.float32, name)
                node.input[index] = copies[name]


def part_outputs(model: onnx.ModelProto, chosen: Collection[str]) -> dict[str, str]:
    """A float result of the graph that int8 nodes read too gets its own tensor: quantising would change the result.

    Changes ``model``; returns the tensors that the nodes now read, with the results that they are equal to.
    """
    read = {name for node in model.graph.node if node.name in chosen for name in node.input}
    made = {name for node in model.graph.node if node.name in chosen for name in node.output}
    writer = GraphWriter(model, "result")
    parted = {}
    for value in model.graph.output:
        if value.name not in read - made:
            continue
        inner = writer.op("Identity", value.name, name=f"of/{value.name}")
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == value.name:
                        names[index] = inner
        node = writer.nodes.pop()
        node.input[0], node.output[0] = inner, value.name
        model.graph.node.append(node)
        parted[inner] = value.name
    return parted


def free_float_readers(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """A float node that reads what a float node made reads it as it is, though an int8 node reads it quantised."""
    makers = {name: node for node in model.graph.node for name in node.output}
    direct = {}
    for node in model.graph.node:
        quantise = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if quantise is None or quantise.op_type != "QuantizeLinear":
            continue
        maker = makers.get(quantise.input[0])
        if maker is None or maker.name not in chosen:
            direct[node.output[0]] = quantise.input[0]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if node.name not in chosen and name in direct:
                node.input[index] = direct[name]


def keep_float(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Stop ONNX Runtime from running float nodes between int8 ones in int8 after all; changes ``model``.

    Where a convolution's input and output are quantised with one scale each, it quantises the weights by itself, with
    one scale for all (seen with 1.32); and it moves a pool of maxima to the other side of a QuantizeLinear or
    DequantizeLinear, where its int8 kernel can take 100 times as long. The same scale written once for every channel
    says the same and is left alone.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    shapes = {value.name: value.type.tensor_type.shape for value in _values(model)}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    writer = GraphWriter(model, "per_channel")
    nodes: list[onnx.NodeProto] = []

    def spread(node: onnx.NodeProto) -> list[str]:
        """Scale and zero point of a node, once for each of its channels."""
        count = shapes[node.output[0]].dim[1].dim_value
        values = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        return [writer.constant(np.full(count, value), value.dtype, "parameter") for value in values]

    for node in model.graph.node:
        source = makers.get(node.input[0]) if node.input else None
        if node.op_type in ("Conv", "Gemm", "MaxPool") and node.name not in chosen and _is_plain(source, constants):
            assert source is not None
            node.input[0] = writer.op(
                "DequantizeLinear", source.input[0], *spread(source), name=f"dequantise/{node.name}", axis=1
            )
            nodes.extend(writer.nodes)
            writer.nodes.clear()
        elif node.op_type == "QuantizeLinear" and _is_float_pool(source, chosen):
            node.input[1:3] = spread(node)
            node.attribute.append(helper.make_attribute("axis", 1))
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _is_plain(node: onnx.NodeProto | None, constants: Collection[str]) -> bool:
    """A DequantizeLinear of an activation."""
    return node is not None and node.op_type == "DequantizeLinear" and node.input[0] not in constants


def _is_float_pool(node: onnx.NodeProto | None, chosen: Collection[str]) -> bool:
    return node is not None and node.op_type == "MaxPool" and node.name not in chosen


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return [*graph.value_info, *graph.output, *graph.input]
