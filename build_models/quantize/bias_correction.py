"""Bias correction: what int8 adds to a layer's output on average is taken from the layer's bias.

Rounding weights and clipping activations shifts the mean of an output channel, depthwise layers most, and later layers
see the sum of all shifts. The shift is measured, as in Nagel et al. 2019, section 4.2, "empirical bias correction"
(https://arxiv.org/abs/1906.04721): the mean over the calibration pictures and the plane, per output channel, in front
of the activation, in the float and in the int8 graph. It is subtracted from the int32 bias, whose steps
(input scale * weight scale) are far finer than the shift.

A correction changes the input of every layer behind it, and most of a shift is inherited: correcting all layers at
once from one measurement makes it several times larger (measured on four networks). So it goes in graph order: the
layers of one depth, which do not feed each other, are measured and corrected together, each time with a graph that
ends there. On average that is half a run of the int8 graph per picture and depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import constant_of, remove_dead_nodes
from build_models.graph.writer import GraphWriter
from build_models.quantize.channels import collect_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from build_models.quantize.channels import Channels

_CORRECTED = ("Conv", "Gemm")
_BIAS = 2  # the input's index
_INT32 = np.iinfo(np.int32)
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class BiasReport:
    """What a correction did; a shift is the root mean square over the output channels of all layers.

    Attributes:
        layers: how many biases were corrected; 0 when the shift would not have become smaller.
        depths: in how many steps.
        shift_before: how far means were off, as a share of the root mean square of their layer's output.
        shift_after: the same with the corrected biases, measured.
    """

    layers: int
    depths: int
    shift_before: float
    shift_after: float


@dataclass(frozen=True)
class _Layer:
    """A layer, its outputs in the float and the int8 graph, and its int32 bias there, whose steps are ``scale``."""

    name: str
    exact: str
    output: str
    rank: int
    bias: str
    scale: NDArray[np.float64]


def correct_biases(
    float_model: onnx.ModelProto,
    int8_model: onnx.ModelProto,
    images: Callable[[], Iterable[NDArray[np.uint8]]],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[onnx.ModelProto, BiasReport]:
    """Correct the biases of the convolutions and Gemms that read int8.

    Args:
        float_model: canonical float graph.
        int8_model: made from it by `quantize_static`; not changed.
        images: gives the same pictures, uint8 ``[H, W, 3]``, each time; called three times and once per depth. Only
            means are kept of a picture. Few pictures do: 16 to 64.
        progress: called after each of these passes with their number so far and in all.

    Returns:
        The corrected int8 graph and a report. A layer without a bias has one now.

    Raises:
        BuildError: no layer's bias can be corrected.
        ValueError: there was no picture.
    """
    result = onnx.ModelProto()
    result.CopyFrom(int8_model)
    layers = _prepare(result, {node.name: node for node in float_model.graph.node if node.op_type in _CORRECTED})
    if not layers:
        raise BuildError("expected a convolution or Gemm that reads int8, found none; quantise the graph first")
    depths = _by_depth(result, layers)
    passes = 0

    def measure(model: onnx.ModelProto, tensors: Mapping[str, int]) -> dict[str, Channels]:
        nonlocal passes
        found = collect_channels(model, tensors, images())
        passes += 1
        if progress is not None:
            progress(passes, 3 + len(depths))
        return found

    exact = measure(float_model, {layer.exact: layer.rank for layer in layers})
    before = _shift(layers, exact, measure(result, {layer.output: layer.rank for layer in layers}))
    for together in depths:
        got = measure(result, {layer.output: layer.rank for layer in together})
        for layer in together:
            _add_to_bias(result, layer, exact[layer.exact].mean - got[layer.output].mean)
    after = _shift(layers, exact, measure(result, {layer.output: layer.rank for layer in layers}))
    if after >= before:
        unchanged = onnx.ModelProto()
        unchanged.CopyFrom(int8_model)
        return unchanged, BiasReport(0, len(depths), before, before)
    return result, BiasReport(len(layers), len(depths), before, after)


def _by_depth(model: onnx.ModelProto, layers: Sequence[_Layer]) -> list[list[_Layer]]:
    """The layers in groups by how many of them lie one behind the other in front of them."""
    by_name = {layer.name: layer for layer in layers}
    depth: dict[str, int] = {}  # of a tensor: the layers in front of it
    groups: list[list[_Layer]] = []
    for node in model.graph.node:
        own = max((depth.get(name, 0) for name in node.input), default=0)
        if node.name in by_name:
            if own == len(groups):
                groups.append([])
            groups[own].append(by_name[node.name])
            own += 1
        depth.update(dict.fromkeys(node.output, own))
    return groups


def _prepare(model: onnx.ModelProto, wanted: Mapping[str, onnx.NodeProto]) -> list[_Layer]:
    """Give every layer that reads int8 an int32 bias of its own; changes ``model``."""
    writer = GraphWriter(model, "corrected")
    dequantised = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    layers = []
    for node in model.graph.node:
        found = _stored_bias(model, node, dequantised) if node.name in wanted else None
        if found is None:
            continue
        stored, scale, rank = found
        name = writer.constant(stored, np.int32, f"{node.name}/bias")
        parameters = [
            writer.constant(scale, np.float32, f"{node.name}/bias_scale"),
            writer.constant(np.zeros(scale.shape), np.int32, f"{node.name}/bias_zero_point"),
        ]
        bias = writer.op("DequantizeLinear", name, *parameters, name=f"{node.name}/bias", axis=0)
        del node.input[_BIAS:]
        node.input.append(bias)
        layers.append(
            _Layer(node.name, wanted[node.name].output[0], node.output[0], rank, name, scale.astype(np.float64))
        )
    nodes = [*writer.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    remove_dead_nodes(model)
    return layers


def _stored_bias(
    model: onnx.ModelProto, node: onnx.NodeProto, dequantised: Mapping[str, onnx.NodeProto]
) -> tuple[NDArray[np.int32], NDArray[np.float32], int] | None:
    """The layer's int32 bias (zeros where it has none), its scale, and the rank of the layer's output.

    None where the layer does not compute in int8 with such a bias.
    """
    sources = [dequantised.get(name) for name in node.input]
    if node.op_type not in _CORRECTED or None in sources or _factor(node, "alpha") != 1 or _factor(node, "beta") != 1:
        return None
    operands = [[constant_of(model, name) for name in source.input[:2]] for source in sources if source is not None]
    (_, input_scale), (weights, weight_scale) = operands[:2]
    if weights is None or input_scale is None or weight_scale is None:
        return None
    if len(operands) > _BIAS:
        stored, scale = operands[_BIAS]
        if stored is None or scale is None or stored.dtype != np.int32:
            return None
    else:
        transposed = node.op_type == "Gemm" and _factor(node, "transB", 0) == 0
        stored = np.zeros(weights.shape[1 if transposed else 0], np.int32)
        scale = (input_scale * weight_scale).astype(np.float32)
    return (stored, scale, weights.ndim) if np.all(scale > 0) else None


def _factor(node: onnx.NodeProto, name: str, default: float = 1) -> float:
    return next((float(helper.get_attribute_value(each)) for each in node.attribute if each.name == name), default)


def _shift(layers: Sequence[_Layer], exact: Mapping[str, Channels], got: Mapping[str, Channels]) -> float:
    """Root mean square over all channels of all layers, each as a share of its layer's size."""
    shares = []
    for layer in layers:
        want = exact[layer.exact]
        shares.append((got[layer.output].mean - want.mean) / max(float(np.sqrt(want.power.mean())), _TINY))
    return float(np.sqrt(np.mean(np.square(np.concatenate(shares)))))


def _add_to_bias(model: onnx.ModelProto, layer: _Layer, change: NDArray[np.float64]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == layer.bias:
            value = np.round(numpy_helper.to_array(tensor) + change / layer.scale)
            stored = np.clip(value, _INT32.min, _INT32.max).astype(np.int32)
            tensor.CopyFrom(numpy_helper.from_array(stored, layer.bias))
