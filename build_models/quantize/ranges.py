"""Activation ranges: the least and greatest value of every float tensor over the calibration pictures.

The graph is tapped with ReduceMin, ReduceMax and ReduceSum, so a picture costs three numbers per tensor and nothing is
kept. The sum is there for what is no number: least and greatest pass over most of those.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from build_models.errors import BuildError
from build_models.quantize.taps import open_tapped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from numpy.typing import NDArray

Ranges = dict[str, tuple[float, float]]

# The share that a new picture has in a moving average; 0.01 is PyTorch's averaging_constant, see
# https://pytorch.org/docs/stable/generated/torch.ao.quantization.observer.MovingAverageMinMaxObserver.html
MOMENTUM = 0.01
_TAPS = ("ReduceMin", "ReduceMax", "ReduceSum")


@dataclass(frozen=True)
class Extremes:
    """Least and greatest values of tensors over pictures, each array in the order of ``names``.

    Attributes:
        names: of the tensors, sorted.
        low: over all pictures.
        high: over all pictures.
        moving_low: exponential moving average of each picture's least value, begun with the first picture's.
        moving_high: the same of the greatest.
        pictures: how many there were.
    """

    names: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    moving_low: NDArray[np.float64]
    moving_high: NDArray[np.float64]
    pictures: int


def collect_extremes(
    model: onnx.ModelProto,
    tensors: Collection[str],
    input_images: Iterable[NDArray[np.uint8]],
    after_each: Callable[[], None] = lambda: None,
) -> Extremes:
    """Run the canonical float graph on pictures.

    Args:
        model: canonical graph, input ``image`` uint8 ``[1, H, W, 3]``.
        tensors: names of float tensors in it.
        input_images: uint8 ``[H, W, 3]``; consumed one by one.
        after_each: called after every picture.

    Raises:
        BuildError: a tensor holds values that are not finite.
        ValueError: there was no picture.
    """
    names = sorted(tensors)
    outputs = [f"range/{op_type}/{index}" for index in range(len(names)) for op_type in _TAPS]
    taps = [
        helper.make_node(op_type, [name], [output], keepdims=0)
        for (name, op_type), output in zip(itertools.product(names, _TAPS), outputs, strict=True)
    ]
    session = open_tapped(model, taps, [onnx.ValueInfoProto(name=name) for name in outputs])
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    moving_low, moving_high = low, high
    count = 0
    for image in input_images:
        values = np.array(session.run(outputs, {"image": image[None]}), np.float64).reshape(len(names), len(_TAPS))
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        if broken:
            raise BuildError(
                f"tensor {names[broken[0]]} (and {len(broken) - 1} more) has values that are not finite on a "
                "calibration picture; look for a division by zero, a logarithm or an overflow there"
            )
        least, greatest = values[:, 0], values[:, 1]
        low, high = np.minimum(low, least), np.maximum(high, greatest)
        moving_low = moving_low + MOMENTUM * (least - moving_low) if count else least
        moving_high = moving_high + MOMENTUM * (greatest - moving_high) if count else greatest
        count += 1
        after_each()
    if not count:
        raise ValueError("expected at least one picture")
    return Extremes(tuple(names), low, high, moving_low, moving_high, count)


def collect_ranges(
    model: onnx.ModelProto, tensors: Collection[str], input_images: Iterable[NDArray[np.uint8]]
) -> Ranges:
    """(least, greatest) of each tensor; arguments and errors are those of `collect_extremes`."""
    found = collect_extremes(model, tensors, input_images)
    return {
        name: (low, high) for name, low, high in zip(found.names, found.low.tolist(), found.high.tolist(), strict=True)
    }
