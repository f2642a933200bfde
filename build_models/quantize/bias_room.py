"""Room for biases: int8 stores a bias in 32 bits at the scale of its products, input scale times weight scale.

A channel whose weights are next to nothing, as a network that was pruned or regularised leaves behind, has a next to
nothing scale, and its bias, which is all that it says, does not fit and would be cut off. One of its weights is raised
until the bias fits: by so little that the channel's output moves by less than 2e-5 of the bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from build_models.graph.model_io import constant_of
from build_models.graph.writer import GraphWriter

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx
    from numpy.typing import NDArray

    from build_models.quantize.ranges import Ranges

_MOST = float(np.iinfo(np.int32).max) / 2  # half of it: scales are rounded to float32
_LEVELS = 255


def make_room_for_biases(model: onnx.ModelProto, nodes: Collection[str], ranges: Ranges, weight_levels: int) -> int:
    """Raise the weights of channels whose bias would not fit; changes ``model``.

    Args:
        model: float graph about to be quantised.
        nodes: names of the nodes that will run in int8.
        ranges: of the tensors that they read.
        weight_levels: of a weight's sign, 127 for 8 bits.

    Returns:
        The number of channels.
    """
    writer = GraphWriter(model, "room")
    raised = 0
    for node in model.graph.node:
        if node.op_type != "Conv" or node.name not in nodes or len(node.input) < 3 or node.input[0] not in ranges:
            continue
        weight, bias = constant_of(model, node.input[1]), constant_of(model, node.input[2])
        if weight is None or bias is None:
            continue
        low, high = ranges[node.input[0]]
        input_scale = (max(high, 0.0) - min(low, 0.0)) / _LEVELS
        if input_scale <= 0:
            continue
        least = np.abs(bias.astype(np.float64)) / (input_scale * _MOST) * weight_levels
        changed = _raised(weight, least)
        if changed is not None:
            raised += int((np.abs(changed) != np.abs(weight)).reshape(len(weight), -1).any(axis=1).sum())
            node.input[1] = writer.constant(changed, weight.dtype, node.input[1])
    return raised


def _raised(weight: NDArray[np.float32], least: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """The weight with the largest of each channel at ``least``, at least; None where all are."""
    rows = weight.reshape(len(weight), -1).copy()
    largest = np.abs(rows).argmax(axis=1)
    peaks = rows[np.arange(len(rows)), largest]
    small = np.abs(peaks) < least
    if not small.any():
        return None
    rows[small, largest[small]] = np.where(peaks[small] < 0, -least[small], least[small]).astype(weight.dtype)
    result: NDArray[np.float32] = rows.reshape(weight.shape)
    return result
