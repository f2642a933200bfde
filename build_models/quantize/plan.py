"""The plan: which nodes of a canonical float graph run in int8, before any search.

What the CPU provider fuses is quantised (`static.fusible_nodes`). One thing is left out: a Concat behind the last
computation that joins tensors of different ranges, such as boxes of some hundred pixels beside scores of 0 to 1. Its
one scale would round the scores away. The join is found by the ranges that calibration saw, whatever its name is; it
and what follows it stay in float, and each of the joined tensors keeps a scale of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_models.quantize.islands import PASSED_THROUGH
from build_models.quantize.static import body_nodes, fusible_nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import onnx

    from build_models.quantize.ranges import Ranges

# A joined tensor may lose one of its eight bits, not more.
WIDEST = 2.0
_ONLY_MOVES = {"Concat", *PASSED_THROUGH} - {"Relu", "Clip", "MaxPool", "Resize"}


@dataclass(frozen=True)
class Join:
    """A Concat that stays in float, and by how much the range of all its tensors is wider than the narrowest."""

    node: str
    tensors: tuple[str, ...]
    ratio: float


@dataclass(frozen=True)
class Plan:
    """What runs in int8.

    Attributes:
        nodes: names of the nodes, in graph order.
        joins: what was left out because of its ranges.
        heads: the tensors in which the network's answers are complete and not yet joined.
    """

    nodes: tuple[str, ...]
    joins: tuple[Join, ...]
    heads: tuple[str, ...]


def make_plan(model: onnx.ModelProto, raw_outputs: Collection[str], ranges: Ranges) -> Plan:
    """Decide for a canonical float graph.

    Args:
        model: portable ops only, every node named.
        raw_outputs: the tensors behind which the graph stays float.
        ranges: of the float tensors in front of them, as calibration saw them.
    """
    body = body_nodes(model, raw_outputs)
    joins = [join for join in _joins(_tail(body), ranges) if join.ratio > WIDEST]
    left = _behind(body, {join.node for join in joins})
    nodes = tuple(name for name in fusible_nodes(model, raw_outputs) if name not in left)
    return Plan(nodes, tuple(joins), tuple(_heads(body, raw_outputs)))


def _tail(body: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes behind the last computation: they and all that follows only move values."""
    nodes = list(body)
    computed: set[str] = set()  # tensors that something else than a move reads, now or later
    tail = []
    for node in reversed(nodes):
        if node.op_type in _ONLY_MOVES and not computed.intersection(node.output):
            tail.append(node)
        else:
            computed.update(node.input)
    return tail[::-1]


def _joins(tail: Iterable[onnx.NodeProto], ranges: Ranges) -> list[Join]:
    joins = []
    for node in tail:
        # As int8 has them: with zero inside. A tensor of zeros loses nothing.
        bounds = [(min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)) for name in node.input if name in ranges]
        widths = [high - low for low, high in bounds if high > low]
        if node.op_type == "Concat" and len(widths) > 1:
            joined = max(high for _, high in bounds) - min(low for low, _ in bounds)
            joins.append(Join(node.name, tuple(node.input), joined / min(widths)))
    return joins


def _behind(body: Iterable[onnx.NodeProto], starts: Collection[str]) -> set[str]:
    """Names of the starts and of all nodes that depend on them."""
    reached: set[str] = set()
    names = set()
    for node in body:
        if node.name in starts or reached.intersection(node.input):
            reached.update(node.output)
            names.add(node.name)
    return names


def _heads(body: Iterable[onnx.NodeProto], raw_outputs: Collection[str]) -> list[str]:
    """Back from the raw outputs over what only moves values."""
    producers = {name: node for node in body for name in node.output}
    found: list[str] = []
    open_ = sorted(raw_outputs, reverse=True)
    while open_:
        name = open_.pop()
        node = producers.get(name)
        if node is None:  # a constant among what is joined
            continue
        if node.op_type not in _ONLY_MOVES:
            if name not in found:
                found.append(name)
            continue
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        open_.extend(reversed(inputs))
    return found
