"""What is multiplied with or added to a layer's input goes into its weights and bias.

A product always; a sum only where the layer pads nothing: padding puts zeros in *behind* the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.passes.affine import AFFINE_OPS, Affine
from build_models.graph.passes.editing import GraphEdit
from build_models.graph.passes.layers import LAYERS, Layer

if TYPE_CHECKING:
    import onnx


def fold_before(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Where nobody but the layer reads the product or sum; else it would have to stay all the same."""
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes(*LAYERS):
        before = edit.writer(node.input[0], *AFFINE_OPS)
        step = Affine.of(edit, before) if before is not None else None
        if before is None or step is None or not edit.is_read_once(node.input[0]):
            continue
        layer = Layer.of(edit, node)
        if layer is None or (step.shifts and (layer.pads or not layer.takes_bias)):
            continue
        scale, offset = (layer.per_channel(value, layer.inputs) for value in (step.scale, step.offset))
        if scale is None or offset is None:
            continue
        # The scale comes first in the graph, so the offset meets the weights as they were.
        if step.shifts:
            layer.shift_inputs(offset)
        layer.scale_inputs(scale)
        if layer.write(edit):
            edit.set_input(node, 0, step.source)
            edit.drop(before)
            count += 1
    return edit.finish(), count
