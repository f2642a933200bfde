"""Activation ranges: the least and greatest value of every float tensor over the calibration pictures.

The graph is tapped with ReduceMin, ReduceMax and ReduceSum, so a picture costs three numbers per tensor and nothing is
kept. The sum is there for what is no number: least and greatest pass over most of those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from build_models.errors import BuildError
from build_models.graph.model_io import open_session

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

Ranges = dict[str, tuple[float, float]]
_TAPS = ("ReduceMin", "ReduceMax", "ReduceSum")


def collect_ranges(
    model: onnx.ModelProto, tensors: Collection[str], input_images: Iterable[NDArray[np.uint8]]
) -> Ranges:
    """Run the canonical float graph on pictures and return (least, greatest) of each tensor.

    Args:
        model: canonical graph, input ``image`` uint8 ``[1, H, W, 3]``.
        tensors: names of float tensors in it.
        input_images: uint8 ``[H, W, 3]``; consumed one by one.

    Raises:
        BuildError: a tensor holds values that are not finite.
        ValueError: there was no picture.
    """
    names = sorted(tensors)
    session = open_session(_tapped(model, names), optimise=True)
    outputs = [output.name for output in session.get_outputs()]
    least = np.full(len(names), np.inf)
    greatest = np.full(len(names), -np.inf)
    count = 0
    for image in input_images:
        values = np.array(session.run(outputs, {"image": image[None]}), np.float64).reshape(len(names), len(_TAPS))
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        if broken:
            raise BuildError(
                f"tensor {names[broken[0]]} (and {len(broken) - 1} more) has values that are not finite on a "
                "calibration picture; look for a division by zero, a logarithm or an overflow there"
            )
        np.minimum(least, values[:, 0], out=least)
        np.maximum(greatest, values[:, 1], out=greatest)
        count += 1
    if not count:
        raise ValueError("expected at least one picture")
    return {name: (float(low), float(high)) for name, low, high in zip(names, least, greatest, strict=True)}


def _tapped(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for index, name in enumerate(names):
        for op_type in _TAPS:
            output = f"range/{op_type}/{index}"
            tapped.graph.node.append(helper.make_node(op_type, [name], [output], keepdims=0))
            tapped.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    return tapped
