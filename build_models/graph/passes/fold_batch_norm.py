"""BatchNormalization with constant statistics is ``x * scale + offset`` per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from build_models.graph.model_io import attribute_of
from build_models.graph.passes.editing import GraphEdit
from build_models.graph.passes.layers import Layer

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_BEFORE = ("Conv", "ConvTranspose", "Gemm")


def fold_batch_norm(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Into the Conv, ConvTranspose or Gemm before it; where there is none it becomes a Mul and an Add.

    Those merge with their neighbours and have int8 kernels, which BatchNormalization has not.
    """
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes("BatchNormalization"):
        statistics = _statistics(edit, node)
        if statistics is None:
            continue
        if _fold(edit, node, *statistics) or _write_affine(edit, node, *statistics):
            count += 1
    return edit.finish(), count


def _statistics(edit: GraphEdit, node: onnx.NodeProto) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Scale and offset per channel; None while training, where it normalises by what it sees."""
    if edit.opset < 7 or attribute_of(node, "training_mode", 0) or not attribute_of(node, "spatial", 1):
        return None
    if any(node.output[1:]):  # opset 7 to 13 trained when the statistics were asked for
        return None
    values = [edit.constant(name) for name in node.input[1:5]]
    gamma, beta, mean, variance = (
        None if value is None or value.dtype != np.float32 else value.astype(np.float64) for value in values
    )
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    # The attribute is a float32, as the kernel takes it.
    epsilon = attribute_of(node, "epsilon", float(np.float32(1e-5)))
    if np.any(variance + epsilon <= 0):
        return None
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _fold(edit: GraphEdit, node: onnx.NodeProto, scale: NDArray[np.float64], offset: NDArray[np.float64]) -> bool:
    before = edit.writer(node.input[0], *_BEFORE)
    layer = Layer.of(edit, before) if before is not None and edit.is_read_once(node.input[0]) else None
    if before is None or layer is None or layer.outputs != scale.size:
        return False
    layer.scale_outputs(scale)
    layer.shift_outputs(offset)
    if not layer.write(edit):
        return False
    edit.take_over(before, node)
    return True


def _write_affine(
    edit: GraphEdit, node: onnx.NodeProto, scale: NDArray[np.float64], offset: NDArray[np.float64]
) -> bool:
    dims = edit.dims(node.input[0])
    if dims is None or len(dims) < 2:
        return False
    along_channels = (-1, *[1] * (len(dims) - 2))
    result = node.output[0]
    name = node.name or f"BatchNormalization/{result}"
    by, plus = (
        edit.add_constant(value.reshape(along_channels).astype(np.float32), f"{name}/{what}")
        for value, what in ((scale, "scale"), (offset, "offset"))
    )
    scaled = edit.free_name(f"{result}/scaled")
    edit.drop(node)
    edit.insert_before(node, helper.make_node("Mul", [node.input[0], by], [scaled], name=f"{name}/mul"))
    edit.insert_before(node, helper.make_node("Add", [scaled, plus], [result], name=f"{name}/add"))
    return True
