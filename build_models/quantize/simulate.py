"""What int8 would do to a float graph, switch by switch: one session answers every question of the search.

Each activation and each constant of the graph passes through a rounding that can be switched on and off, and whose
range can be changed, without a new file or session. The arithmetic in between stays float32, which differs from the
integer kernels by the rounding of their results only; a file that is chosen by it is measured itself before it ships.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.graph.model_io import attribute_of, constant_of, open_session
from build_models.quantize.islands import ABSORBED, JOINS, PASSED_THROUGH, WEIGHTED, settle
from build_models.quantize.pixels import pixel_tensors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from build_models.quantize.ranges import Ranges

LEVELS = 255
_MOST, _MOST_REDUCED = 127, 64  # of a weight of 8 and of 7 bits
_INTERPOLATES = "Resize"
_ON_THE_INPUTS_GRID = (_INTERPOLATES, "AveragePool")  # computes, and rounds with the scale of what it reads
_SAME_VALUES = tuple(op for op in PASSED_THROUGH if op != _INTERPOLATES)


@dataclass(frozen=True)
class Sites:
    """Where rounding happens when certain nodes run in int8.

    Attributes:
        activations: tensor name to the nodes that hold its values in int8: its producer and its readers, as far as
            quantised, also those behind nodes that only move its values.
        weights: node name to the name of its constant operand.
        grids: the tensor whose range a rounding has, where it is not its own.
    """

    activations: dict[str, frozenset[str]]
    weights: dict[str, str]
    grids: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.activations) + len(self.weights)


def find_sites(model: onnx.ModelProto, nodes: Collection[str]) -> Sites:
    """The tensors that are rounded when ``nodes`` are given to `quantize_static`.

    Some are none of them: what is in front of a Relu or Clip that an int8 node takes in, whose holders count for the
    Relu's result; what a node only moves, as it is rounded already; and the camera's bytes, moved about or not, as
    int8 holds those without loss.

    Args:
        model: canonical float graph.
        nodes: names of nodes, of `fusible_nodes`.
    """
    exact = pixel_tensors(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    int8 = set(settle(_with_sums(model), nodes, exact))
    chosen = [node for node in model.graph.node if node.name in int8]
    reads = [name for node in model.graph.node for name in node.input] + [value.name for value in model.graph.output]
    held: dict[str, set[str]] = {}
    weights = {}
    for node in chosen:
        data = node.input if node.op_type in (*WEIGHTED, *JOINS, "Sub") else node.input[:1]
        for name in [*data, *node.output]:
            if name and name not in constants and name not in exact:
                held.setdefault(name, set()).add(node.name)
        operands = node.input[1:2] if node.op_type in WEIGHTED else data
        for name in (each for each in operands if each in constants):
            weights[node.name] = name
    made = {name for node in chosen for name in node.output}
    roots: dict[str, str] = {}  # a moved tensor to the one whose values it holds
    grids: dict[str, str] = {}
    for node in chosen:
        source = roots.get(node.input[0], node.input[0])
        if node.op_type in ABSORBED and node.input[0] in held.keys() & made and reads.count(node.input[0]) == 1:
            held[node.output[0]] |= held.pop(node.input[0])
        elif node.op_type in _SAME_VALUES and source in held:
            for name in node.output:
                held[source] |= held.pop(name)
                roots[name] = source
        elif node.op_type in _ON_THE_INPUTS_GRID and source in held:
            grids[node.output[0]] = grids.get(source, source)
    activations = {name: frozenset(holders) for name, holders in held.items()}
    return Sites(activations, weights, {name: grid for name, grid in grids.items() if name in activations})


class Simulator:
    """A float graph with a switch at every site.

    Args:
        model: canonical float graph.
        sites: where rounding can be switched on; activations must be float32.
        outputs: tensors whose values `run` returns.
        reduce_range: weights of 7 bits.
    """

    def __init__(
        self, model: onnx.ModelProto, sites: Sites, outputs: Sequence[str], *, reduce_range: bool = False
    ) -> None:
        self.sites = sites
        most = _MOST_REDUCED if reduce_range else _MOST
        self._session = open_session(_Switches(model, sites, most).build(outputs), optimise=True)

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
        for index, tensor in enumerate(self.sites.activations):
            scale, zero = np.float32(1), np.uint8(0)
            if tensor in active:
                scale, zero = scale_and_zero(*ranges[self.sites.grids.get(tensor, tensor)])
            feeds[f"{_ACTIVATION}/{index}/scale"] = np.array(scale)
            feeds[f"{_ACTIVATION}/{index}/zero"] = np.array(zero)
            feeds[f"{_ACTIVATION}/{index}/on"] = np.array(tensor in active)
        for index, node in enumerate(self.sites.weights):
            feeds[f"{_WEIGHT}/{index}/on"] = np.array(bool(on and weights and node in on.weights))
        results: list[NDArray[np.float32]] = self._session.run(None, feeds)
        return results


def scale_and_zero(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 for a range, which is widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / LEVELS) or np.float32(1)
    return scale, np.uint8(np.clip(round(-low / float(scale)), 0, LEVELS))


def rounded_weight(value: NDArray[np.float32], channel_axis: int | None, most: int = _MOST) -> NDArray[np.float32]:
    """A weight as int8 holds it: symmetric, one scale per output channel (``channel_axis``; None: one for all)."""
    axes = tuple(axis for axis in range(value.ndim) if axis != channel_axis) if channel_axis is not None else None
    peak = np.abs(value).max(axis=axes, keepdims=True)
    scale = (peak / most).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1))  # a peak may be too small to be divided
    result: NDArray[np.float32] = (np.clip(np.rint(value / scale), -most, most) * scale).astype(np.float32)
    return result


def rounded_operand(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """A constant that is added or multiplied as int8 holds it: like an activation of its range."""
    scale, zero = scale_and_zero(float(value.min()), float(value.max()))
    steps = np.clip(np.rint(value / scale) + zero, 0, LEVELS) - np.float32(zero)
    result: NDArray[np.float32] = (steps * scale).astype(np.float32)
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


_ACTIVATION, _WEIGHT = "simulate/activation", "simulate/weight"


class _Switches:
    """The graph with a rounding and a Where at every site."""

    def __init__(self, model: onnx.ModelProto, sites: Sites, most: int) -> None:
        self._sites = sites
        self._most = most
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._makers = {name: node.name for node in model.graph.node for name in node.output}
        self._activations = {tensor: f"{_ACTIVATION}/{index}" for index, tensor in enumerate(sites.activations)}
        self._weights = {node: f"{_WEIGHT}/{index}" for index, node in enumerate(sites.weights)}

    def build(self, outputs: Sequence[str]) -> onnx.ModelProto:
        graph = self._model.graph
        nodes: list[onnx.NodeProto] = []
        for node in list(graph.node):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for index, name in enumerate(copy.input):
                copy.input[index] = self._seen_by(node.name, name)
            if node.name in self._weights:
                nodes.append(self._switch_weight(node, copy))
            nodes.append(copy)
            for output in node.output:
                nodes += self._switch_activation(output)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.output[:]
        graph.output.extend(onnx.ValueInfoProto(name=self._seen_by("", name)) for name in outputs)
        return self._model

    def _seen_by(self, reader: str, tensor: str) -> str:
        """What a node reads: float readers see the rounding of what an int8 node made, not that of a float node."""
        holders = self._sites.activations.get(tensor, frozenset())
        rounded = bool(holders & {reader, self._makers.get(tensor)})
        return f"{self._activations[tensor]}/out" if rounded else tensor

    def _switch_activation(self, tensor: str) -> list[onnx.NodeProto]:
        if tensor not in self._activations:
            return []
        prefix = self._activations[tensor]
        for part, kind in (("scale", TensorProto.FLOAT), ("zero", TensorProto.UINT8), ("on", TensorProto.BOOL)):
            self._model.graph.input.append(helper.make_tensor_value_info(f"{prefix}/{part}", kind, []))
        parameters = [f"{prefix}/scale", f"{prefix}/zero"]
        return [
            helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{prefix}/q"]),
            helper.make_node("DequantizeLinear", [f"{prefix}/q", *parameters], [f"{prefix}/dq"]),
            helper.make_node("Where", [f"{prefix}/on", f"{prefix}/dq", tensor], [f"{prefix}/out"]),
        ]

    def _switch_weight(self, node: onnx.NodeProto, copy: onnx.NodeProto) -> onnx.NodeProto:
        name, prefix = self._sites.weights[node.name], self._weights[node.name]
        value = constant_of(self._model, name)
        assert value is not None, "find_sites chose constants"
        if node.op_type in WEIGHTED:
            rounded = rounded_weight(value, _channel_axis(node, value), self._most)
        else:
            rounded = rounded_operand(value)
        graph = self._model.graph
        graph.initializer.append(numpy_helper.from_array(rounded, f"{prefix}/rounded"))
        graph.input.append(helper.make_tensor_value_info(f"{prefix}/on", TensorProto.BOOL, []))
        copy.input[list(node.input).index(name)] = f"{prefix}/out"
        return helper.make_node("Where", [f"{prefix}/on", f"{prefix}/rounded", name], [f"{prefix}/out"])


def _channel_axis(node: onnx.NodeProto, value: NDArray[np.float32]) -> int | None:
    """As ONNX Runtime's quantiser has it."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute_of(node, "transB", 0)):
        return 0
    return 1 if value.ndim > 1 else None


def _with_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which a subtraction is called a sum, as `quantize_static` makes it one."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        node.op_type = "Add" if node.op_type == "Sub" else node.op_type
    return result
