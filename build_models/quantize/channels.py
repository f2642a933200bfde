"""Per channel over the calibration pictures: mean, power and largest magnitude of activations.

The graph itself reduces, so a picture costs three numbers per channel and nothing else is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx

from build_models.graph.model_io import opset_of
from build_models.graph.writer import GraphWriter
from build_models.quantize.taps import open_tapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Channels:
    """Of one tensor, per channel ``[C]``: the mean, the mean square and the largest magnitude."""

    mean: NDArray[np.float64]
    power: NDArray[np.float64]
    largest: NDArray[np.float64]


def collect_channels(
    model: onnx.ModelProto, tensors: Mapping[str, int], images: Iterable[NDArray[np.uint8]]
) -> dict[str, Channels]:
    """Run a graph on pictures.

    Args:
        model: canonical graph, float or int8, input ``image``.
        tensors: names with their ranks; axis 1 is the channel, as in ``[1, C, h, w]``.
        images: uint8 ``[H, W, 3]``; consumed one by one.

    Raises:
        ValueError: there was no picture.
    """
    with_constants = onnx.ModelProto()
    with_constants.CopyFrom(model)
    writer = GraphWriter(with_constants, "channels")
    names = []
    for name, rank in tensors.items():
        square = writer.op("Mul", name, name, name="square")
        magnitude = writer.op("Abs", name, name="magnitude")
        for op_type, tensor in (("ReduceMean", name), ("ReduceMean", square), ("ReduceMax", magnitude)):
            names.append(_per_channel(writer, opset_of(model), op_type, tensor, (0, *range(2, rank))))
    session = open_tapped(with_constants, writer.nodes, [onnx.ValueInfoProto(name=name) for name in names])
    means: list[NDArray[np.float64]] = []
    powers: list[NDArray[np.float64]] = []
    largest: list[NDArray[np.float64]] = []
    count = 0
    for image in images:
        values = [np.asarray(value, np.float64) for value in session.run(names, {"image": image[None]})]
        count += 1
        if count == 1:
            means, powers, largest = values[::3], values[1::3], values[2::3]
        else:
            means = [total + value for total, value in zip(means, values[::3], strict=True)]
            powers = [total + value for total, value in zip(powers, values[1::3], strict=True)]
            largest = [np.maximum(total, value) for total, value in zip(largest, values[2::3], strict=True)]
    if not count:
        raise ValueError("expected at least one picture")
    return {
        name: Channels(mean / count, power / count, most)
        for name, mean, power, most in zip(tensors, means, powers, largest, strict=True)
    }


def _per_channel(writer: GraphWriter, opset: int, op_type: str, tensor: str, axes: tuple[int, ...]) -> str:
    """Opset 18 made the axes an input."""
    if opset >= 18:
        return writer.op(op_type, tensor, writer.axes(*axes), name=op_type, keepdims=0)
    return writer.op(op_type, tensor, name=op_type, keepdims=0, axes=list(axes))
