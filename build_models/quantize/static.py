"""Static int8: QDQ around what the CPU provider fuses, uint8 activations, per-channel int8 weights with zero point 0.

The camera's bytes are the first quantised tensor: the input's Cast and QuantizeLinear (scale 1, zero point 0) cancel,
so the int8 file begins with a DequantizeLinear of the image itself, and the device turns all up to the head into NHWC
integer kernels without a transpose. What only moves pixels moves bytes. Two rewrites keep it so when a mean stays in
front of a padded convolution:

- ``x - c`` becomes ``x + (-c)``: the provider adds in int8, but does not subtract.
- a constant per channel is spread over its plane (by an Expand, which the device folds): measured for 224x224 on x86,
  the addition then takes 0.1 ms, against 0.45 ms for a subtraction in float and 1.5 ms for adding three numbers per
  pixel, because the kernel handles each run of equal channels by itself.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import attribute_of, constant_of, remove_dead_nodes
from build_models.graph.writer import GraphWriter
from build_models.quantize.float_neighbours import (
    free_float_readers,
    keep_float,
    part_constants,
    part_outputs,
)
from build_models.quantize.islands import FUSIBLE, JOINS, WEIGHTED, settle
from build_models.quantize.pixels import bind_bytes, cast_late, pixel_tensors
from build_models.quantize.stem import pack_stem

if TYPE_CHECKING:
    from collections.abc import Collection

    from build_models.quantize.ranges import Ranges

_SHORT_RUN = 16  # constants of fewer numbers are spread


def body_nodes(model: onnx.ModelProto, raw_outputs: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that the raw head tensors depend on: all but the decode tail, which stays float."""
    needed = set(raw_outputs)
    body = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            body.append(node)
            needed.update(node.input)
    return body[::-1]


