"""What int8 would do to a float graph, switch by switch: one session answers every question of the search.

Each activation and each weight of the graph passes through a rounding that can be switched on and off, and whose
range can be changed, without a new file or session. The arithmetic in between stays float32, which differs from the
integer kernels by the rounding of their results only; a file that is chosen by it is measured itself before it ships.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.graph.model_io import constant_of, open_session
from build_models.quantize.pixels import pixel_tensors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from build_models.quantize.ranges import Ranges

LEVELS = 255
_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": None, "MatMul": None}
_FUSES_ACTIVATION = {"Conv", "Gemm"}
_ACTIVATIONS = {"Relu", "Clip"}


@dataclass(frozen=True)
class Sites:
    """Where rounding happens when certain nodes run in int8.

    Attributes:
        activations: tensor name to the nodes that hold it in int8: its producer and its readers, as far as quantised.
        weights: node name to the name of its constant weight.
    """

    activations: dict[str, frozenset[str]]
    weights: dict[str, str]

    def __len__(self) -> int:
        return len(self.activations) + len(self.weights)

    def within(self, nodes: Collection[str]) -> Sites:
        """What is left when only ``nodes`` run in int8."""
        chosen = frozenset(nodes)
        activations = {tensor: holders & chosen for tensor, holders in self.activations.items() if holders & chosen}
        return Sites(activations, {node: name for node, name in self.weights.items() if node in chosen})


def find_sites(model: onnx.ModelProto, nodes: Collection[str]) -> Sites:
    """The tensors that are rounded when ``nodes`` run in int8.

    Two kinds are none of them: a convolution's output before the Relu or Clip that fuses into it, whose holders count
    for the Relu's; and the camera's bytes, moved about or not, as int8 holds those without loss.

    Args:
        model: canonical float graph.
        nodes: names of nodes.
    """
    exact = pixel_tensors(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    chosen = set(nodes)
    fused = {
        node.output[0]
        for node in model.graph.node
        if node.op_type in _FUSES_ACTIVATION
        and [reader.op_type in _ACTIVATIONS for reader in readers.get(node.output[0], [])] == [True]
    }
    activations: dict[str, set[str]] = {}
    weights = {}
    maker_of = {name: node.name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.name not in chosen:
            continue
        for name in [*node.input, *node.output]:
            if name and name not in constants and name not in fused and name not in exact:
                activations.setdefault(name, set()).add(node.name)
        if node.op_type in _ACTIVATIONS and node.input[0] in fused and maker_of[node.input[0]] in chosen:
            activations[node.output[0]].add(maker_of[node.input[0]])
        if node.op_type in _WEIGHTED and node.input[1] in constants:
            weights[node.name] = node.input[1]
    return Sites({name: frozenset(holders) for name, holders in activations.items()}, weights)


class Simulator:
    """A float graph with a switch at every site.

    Args:
        model: canonical float graph.
        sites: where rounding can be switched on; activations must be float32.
        outputs: tensors whose values `run` returns.
    """

    def __init__(self, model: onnx.ModelProto, sites: Sites, outputs: Sequence[str]) -> None:
        self.sites = sites
        self._names = {tensor: f"simulate/{index}" for index, tensor in enumerate([*sites.activations, *sites.weights])}
        self._session = open_session(_with_switches(model, sites, self._names, outputs), optimise=True)

    def run(
        self, image: NDArray[np.uint8], ranges: Ranges, on: Sites | None = None, *, weights: bool = True
    ) -> list[NDArray[np.float32]]:
        """The outputs for one picture.

        Args:
            image: uint8 ``[H, W, 3]``.
            ranges: of the activations that are rounded; (least, greatest), zero is added where it is missing.
            on: what is rounded; None: nothing.
            weights: round the weights of ``on`` too.
        """
        feeds: dict[str, NDArray[np.generic]] = {"image": image[None]}
        active = on.activations if on else {}
        for tensor in self.sites.activations:
            prefix = self._names[tensor]
            scale, zero = scale_and_zero(*ranges[tensor]) if tensor in active else (np.float32(1), np.uint8(0))
            feeds[f"{prefix}/scale"], feeds[f"{prefix}/zero"] = np.array(scale), np.array(zero)
            feeds[f"{prefix}/on"] = np.array(tensor in active)
        for node in self.sites.weights:
            feeds[f"{self._names[node]}/on"] = np.array(bool(on and weights and node in on.weights))
        results: list[NDArray[np.float32]] = self._session.run(None, feeds)
        return results


def scale_and_zero(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 for a range, which is widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / LEVELS) or np.float32(1)
    return scale, np.uint8(np.clip(round(-low / float(scale)), 0, LEVELS))


def rounded_weight(value: NDArray[np.float32], channel_axis: int | None, most: int = 127) -> NDArray[np.float32]:
    """A weight as int8 holds it: symmetric, one scale per output channel (``channel_axis``; None: one for all)."""
    axes = tuple(axis for axis in range(value.ndim) if axis != channel_axis) if channel_axis is not None else None
    peak = np.abs(value).max(axis=axes, keepdims=True)
    scale = np.where(peak > 0, peak / most, 1).astype(np.float32)
    result: NDArray[np.float32] = (np.clip(np.rint(value / scale), -most, most) * scale).astype(np.float32)
    return result


def noise_shares(
    exact: Iterable[Sequence[NDArray[np.float32]]], rough: Iterable[Sequence[NDArray[np.float32]]]
) -> NDArray[np.float64]:
    """Per output, over all pictures: power of the difference as a share of the power of the exact values."""
    power: NDArray[np.float64] | None = None
    for want, have in zip(exact, rough, strict=True):
        terms = np.array(
            [
                [np.square(x, dtype=np.float64).sum(), np.square(x - y, dtype=np.float64).sum()]
                for x, y in zip(want, have, strict=True)
            ]
        )
        power = terms if power is None else power + terms
    if power is None:
        raise ValueError("expected at least one picture")
    return power[:, 1] / np.maximum(power[:, 0], np.finfo(np.float64).tiny)


def _with_switches(
    model: onnx.ModelProto, sites: Sites, names: Mapping[str, str], outputs: Sequence[str]
) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    replaced: dict[str, str] = {}
    extra: dict[str, list[onnx.NodeProto]] = {}
    for tensor in sites.activations:
        prefix = names[tensor]
        replaced[tensor] = f"{prefix}/out"
        graph.input.extend(
            [
                helper.make_tensor_value_info(f"{prefix}/scale", TensorProto.FLOAT, []),
                helper.make_tensor_value_info(f"{prefix}/zero", TensorProto.UINT8, []),
                helper.make_tensor_value_info(f"{prefix}/on", TensorProto.BOOL, []),
            ]
        )
        parameters = [f"{prefix}/scale", f"{prefix}/zero"]
        extra[tensor] = [
            helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{prefix}/q"]),
            helper.make_node("DequantizeLinear", [f"{prefix}/q", *parameters], [f"{prefix}/dq"]),
            helper.make_node("Where", [f"{prefix}/on", f"{prefix}/dq", tensor], [f"{prefix}/out"]),
        ]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(copy.input):
            copy.input[index] = replaced.get(name, name)
        if node.name in sites.weights:
            weight = sites.weights[node.name]
            prefix = names[node.name]
            value = constant_of(model, weight)
            assert value is not None, "find_sites chose constants"
            axis = 0 if node.op_type == "Conv" else 1 if node.op_type == "ConvTranspose" else None
            graph.initializer.append(numpy_helper.from_array(rounded_weight(value, axis), f"{prefix}/rounded"))
            graph.input.append(helper.make_tensor_value_info(f"{prefix}/on", TensorProto.BOOL, []))
            nodes.append(helper.make_node("Where", [f"{prefix}/on", f"{prefix}/rounded", weight], [f"{prefix}/out"]))
            copy.input[1] = f"{prefix}/out"
        nodes.append(copy)
        for output in node.output:
            nodes.extend(extra.get(output, []))
    first = [node for value in model.graph.input for node in extra.get(value.name, [])]
    del graph.node[:]
    graph.node.extend([*first, *nodes])
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    for index, name in enumerate(outputs):
        if name in replaced:
            # An output shows what its readers get.
            graph.output[index].name = replaced[name]
    return result
