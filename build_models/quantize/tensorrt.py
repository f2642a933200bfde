"""Static int8 for TensorRT, whose explicit quantisation wants other things than the CPU provider: a file of its own.

After NVIDIA's "Explicit Quantization": everything is symmetric int8 with zero point 0; the *inputs* of convolutions and
matrix products are quantised, weights included (per output channel), their outputs are not, so that Relu, Clip and a
sum can join the kernel in front; a bias stays float, as TensorRT dequantises no int32; a sum reads the branch around a
block as the block's first convolution does; all inputs of a concatenation share the scale of its result. The camera's
bytes enter through the float graph's own Cast and normalisation. Official operators only, so it runs on the CPU too,
slowly, which is enough to measure its accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import constant_of, opset_of, remove_unused_initialisers
from build_models.graph.portable import OPSETS
from build_models.graph.writer import GraphWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from build_models.quantize.ranges import Ranges

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LEAST = 1e-30  # what is smaller is zero: its scale would be no normal float32
_GREATEST = 127  # -128 is left out, as TensorRT does: the scheme is symmetric


def quantize_tensorrt(
    model: onnx.ModelProto, nodes: Collection[str], ranges: Ranges, *, per_channel: bool = True
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantise what some nodes read.

    Args:
        model: canonical float graph, portable ops only; not changed.
        nodes: names of nodes, of which the convolutions and matrix products are taken: the rest follows from them.
        ranges: of the tensors that these nodes, and concatenations in front of them, read.
        per_channel: a scale for every output channel of a weight, else one for all.

    Returns:
        The graph with the same input and outputs, and a report: nodes quantised, and the tensors with their scales.

    Raises:
        BuildError: nothing could be quantised, a range is missing, or the result breaks one of TensorRT's rules.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    wanted = set(nodes)
    chosen = [node for node in result.graph.node if node.name in wanted and _is_weighted(node, constants)]
    if not chosen:
        raise BuildError("expected a convolution or matrix product to quantise, found none; shorten quantize.targets")
    joined = _joined(result, {name for node in chosen for name in node.input[:2]} - constants.keys())
    scales = _scales(result, chosen, joined, constants.keys(), ranges)
    writer = GraphWriter(result, "trt")
    dequantised = dict.fromkeys(scales, "")
    weights: dict[tuple[str, int | None], str] = {}
    names = {node.name for node in chosen}
    ordered: list[onnx.NodeProto] = []
    for node in result.graph.node:
        reads = node.name in names or node.name in joined or node.op_type == "Add"
        for index, name in enumerate(node.input):
            if reads and name in scales and not (node.name in names and index > 1):
                dequantised[name] = dequantised[name] or _pair(writer, name, scales[name])
                node.input[index] = dequantised[name]
            elif node.name in names and index == 1 and name in constants:
                axis = _channel_axis(node, constants[name]) if per_channel else None
                if (name, axis) not in weights:
                    weights[name, axis] = _weight(writer, name, numpy_helper.to_array(constants[name]), axis)
                node.input[index] = weights[name, axis]
        ordered.extend(writer.nodes)
        writer.nodes.clear()
        ordered.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    remove_unused_initialisers(result)
    check_tensorrt(result)
    return result, {"quantised_nodes": len(chosen), "nodes": [node.name for node in chosen], "scales": scales}


def check_tensorrt(model: onnx.ModelProto) -> None:
    """Raises BuildError with every violation of TensorRT's rules for explicitly quantised files."""
    violations = sorted(set(_violations(model)))
    if violations:
        shown = "; ".join(violations[:5]) + (f"; and {len(violations) - 5} more" if len(violations) > 5 else "")
        raise BuildError(f"TensorRT does not take this file: {shown}")


