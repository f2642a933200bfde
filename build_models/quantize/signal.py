"""Signal-to-quantisation-noise ratio per layer: where an int8 file loses its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from build_models.graph.model_io import open_session, with_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

LIMIT_DB = 200.0  # also stands for no error at all
_WEIGHTED = {"Conv", "Gemm", "MatMul"}


@dataclass(frozen=True, slots=True)
class LayerSignal:
    """A layer's output: signal power over the power of the int8 error, in decibels; higher is better."""

    node: str
    op_type: str
    sqnr_db: float


def layer_signals(
    float_model: onnx.ModelProto, int8_model: onnx.ModelProto, input_images: Sequence[NDArray[np.uint8]]
) -> list[LayerSignal]:
    """SQNR of every convolution and matrix product whose output the int8 file quantises, in graph order.

    ``10 log10(sum(x^2) / sum((x - q)^2))`` over all pictures, with x of the float and q of the int8 graph; at most
    200 dB, which also stands for no error at all.

    Args:
        float_model: canonical float graph.
        int8_model: made from it by `quantize_static`; a quantised tensor t is read as t_DequantizeLinear_Output.
        input_images: uint8 ``[H, W, 3]``.
    """
    dequantised = {node.output[0] for node in int8_model.graph.node if node.op_type == "DequantizeLinear"}
    pairs = []
    for node, tensor in _layer_outputs(float_model):
        name = f"{tensor}_DequantizeLinear_Output"
        if name in dequantised:
            pairs.append((node, tensor, name))
    if not pairs:
        return []
    float_session = open_session(with_outputs(float_model, [tensor for _, tensor, _ in pairs]))
    int8_session = open_session(with_outputs(int8_model, [name for _, _, name in pairs]))
    power = np.zeros(len(pairs))
    noise = np.zeros(len(pairs))
    for image in input_images:
        exact = float_session.run(None, {"image": image[None]})
        rough = int8_session.run(None, {"image": image[None]})
        for index, (x, q) in enumerate(zip(exact, rough, strict=True)):
            power[index] += float(np.square(x, dtype=np.float64).sum())
            noise[index] += float(np.square(x - q, dtype=np.float64).sum())
    return [
        LayerSignal(node.name, node.op_type, round(float(value), 2))
        for (node, _, _), value in zip(pairs, decibels(power, noise), strict=True)
    ]


def decibels(power: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """``10 log10(power / noise)`` within `LIMIT_DB`: above it no noise at all, below it noise without a signal."""
    tiny = np.finfo(np.float64).tiny
    ratios = 10 * (np.log10(np.maximum(power, tiny)) - np.log10(np.maximum(noise, tiny)))
    return np.asarray(np.clip(np.where(noise > 0, ratios, LIMIT_DB), -LIMIT_DB, LIMIT_DB), np.float64)


def _layer_outputs(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """Each weighted node with its output, or with that of the Relu or Clip that fuses into it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    result = []
    for node in model.graph.node:
        if node.op_type in _WEIGHTED:
            after = readers.get(node.output[0], [])
            fused = len(after) == 1 and after[0].op_type in ("Relu", "Clip")
            result.append((node, after[0].output[0] if fused else node.output[0]))
    return result
