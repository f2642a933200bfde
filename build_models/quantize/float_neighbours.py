"""What is float beside int8 stays exactly float: its weights, its values from other float nodes, its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

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


def part_outputs(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """A float result of the graph that int8 nodes read too gets its own tensor: quantising would change the result."""
    read = {name for node in model.graph.node if node.name in chosen for name in node.input}
    made = {name for node in model.graph.node if node.name in chosen for name in node.output}
    writer = GraphWriter(model, "result")
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
    """Stop ONNX Runtime from quantising a float convolution between int8 ones by itself, with one scale for all.

    It does so (seen with 1.32) where input and output are quantised with one scale each; the same scale written once
    for every channel says the same and is left alone.
    """
    dequantise = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    writer = GraphWriter(model, "per_channel")
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        source = dequantise.get(node.input[0]) if node.op_type in ("Conv", "Gemm") else None
        weights = constants.get(node.input[1]) if source is not None else None
        if node.name not in chosen and source is not None and weights is not None:
            group = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
            channels = weights.dims[1] * group if node.op_type == "Conv" else _gemm_inputs(node, weights)
            scale, zero = (numpy_helper.to_array(constants[name]) for name in source.input[1:3])
            inputs = [source.input[0], writer.constant(np.full(channels, scale), scale.dtype, "scale")]
            inputs.append(writer.constant(np.full(channels, zero), zero.dtype, "zero"))
            node.input[0] = writer.op("DequantizeLinear", *inputs, name=f"dequantise/{node.name}", axis=1)
            nodes.extend(writer.nodes)
            writer.nodes.clear()
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _gemm_inputs(node: onnx.NodeProto, weights: onnx.TensorProto) -> int:
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    return int(weights.dims[1 if transposed else 0])
