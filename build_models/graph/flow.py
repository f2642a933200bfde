"""What flows where in a graph: who reads what, which nodes hang on the inputs, what a tensor is made of."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from build_models.graph.model_io import inputs_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    import onnx

_SHOWN = 5


def reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, those of the graph around it that only its inner graphs name included."""
    names = {name for name in node.input if name}
    for inner in _inner_graphs(node):
        own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
        for each in inner.node:
            names |= reads(each) - own
            own.update(each.output)
        names |= {value.name for value in inner.output} - own  # a branch may hand on what lies outside
    return names


def makers(model: onnx.ModelProto) -> dict[str, int]:
    """Each computed tensor with the place of its node in the graph."""
    return {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}


def live_nodes(model: onnx.ModelProto) -> list[int]:
    """Places of the nodes that depend on a graph input, in graph order; the others compute constants."""
    reached = {info.name for info in inputs_of(model)}
    places = []
    for index, node in enumerate(model.graph.node):
        if reached & reads(node):
            reached.update(node.output)
            places.append(index)
    return places


def ancestors(model: onnx.ModelProto, tensors: Iterable[str]) -> set[int]:
    """Places of all nodes that some tensors are made of."""
    made_by = makers(model)
    waiting = [made_by[name] for name in tensors if name in made_by]
    found: set[int] = set()
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += [made_by[name] for name in reads(model.graph.node[index]) if name in made_by]
    return found


def nearest_before(model: onnx.ModelProto, known: Collection[str]) -> dict[str, set[str]]:
    """For each computed tensor the ``known`` ones that it is made of directly, with only unknown ones between."""
    before: dict[str, set[str]] = {}
    for node in model.graph.node:
        found: set[str] = set()
        for name in reads(node):
            found |= {name} if name in known else before.get(name, set())
        before.update(dict.fromkeys(node.output, found))
    return before


def float_names(model: onnx.ModelProto) -> dict[str, str]:
    """The dequantised tensors, each with the name of the float tensor it stands for.

    ``Q`` and ``DQ`` in a row stand for what ``Q`` reads; where the ``Q`` is gone, ORT's way to name them tells.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    names: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            source = made_by.get(node.input[0])
            if source is not None and source.op_type == "QuantizeLinear":
                names[node.output[0]] = names.get(source.input[0], source.input[0])
            else:
                names[node.output[0]] = node.output[0].removesuffix("_DequantizeLinear_Output")
    return names


def close_names(wanted: str, known: Collection[str]) -> str:
    """The names most like a wrong one, for a message: ``did you mean 'a', 'b'?`` or nothing."""
    plain = wanted.strip("*?").lower()
    lower: Mapping[str, str] = {name.lower(): name for name in known}
    inside = [name for small, name in lower.items() if plain and plain in small]
    like = [lower[small] for small in difflib.get_close_matches(plain, lower, n=_SHOWN, cutoff=0.5)]
    found = list(dict.fromkeys([*inside, *like]))[:_SHOWN]
    return f"did you mean {', '.join(map(repr, found))}?" if found else ""


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
