"""A model that this machine cannot hold is refused before it is tried, not killed while it runs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import psutil

from build_models.errors import RecipeError
from build_models.quantize.costs import shapes_of

if TYPE_CHECKING:
    import onnx

_FLOAT_BYTES = 4
# A rounding that can be switched keeps its input, a byte per value, and two copies of it for a moment.
_COPIES = 3
_GIB = 2**30


def peak_bytes(model: onnx.ModelProto) -> int:
    """Most bytes of activations that are alive at once when the nodes run in order, all of them as float32.

    Args:
        model: static shapes.
    """
    sizes = {name: prod(shape) * _FLOAT_BYTES for name, shape in shapes_of(model).items()}
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    last_read = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    alive = {value.name for value in model.graph.input} - constants
    most = 0
    for index, node in enumerate(model.graph.node):
        alive.update(name for name in node.output if name)
        most = max(most, sum(sizes.get(name, 0) for name in alive))
        alive -= {name for name in alive if last_read.get(name, -1) <= index and name not in outputs}
    return most


def check_memory(model: onnx.ModelProto) -> None:
    """Raises RecipeError when calibration and search would need more memory than is free now."""
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    needed = _COPIES * (peak_bytes(model) + weights)
    free = int(psutil.virtual_memory().available)
    if needed > free:
        raise RecipeError(
            f"the model needs about {needed / _GIB:.1f} GiB to be calibrated, {free / _GIB:.1f} GiB are free: take a "
            "smaller input.width and input.height, or a machine with more memory"
        )