def quantisable_tensors(model: onnx.ModelProto, raw_outputs: Collection[str]) -> set[str]:
    """The float activations whose ranges `quantize_static` needs."""
    floats = {value.name for value in _inferred(model) if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    constants = {tensor.name for tensor in model.graph.initializer}
    used = {name for node in body_nodes(model, raw_outputs) for name in [*node.input, *node.output] if name}
    return (used & floats) - constants


def fusible_nodes(model: onnx.ModelProto, raw_outputs: Collection[str]) -> list[str]:
    """Names of the body's nodes that the CPU provider runs in int8, or that pass int8 through, in graph order."""
    return [node.name for node in body_nodes(_with_sums(model), raw_outputs) if node.op_type in FUSIBLE]


def quantize_static(
    model: onnx.ModelProto,
    nodes: Collection[str],
    ranges: Ranges,
    *,
    reduce_range: bool = False,
    per_channel: bool = True,
    packed_stem: bool = False,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantise some nodes of a canonical float graph.

    Args:
        model: canonical graph, portable ops only; not changed.
        nodes: names of the nodes to run in int8, of `fusible_nodes`; those that cannot pay stay float (`settle`).
        ranges: of every tensor in `quantisable_tensors` that one of these nodes reads or writes.
        reduce_range: weights of 7 bits, for x86 without VNNI: its sums of two products then stay in 16 bits.
        per_channel: a scale for every output channel of a weight, else one for all.
        packed_stem: rewrite the first convolution (`pack_stem`), for x86.

    Returns:
        The int8 graph with the same input and outputs, and a report: nodes quantised, their names, the operators left
        in float on which those depend, and whether the stem was packed.

    Raises:
        BuildError: a node is none that can be quantised, a range is missing, nothing is left to quantise, or a weight
            has a zero point.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    prepared = _with_sums(model)
    _flatten_biases(prepared)
    chosen = settle(prepared, nodes, pixel_tensors(prepared))
    by_name = {node.name: node for node in prepared.graph.node}
    if not any(by_name[name].op_type in WEIGHTED for name in chosen):
        raise BuildError("expected a convolution or matrix product to quantise, found none; shorten quantize.targets")
    told = {"quantised_nodes": len(chosen), "nodes": chosen, "float_ops_in_body": _left(prepared, chosen)}
    packed = pack_stem(prepared, ranges, chosen) if packed_stem else None
    if packed is not None:
        prepared, ranges, chosen = packed.model, packed.ranges, [*chosen, *packed.added]
    pixels = pixel_tensors(prepared)
    casts = cast_late(prepared)
    bytes_ = {value.name for value in _inferred(prepared) if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    chosen = [node.name for node in prepared.graph.node if node.name in chosen and node.output[0] not in bytes_]
    part_constants(prepared, chosen)
    full = {**ranges, **dict.fromkeys([*pixels, *casts.values()], (0.0, 255.0))}
    full |= {name: full[result] for name, result in part_outputs(prepared, chosen).items() if result in full}
    quantizer = QDQQuantizer(
        prepared,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, _bounds(prepared, chosen, full)),
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=list(FUSIBLE),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # it appends its nodes at the end
    result: onnx.ModelProto = quantizer.model.model
    bind_bytes(result, casts)
    free_float_readers(result, chosen)
    keep_float(result, chosen)
    _spread_constants(result)
    remove_dead_nodes(result)
    _check_weights(result)
    return result, {**told, "packed_stem": packed is not None}


def _with_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the subtraction of a constant is the addition of its negative, which is exactly the same."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    writer = GraphWriter(result, "negative")
    for node in result.graph.node:
        value = constant_of(result, node.input[1]) if node.op_type == "Sub" else None
        if value is not None and value.dtype == np.float32:
            node.op_type = "Add"
            node.input[1] = writer.constant(-value, np.float32, node.input[1])
    return result


def _flatten_biases(model: onnx.ModelProto) -> None:
    """A Gemm may broadcast its bias, such as ``[1, N]``; the quantiser wants a number per column. Changes ``model``."""
    writer = GraphWriter(model, "bias")
    for node in model.graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3:
            continue
        weight, bias = constant_of(model, node.input[1]), constant_of(model, node.input[2])
        if weight is None or bias is None:
            continue
        columns = weight.shape[0 if attribute_of(node, "transB", 0) else 1]
        if bias.shape != (columns,) and bias.size in (1, columns):
            flat = np.broadcast_to(bias.reshape(-1), (columns,))
            node.input[2] = writer.constant(flat, bias.dtype, node.input[2])


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return [*graph.value_info, *graph.output, *graph.input]


def _left(model: onnx.ModelProto, chosen: Collection[str]) -> list[str]:
    """Operators in float among those that the chosen nodes depend on."""
    results = [name for node in model.graph.node if node.name in chosen for name in node.output]
    return sorted({node.op_type for node in body_nodes(model, results) if node.name not in chosen} - {"Cast"})


def _bounds(model: onnx.ModelProto, chosen: Collection[str], ranges: Ranges) -> dict[str, tuple[Any, Any]]:
    """The ranges that the chosen nodes need, each with 0 in it."""
    constants = {tensor.name for tensor in model.graph.initializer}
    bounds = {}
    for node in model.graph.node:
        if node.name in chosen:
            data = node.input if node.op_type in (*WEIGHTED, *JOINS) else node.input[:1]
            for name in {*data, *node.output} - constants - {""}:
                if name not in ranges:
                    raise BuildError(f"expected a range of the tensor {name}, found none; collect_ranges gives it")
                low, high = ranges[name]
                bounds[name] = (np.float32(min(low, 0.0)), np.float32(max(high, 0.0)))
    return bounds


def _spread_constants(model: onnx.ModelProto) -> None:
    """Give a short constant operand the shape of the sum or product that it goes into."""
    readers = Counter(name for node in model.graph.node for name in node.input)
    dequantised = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    shapes = {
        value.name: value.type.tensor_type.shape for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    writer = GraphWriter(model, "spread")
    for node in model.graph.node:
        for name in node.input if node.op_type in ("Add", "Mul") else ():
            source = dequantised.get(name)
            value = constant_of(model, source.input[0]) if source is not None else None
            if source is None or value is None or not 1 < value.size < _SHORT_RUN or readers[name] > 1:
                continue
            shape = [side.dim_value for side in shapes[node.output[0]].dim]
            source.input[0] = writer.op(
                "Expand", source.input[0], writer.constant(shape, np.int64, "shape"), name=f"over/{node.name}"
            )
    nodes = [*writer.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _check_weights(model: onnx.ModelProto) -> None:
    """MLAS has its symmetric fast paths only for weights with zero point 0."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants or len(node.input) < 3:
            continue
        if constants[node.input[0]].data_type == onnx.TensorProto.INT8:
            zeros = numpy_helper.to_array(constants[node.input[2]])
            if np.any(zeros):
                raise BuildError(f"expected zero point 0 for the weight {node.input[0]}, got {zeros.ravel()[:4]}")
