"""Float16 inside for CUDA and TensorRT: the camera's bytes in, float32 out, and what float16 cannot hold stays float32.

Float16 has 11 bits and ends at 65504, so the decoding stays float32 (at 640 pixels a coordinate would be off by a
quarter of a pixel), as does what adds many numbers or takes powers, what the calibration pictures bring near the end
of the range, and what has constants that float16 cannot hold. Each such node is reported with its reason. A cast
stands only where one kind of node reads the other's result: neighbours in float32 pass float32 on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import every_node, remove_unused_initialisers
from build_models.graph.writer import GraphWriter
from build_models.quantize.static import body_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from build_models.quantize.ranges import Ranges

_GREATEST = float(np.finfo(np.float16).max)
_MARGIN = 4.0  # other pictures may bring larger values than those of the calibration
_SENSITIVE = {
    **dict.fromkeys(
        ("Exp", "Pow", "Reciprocal", "Log", "Sqrt", "Div"), "a small error of its input becomes a large one"
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "ReduceSumExp", "ReduceLogSumExp"), "it sums exponentials"),
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "CumSum"), "it sums many numbers"),
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "GroupNormalization"), "it sums squares"),
    **dict.fromkeys(("TopK", "NonMaxSuppression", "Range", "Upsample"), "providers have it in float32 only"),
}
_ALWAYS_FLOAT = {"Resize": (1, 2)}  # region and scales are float32 by definition
_LOSSY = 0.01  # error of a channel's weights, as a share of its largest
_DEAD = 1e-4  # a channel that is this small beside the largest does nothing


def convert_float16(
    model: onnx.ModelProto, raw_outputs: Collection[str], ranges: Ranges
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Convert a canonical float graph.

    Args:
        model: canonical graph, portable ops only; not changed.
        raw_outputs: the tensors behind which the graph stays float32.
        ranges: of every tensor in `quantisable_tensors`.

    Returns:
        The graph with the same input and outputs, and a report: how many nodes compute in float16, and which others
        stay float32 and why.

    Raises:
        BuildError: a range is missing, or nothing could be converted.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    types = _types(result)
    kept = dict(_kept(result, raw_outputs, ranges, types))
    # Only what computes with floats counts, and the first Cast, which then makes float16 of the bytes.
    halves = {
        node.name
        for node in result.graph.node
        if node.name not in kept and any(types.get(name) == TensorProto.FLOAT for name in node.output)
    }
    if not halves:
        raise BuildError(f"expected a node that float16 suits, found none ({_said(kept)})")
    _rewrite(result, halves, types)
    remove_unused_initialisers(result)
    by_name = {node.name: node.op_type for node in model.graph.node}
    listed = [{"node": name, "op_type": by_name[name], "reason": kept[name]} for name in by_name if name in kept]
    return result, {"float16_nodes": len(halves), "kept_float": listed}


def _kept(
    model: onnx.ModelProto, raw_outputs: Collection[str], ranges: Ranges, types: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Names of the nodes that compute with floats and must stay float32, with the reason."""
    body = {node.name for node in body_nodes(model, raw_outputs)}
    inner = {name for node in model.graph.node for each in every_node(_graph_of(node)) for name in each.input}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        floats = [name for name in [*node.input, *node.output] if types.get(name) == TensorProto.FLOAT]
        if not floats:
            continue
        values = [name for name in floats if name not in constants]
        missing = [name for name in values if node.name in body and name not in ranges]
        if missing:
            raise BuildError(f"expected a range of the tensor {missing[0]}, found none; collect_ranges gives it")
        if node.name not in body:
            yield node.name, "decoding: a coordinate needs more than the 11 bits of float16"
        elif node.op_type in _SENSITIVE:
            yield node.name, _SENSITIVE[node.op_type]
        elif inner.intersection(node.output) or _graph_of(node).node:
            yield node.name, "a graph inside the graph reads or holds it"
        else:
            greatest = max((max(map(abs, ranges[name])) for name in values), default=0.0)
            if greatest * _MARGIN > _GREATEST:
                yield node.name, f"its values reach {greatest:.4g}, float16 ends at {_GREATEST:.0f}"
                continue
            always = _ALWAYS_FLOAT.get(node.op_type, ())
            read = [name for index, name in enumerate(node.input) if index not in always and name in floats]
            reason = next((why for name in read if (why := _why_not(constants.get(name)))), None)
            if reason is not None:
                yield node.name, reason


