"""Static int8: QDQ around what the CPU provider fuses, uint8 activations, per-channel int8 weights with zero point 0.

The camera's bytes are the first quantised tensor: the input's Cast and QuantizeLinear (scale 1, zero point 0) cancel,
so the int8 file begins with a DequantizeLinear of the image itself.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from agent.model.runtime import ort
from build_models.errors import BuildError
from build_models.graph.model_io import remove_dead_nodes

if TYPE_CHECKING:
    from collections.abc import Collection

    from build_models.quantize.ranges import Ranges

# What the CPU provider runs in int8, and what passes int8 through; quantising around others leaves float islands.
FUSED = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid")
PASSED_THROUGH = ("Relu", "Clip", "MaxPool", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
_WEIGHTED = {"Conv", "Gemm", "MatMul"}


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
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    constants = {tensor.name for tensor in model.graph.initializer}
    used = {name for node in body_nodes(model, raw_outputs) for name in [*node.input, *node.output] if name}
    return (used & floats) - constants


def quantize_static(
    model: onnx.ModelProto, raw_outputs: Collection[str], ranges: Ranges
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantise the body of a canonical float graph.

    Args:
        model: canonical graph, portable ops only; not changed.
        raw_outputs: the tensors behind which the graph stays float.
        ranges: of every tensor in `quantisable_tensors`.

    Returns:
        The int8 graph with the same input and outputs, and a report: operators quantised and left in float.

    Raises:
        BuildError: nothing could be quantised, or a weight has a zero point.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    body = body_nodes(model, raw_outputs)
    chosen = [node.name for node in body if node.op_type in (*FUSED, *PASSED_THROUGH)]
    left = [node for node in body if node.op_type not in (*FUSED, *PASSED_THROUGH)]
    if not any(node.op_type in _WEIGHTED for node in body):
        raise BuildError("expected a convolution or matrix product to quantise, found none in front of the outputs")
    full = {**ranges, **_pixel_ranges(model)}
    data = {name: (np.float32(min(low, 0.0)), np.float32(max(high, 0.0))) for name, (low, high) in full.items()}
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=chosen,
        nodes_to_exclude=[],
        op_types_to_quantize=[*FUSED, *PASSED_THROUGH],
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # it appends its nodes at the end
    result: onnx.ModelProto = quantizer.model.model
    _bind_bytes(result)
    remove_dead_nodes(result)
    _check_weights(result)
    left_ops = sorted({node.op_type for node in left} - {"Cast", "Constant"})
    return result, {"quantised_nodes": len(chosen), "float_ops_in_body": left_ops}


def count_kernels(model: onnx.ModelProto, optimised_path: str) -> dict[str, int]:
    """What ONNX Runtime makes of a file on this CPU: its optimised graph, counted by operator."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = optimised_path
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    counts: dict[str, int] = {}
    for node in onnx.load(optimised_path).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _pixel_ranges(model: onnx.ModelProto) -> Ranges:
    """The tensors that still hold the camera's bytes: scale 1 and zero point 0 represent them exactly."""
    pixels = {"image"}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Transpose", "Gather", "Slice") and node.input[0] in pixels:
            pixels.update(node.output)
    return dict.fromkeys(pixels - {"image"}, (0.0, 255.0))


def _bind_bytes(model: onnx.ModelProto) -> None:
    """Replace image -> Cast -> QuantizeLinear(1, 0) by the image itself."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = {node.output[0] for node in model.graph.node if node.op_type == "Cast" and node.input[0] == "image"}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in casts:
            continue
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if float(scale) != 1.0 or int(zero) != 0:
            raise BuildError(
                f"expected the image to be quantised with scale 1 and zero point 0, got {scale} and {zero}"
            )
        for reader in model.graph.node:
            for index, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[index] = "image"


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