def _is_weighted(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """A matrix product of two activations counts; a convolution with computed weights does not."""
    if node.op_type not in WEIGHTED or node.input[0] in constants:
        return False
    return node.op_type == "MatMul" or node.input[1] in constants


def _joined(model: onnx.ModelProto, tensors: set[str]) -> dict[str, onnx.NodeProto]:
    """The concatenations whose results are among the tensors to quantise; their inputs join these."""
    found = {}
    for node in reversed(model.graph.node):
        if node.op_type == "Concat" and node.output[0] in tensors:
            found[node.name] = node
            tensors.update(node.input)
    return found


def _scales(
    model: onnx.ModelProto,
    chosen: list[onnx.NodeProto],
    joined: dict[str, onnx.NodeProto],
    constants: Collection[str],
    ranges: Ranges,
) -> dict[str, float]:
    """One scale for each tensor; those that meet in a concatenation share the largest."""
    groups: dict[str, set[str]] = {}
    met = [{*node.input, *node.output} - set(constants) for node in joined.values()]
    read = [{name} for node in chosen for name in node.input[:2] if name and name not in constants]
    for members in [*read, *met]:
        whole = set().union(members, *(groups[name] for name in members if name in groups))
        groups.update(dict.fromkeys(whole, whole))
    missing = sorted(groups.keys() - ranges.keys())
    if missing:
        raise BuildError(f"expected a range of the tensor {missing[0]}, found none; collect_ranges gives it")
    order = {name: None for node in model.graph.node for name in node.input if name in groups}
    greatest = {name: max(abs(bound) for member in groups[name] for bound in ranges[member]) for name in order}
    return {name: float(np.float32(value / _GREATEST)) if value > _LEAST else 1.0 for name, value in greatest.items()}


def _pair(writer: GraphWriter, tensor: str, scale: float) -> str:
    """QuantizeLinear and DequantizeLinear; without its zero point the first would give uint8."""
    inputs = [writer.constant(scale, np.float32, f"{tensor}/scale"), writer.constant(0, np.int8, f"{tensor}/zero")]
    quantised = writer.op("QuantizeLinear", tensor, *inputs, name=f"{tensor}/quantise")
    return writer.op("DequantizeLinear", quantised, *inputs, name=f"{tensor}/dequantise")


def _weight(writer: GraphWriter, name: str, values: NDArray[np.float32], axis: int | None) -> str:
    others = tuple(index for index in range(values.ndim) if index != axis)
    greatest = np.abs(values).max(axis=others if axis is not None else None, keepdims=True)
    scale = np.where(greatest > _LEAST, greatest / _GREATEST, 1.0).astype(np.float32)
    stored = np.clip(np.rint(values / scale), -_GREATEST, _GREATEST)
    flat = scale.ravel() if axis is not None else scale.reshape(())
    inputs = [
        writer.constant(stored, np.int8, f"{name}/int8"),
        writer.constant(flat, np.float32, f"{name}/scale"),
        writer.constant(np.zeros_like(flat), np.int8, f"{name}/zero"),
    ]
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return writer.op("DequantizeLinear", *inputs, name=f"{name}/dequantise", **attributes)


def _channel_axis(node: onnx.NodeProto, weights: onnx.TensorProto) -> int | None:
    """Where the output channels lie; a grouped ConvTranspose has them in no one axis."""
    flags = {entry.name: entry.i for entry in node.attribute}
    if node.op_type == "ConvTranspose":
        return 1 if flags.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if flags.get("transB", 0) else 1
    return 0 if node.op_type == "Conv" else len(weights.dims) - 1


def _violations(model: onnx.ModelProto) -> Iterator[str]:
    low, high = OPSETS
    if not low <= opset_of(model) <= high:
        yield f"opset {opset_of(model)}, expected {low} to {high}"
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.domain not in {"", "ai.onnx"}:
            yield f"{node.name} is no official operator but {node.domain}.{node.op_type}"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _wrong_parameters(model, node)
        elif node.op_type in WEIGHTED:
            yield from _wrong_inputs(node, makers)
        elif node.op_type == "Concat":
            yield from _wrong_join(model, node, makers)


def _wrong_parameters(model: onnx.ModelProto, node: onnx.NodeProto) -> Iterator[str]:
    scale, zero = (constant_of(model, node.input[index]) if len(node.input) > index else None for index in (1, 2))
    stored = constant_of(model, node.input[0])
    if scale is None or not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        yield f"the scale of {node.name} is no positive constant"
    if zero is None:
        yield f"{node.name} has no constant zero point"
    elif zero.dtype != np.int8:
        yield f"{node.name} works on {zero.dtype}, expected int8"
    elif np.any(zero):
        yield f"{node.name} has the zero point {int(zero.ravel()[np.argmax(zero.ravel() != 0)])}, expected 0"
    if stored is not None and node.op_type == "DequantizeLinear" and stored.dtype != np.int8:
        yield f"{node.name} dequantises a constant of {stored.dtype}, expected int8; a bias stays float"


def _wrong_inputs(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> Iterator[str]:
    kinds = [makers[name].op_type == "DequantizeLinear" if name in makers else False for name in node.input]
    if kinds[0] != kinds[1]:
        which = "its input but not its weights" if kinds[0] else "its weights but not its input"
        yield f"{node.name} has {which} quantised"
    if any(kinds[2:]):
        yield f"the bias of {node.name} is quantised, expected float"


def _wrong_join(model: onnx.ModelProto, node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> Iterator[str]:
    sources = [makers[name] for name in node.input if name in makers and makers[name].op_type == "DequantizeLinear"]
    readers = [each for each in model.graph.node if each.op_type == "QuantizeLinear" and node.output[0] in each.input]
    if not sources or not readers:
        return
    values = [constant_of(model, each.input[1]) for each in [*sources, *readers]]
    scales = {float(value.ravel()[0]) for value in values if value is not None}
    if len(sources) < len(node.input) or len(scales) > 1:
        yield f"the inputs and the result of {node.name} do not share one scale"
