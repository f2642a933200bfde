"""A look inside an int8 file: each layer's signal to noise, and the kernels that run it on this CPU."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import TYPE_CHECKING, Any

from build_models.graph.kernels import kernel_report
from build_models.quantize.signal import layer_signals

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import onnx
    from numpy.typing import NDArray

_PICTURES = 8


def look_inside(
    float_model: onnx.ModelProto,
    int8_model: onnx.ModelProto,
    images: Iterable[NDArray[np.uint8]],
    *,
    runs_on_cpu: bool,
) -> dict[str, Any]:
    """Plain data for the report.

    Args:
        float_model: that the file was made from, equalised where the file is.
        int8_model: the file.
        images: uint8 ``[H, W, 3]``; the first few are run through both.
        runs_on_cpu: whether the CPU's kernels say anything of the file.

    Returns:
        ``pictures``; ``layers``, in graph order; and ``kernels``, of a file for CPUs.
    """
    taken = list(islice(images, _PICTURES))
    signals = layer_signals(float_model, int8_model, taken)
    told: dict[str, Any] = {"pictures": len(taken), "layers": [dataclasses.asdict(each) for each in signals]}
    if runs_on_cpu:
        kernels = kernel_report(int8_model)
        islands = [list(island) for island in kernels.float_islands]
        told["kernels"] = {**dataclasses.asdict(kernels), "float_islands": islands}
    return told