def _why_not(constant: NDArray[Any] | None) -> str | None:
    """The reason why float16 cannot hold a constant; channels are rows of the first axis."""
    if constant is None or not constant.size:
        return None
    greatest = float(np.abs(constant[np.isfinite(constant)]).max(initial=0.0))
    if greatest > _GREATEST:
        return f"a constant reaches {greatest:.4g}, float16 ends at {_GREATEST:.0f}"
    rows = constant.reshape(len(constant), -1) if constant.ndim > 1 else constant.reshape(1, -1)
    rows = np.where(np.isfinite(rows), rows, 0).astype(np.float64)
    size = np.abs(rows).max(axis=1)
    error = np.abs(rows - rows.astype(np.float16)).max(axis=1)
    lossy = (error > _LOSSY * size) & (size > _DEAD * greatest)
    if lossy.any():
        return f"constants down to {size[lossy].min():.2g} vanish in float16"
    return None


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output, *graph.input]}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _graph_of(node: onnx.NodeProto) -> onnx.GraphProto:
    """All nodes inside a node, in one graph."""
    whole = onnx.GraphProto()
    for entry in node.attribute:
        for graph in [entry.g, *entry.graphs]:
            whole.node.extend(graph.node)
    return whole


def _rewrite(model: onnx.ModelProto, halves: Collection[str], types: Mapping[str, int]) -> None:
    """Give each node its float type, with a Cast per tensor and type where a reader wants the other."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made_half = {name for node in model.graph.node if node.name in halves for name in node.output}
    writer = GraphWriter(model, "float16")
    other: dict[str, str] = {}  # a float tensor or constant to its copy in the other type
    ordered: list[onnx.NodeProto] = []
    for node in model.graph.node:
        half = node.name in halves
        for index, name in enumerate(node.input):
            if types.get(name) != TensorProto.FLOAT:
                continue
            wants_half = half and index not in _ALWAYS_FLOAT.get(node.op_type, ())
            if wants_half == (name in made_half):
                continue
            if name not in other and name in constants:
                other[name] = writer.constant(_to_half(constants[name]), np.float16, name)
            elif name not in other:
                kind = TensorProto.FLOAT16 if wants_half else TensorProto.FLOAT
                other[name] = writer.op("Cast", name, name=f"cast/{name}", to=kind)
                ordered.append(writer.nodes.pop())
            node.input[index] = other[name]
        if half and node.op_type == "Cast":
            node.attribute[0].i = TensorProto.FLOAT16
        ordered.append(node)
    for value in model.graph.output:
        if value.name in made_half:
            ordered.append(_float_output(writer, ordered, value.name))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]  # their types changed


def _float_output(writer: GraphWriter, nodes: list[onnx.NodeProto], name: str) -> onnx.NodeProto:
    """An output keeps its name and type: the float16 tensor gets another name, and a Cast makes the output."""
    half = writer.op("Cast", name, name=f"output/{name}", to=TensorProto.FLOAT)
    cast = writer.nodes.pop()
    for node in nodes:
        for names in (node.input, node.output):
            for index, each in enumerate(names):
                if each == name:
                    names[index] = half
    cast.input[0], cast.output[0] = half, name
    return cast


def _to_half(constant: onnx.TensorProto) -> NDArray[np.float16]:
    """Infinite bounds stay infinite; a finite bound of float32's size, as of a Clip that has none, becomes the end."""
    values = numpy_helper.to_array(constant)
    bounded = np.clip(values, -_GREATEST, _GREATEST)
    return np.where(np.isfinite(values), bounded, values).astype(np.float16)


def _said(kept: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in list(kept.items())[:3])
