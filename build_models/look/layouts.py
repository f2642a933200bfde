"""Which tensors of a graph are pictures, and on which axis their channels lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.model_io import inputs_of

if TYPE_CHECKING:
    import onnx

FIRST, LAST = 1, 3  # the channels' axis in NCHW and NHWC
_SPATIAL = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "BatchNormalization", "InstanceNormalization"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "DepthToSpace", "SpaceToDepth"),
    *("Upsample", "LRN", "RoiAlign", "FusedConv", "QLinearAveragePool", "QLinearGlobalAveragePool"),
}
_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_FLAT = {"Reshape", "Flatten", "Squeeze", "Gemm", "MatMul", "Shape"}


def channel_axes(model: onnx.ModelProto) -> dict[str, int]:
    """The channels' axis of every tensor for which the operators around it tell; others are not in the result.

    ONNX's own spatial operators have channels first; a ``Transpose`` moves them, and what only computes leaves them
    where they were.
    """
    found: dict[str, int] = {}
    for info in inputs_of(model):
        if len(info.shape) == 4:
            found[info.name] = LAST if info.shape[LAST] in (1, 3) and info.shape[FIRST] not in (1, 3) else FIRST
    for node in model.graph.node:
        axis = _axis_of_result(node, found)
        if axis is not None:
            found.update(dict.fromkeys(node.output, axis))
    return found


def _axis_of_result(node: onnx.NodeProto, known: dict[str, int]) -> int | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in _SPATIAL:
        return LAST if "channels_last" in attributes and attributes["channels_last"].i else FIRST
    if node.op_type in _FLAT:
        return None
    axis = next((known[name] for name in node.input if name in known), None)
    if node.op_type == "Transpose" and axis is not None:
        moved = list(attributes["perm"].ints) if "perm" in attributes else []
        return {(FIRST, *_TO_LAST): LAST, (LAST, *_TO_FIRST): FIRST, (axis, 0, 1, 2, 3): axis}.get((axis, *moved))
    return axis
