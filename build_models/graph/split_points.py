"""Where to cut a model into N parts of about the same work, with as few bytes as possible crossing each cut."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from onnx import TensorProto, helper

from build_models.errors import RecipeError
from build_models.graph.flow import ancestors, live_nodes, reads
from build_models.graph.model_io import outputs_of
from build_models.graph.tap import find_taps, tap_bytes, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    Shapes = Mapping[str, Sequence[int]]

_SLACK = 0.25  # of a part: how far from its exact share a cut may lie to cross fewer bytes
_WEIGHT_AT = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
_PRODUCTS = {"Gemm", "MatMul", "QLinearMatMul", "MatMulInteger"}


def split_points(
    model: onnx.ModelProto, parts: int, balance: Literal["macs", "bytes"], feeds: Mapping[str, NDArray[Any]]
) -> list[list[str]]:
    """Cuts for `split_model`, which divide the nodes in graph order.

    Args:
        model: any model.
        parts: how many stages, two or more.
        balance: "macs", multiplications with weights, or "bytes" of weights.
        feeds: an input of the size that is meant.

    Raises:
        RecipeError: the model has nothing to balance, or no place for so many cuts.
    """
    taps = find_taps(model, ["*"])
    tensor_bytes = dict(zip([tap.tensor for tap in taps], tap_bytes(model, taps, feeds), strict=True))
    needed = ancestors(model, [info.name for info in outputs_of(model)])
    live = [place for place in live_nodes(model) if place in needed]
    work = multiplications(model, feeds) if balance == "macs" else _weight_bytes(model, live)
    done = list(accumulate(work.get(place, 0) for place in live))
    if not done or not done[-1]:
        raise RecipeError(f"--into {parts}: the model has no {balance} to balance; say where to cut with --at")
    crossing = _crossing(model, live)
    cuts: list[list[str]] = []
    after = -1
    for part in range(1, parts):
        exact, slack = done[-1] * part / parts, done[-1] / parts * _SLACK
        places = [place for place in range(after + 1, len(live) - 1) if crossing[place]]
        if not places:
            raise RecipeError(f"--into {parts}: the model has no place for so many cuts; choose fewer")
        near = [place for place in places if abs(done[place] - exact) <= slack]
        if near:
            after = min((sum(tensor_bytes[name] for name in crossing[place]), place) for place in near)[1]
        else:
            after = min((abs(done[place] - exact), place) for place in places)[1]
        cuts.append(crossing[after])
    return cuts


def multiplications(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[int, int]:
    """Multiplications of each convolution and matrix product, by the node's place; others are not counted."""
    names = [tap.tensor for tap in find_taps(model, ["*"])]
    shapes: dict[str, Sequence[int]] = {**tensor_shapes(model, names, feeds)}
    shapes.update({name: array.shape for name, array in feeds.items()})
    shapes.update({tensor.name: list(tensor.dims) for tensor in model.graph.initializer})
    counts = {}
    for place, node in enumerate(model.graph.node):
        if node.op_type in _WEIGHT_AT:
            each = math.prod(shapes[node.input[_WEIGHT_AT[node.op_type]]][1:])
            over = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
            counts[place] = each * math.prod(shapes[over])
        elif node.op_type in _PRODUCTS:
            turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            rows = shapes[node.input[0]]
            counts[place] = math.prod(shapes[node.output[0]]) * rows[0 if turned else -1]
    return counts


def _weight_bytes(model: onnx.ModelProto, live: Sequence[int]) -> dict[int, int]:
    """Bytes of the constants that each live node reads, directly or through nodes that compute constants only."""
    sizes = {tensor.name: _size(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.HasField("t"):
                sizes[node.output[0]] = _size(attribute.t)
    alive, counted = set(live), set[str]()
    result = {}
    for place in live:
        names = reads(model.graph.node[place])
        constant = [index for index in ancestors(model, names) if index not in alive]
        names = names.union(*(reads(model.graph.node[index]) for index in constant)) - counted
        counted |= names & sizes.keys()
        result[place] = sum(sizes.get(name, 0) for name in names)
    return result


def _size(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _crossing(model: onnx.ModelProto, live: Sequence[int]) -> list[list[str]]:
    """For each live node, the computed tensors that are made up to it and read behind it."""
    last_read: dict[str, int] = {}
    for index, place in enumerate(live):
        last_read.update(dict.fromkeys(reads(model.graph.node[place]), index))
    result: list[list[str]] = []
    crossing: list[str] = []
    for index, place in enumerate(live):
        crossing = [*crossing, *(name for name in model.graph.node[place].output if name)]
        crossing = [name for name in crossing if last_read.get(name, -1) > index]
        result.append(crossing)
    return result
