"""What is added to or multiplied with a layer's output goes into its weights and bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.passes.affine import Affine
from build_models.graph.passes.editing import GraphEdit
from build_models.graph.passes.layers import LAYERS, Layer

if TYPE_CHECKING:
    import onnx


def fold_bias(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Sums and differences behind a Conv, ConvTranspose or Gemm."""
    return _fold(model, "Add", "Sub")


def fold_scale(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Products and quotients behind them, and behind a MatMul."""
    return _fold(model, "Mul", "Div", "Neg")


def _fold(model: onnx.ModelProto, *op_types: str) -> tuple[onnx.ModelProto, int]:
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes(*op_types):
        step = Affine.of(edit, node)
        before = edit.writer(step.source, *LAYERS) if step is not None else None
        if step is None or before is None or not edit.is_read_once(step.source):
            continue
        layer = Layer.of(edit, before)
        if layer is None or (step.shifts and not layer.takes_bias):
            continue
        scale, offset = (layer.per_channel(value, layer.outputs) for value in (step.scale, step.offset))
        if scale is None or offset is None:
            continue
        if step.scales:
            layer.scale_outputs(scale)
        if step.shifts:
            layer.shift_outputs(offset)
        if layer.write(edit):
            edit.take_over(before, node)
            count += 1
    return edit.finish(), count
