"""The camera's bytes in a float graph: what only moves them can move bytes, and where they are quantised they are done.

Scale 1 and zero point 0 represent a byte exactly, so its Cast to float followed by a QuantizeLinear is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from build_models.errors import BuildError
from build_models.graph.model_io import constant_of
from build_models.graph.writer import GraphWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOVES = {"Reshape", "Transpose", "Gather", "Slice", "Split", "Concat"}


def pixel_tensors(model: onnx.ModelProto) -> set[str]:
    """The tensors that hold the image's bytes still, as bytes or as float."""
    pixels = {"image"}
    for node in model.graph.node:
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        if (node.op_type in {*_MOVES, "SpaceToDepth"} or _is_to_float(node)) and pixels.issuperset(moved):
            pixels.update(node.output)
    return pixels


def cast_late(model: onnx.ModelProto) -> dict[str, str]:
    """Let what moves pixels move bytes, and cast where somebody computes with them; changes ``model``.

    A SpaceToDepth and what is behind it stays float: older runtimes have no kernel for it on bytes.

    Returns:
        Each tensor of bytes that is computed with, and the float tensor made of it.
    """
    pixels = pixel_tensors(model)
    if any(value.name in pixels for value in model.graph.output):
        return {}  # an output keeps its type
    writer = GraphWriter(model, "bytes")
    bytes_of: dict[str, str] = {}  # a float tensor of pixels to the one that now holds them as bytes
    casts: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if _is_to_float(node) and node.input[0] in pixels:
            bytes_of[node.output[0]] = bytes_of.get(node.input[0], node.input[0])
            continue
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        moves = node.op_type in _MOVES and all(name in bytes_of for name in moved)
        for index, name in enumerate(node.input):
            source = bytes_of.get(name)
            if source is None:
                continue
            if not moves and source not in casts:
                casts[source] = writer.op("Cast", source, name=f"cast/{source}", to=TensorProto.FLOAT)
                nodes.append(writer.nodes.pop())
            node.input[index] = source if moves else casts[source]
        if moves:
            bytes_of.update({name: name for name in node.output})
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]  # some are bytes now
    return casts


def bind_bytes(model: onnx.ModelProto, casts: Mapping[str, str]) -> None:
    """Let who reads bytes -> Cast -> QuantizeLinear(1, 0) read the bytes themselves; changes ``model``.

    Raises:
        BuildError: bytes are quantised with another scale.
    """
    bytes_of = {float_name: name for name, float_name in casts.items()}
    quantised = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in bytes_of:
            scale, zero = (constant_of(model, name) for name in node.input[1:3])
            if scale != 1 or zero != 0:
                raise BuildError(
                    f"expected the image to be quantised with scale 1 and zero point 0, got {scale} and {zero}"
                )
            quantised[node.output[0]] = bytes_of[node.input[0]]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = quantised.get(name, name)


def _is_to_float(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT
