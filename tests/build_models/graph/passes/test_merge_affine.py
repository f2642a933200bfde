"""Sums and products with constants in a row: one of each at most, and only where that is fewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")


from build_models.graph.passes.merge_affine import merge_affine
from tests.support.onnx_graphs import graph_model, node, numbers, ops, rewritten

if TYPE_CHECKING:
    from onnx import NodeProto

pytestmark = pytest.mark.build

CONSTANTS: dict[str, Any] = {
    "a": numbers(3, 1, 1),
    "b": numbers(1, seed=1),
    "c": numbers(3, 1, 1, seed=2),
    "d": numbers(seed=3),
    "reciprocal": np.float32(1) / numbers(3, 1, 1),
    "minus_b": -numbers(1, seed=1),
    "row": numbers(5),
    "wider": numbers(2, 3, 1, 1),
}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("Mul", "x", "a"), ("Mul", "t", "b")], ["Mul"]),
        ([("Add", "x", "a"), ("Sub", "t", "b")], ["Add"]),
        ([("Mul", "x", "a"), ("Add", "t", "b"), ("Mul", "t", "c"), ("Sub", "d", "t")], ["Mul", "Add"]),
        ([("Sub", "x", "a"), ("Div", "t", "b"), ("Add", "t", "c")], ["Mul", "Add"]),
        ([("Neg", "x"), ("Neg", "t"), ("Mul", "t", "a")], ["Mul"]),
        ([("Mul", "x", "d"), ("Div", "t", "d")], ["Identity"]),
        ([("Add", "x", "b"), ("Add", "t", "minus_b")], ["Identity"]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_a_chain_becomes_one_product_and_one_sum(steps: list[tuple[str, ...]], expected: list[str]) -> None:
    nodes, tensor = [], "x"
    for index, (op_type, *inputs) in enumerate(steps):
        output = "y" if index == len(steps) - 1 else f"t{index}"
        nodes.append(node(op_type, [tensor if name in ("t", "x") else name for name in inputs], [output]))
        tensor = output
    result, count = rewritten(merge_affine, graph_model(nodes, **CONSTANTS))
    assert (ops(result), count) == (expected, 1)


def test_a_mean_and_a_scale_stay_as_they_are() -> None:
    """``x * s + o`` would be as many nodes and lose digits near the mean."""
    nodes = [node("Sub", ["x", "a"], ["t"]), node("Mul", ["t", "c"], ["y"])]
    assert rewritten(merge_affine, graph_model(nodes, **CONSTANTS))[1] == 0


def test_an_activation_ends_a_chain() -> None:
    nodes = [
        node("Mul", ["x", "a"], ["t"]),
        node("Mul", ["t", "b"], ["u"]),
        node("Relu", ["u"], ["r"]),
        node("Add", ["r", "c"], ["s"]),
        node("Sub", ["s", "d"], ["y"]),
    ]
    result, count = rewritten(merge_affine, graph_model(nodes, **CONSTANTS))
    assert (ops(result), count) == (["Mul", "Relu", "Add"], 2)


def test_a_value_between_that_another_reads_ends_a_chain() -> None:
    nodes = [
        node("Mul", ["x", "a"], ["t"]),
        node("Mul", ["t", "b"], ["u"]),
        node("Mul", ["u", "c"], ["v"]),
        node("Mul", ["v", "d"], ["y"]),
        node("Relu", ["u"], ["z"]),
    ]
    result, count = rewritten(merge_affine, graph_model(nodes, outputs={"y": 1, "z": 1}, **CONSTANTS))
    assert (ops(result), count) == (["Mul", "Mul", "Relu"], 2)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Mul", ["x", "a"], ["t"]), node("Mul", ["t", "row"], ["y"])],
        [node("Mul", ["x", "a"], ["t"]), node("Mul", ["t", "wider"], ["y"])],
        [node("Mul", ["x", "a"], ["t"]), node("Div", ["d", "t"], ["y"])],
        [node("Mul", ["x", "a"], ["t"]), node("Mul", ["t", "t"], ["y"])],
    ],
    ids=["larger than each together", "it broadcasts", "a reciprocal", "a square"],
)
def test_what_is_no_such_chain_stays(nodes: list[NodeProto]) -> None:
    assert rewritten(merge_affine, graph_model(nodes, **CONSTANTS))[1] == 0


def test_constants_that_vanish_together_stay_apart() -> None:
    """1e-30 twice is zero in float32, but for large inputs the product of the steps is not."""
    tiny = np.full((), 1e-30, np.float32)
    nodes = [node("Mul", ["x", "tiny"], ["t"]), node("Mul", ["t", "tiny"], ["y"])]
    assert merge_affine(graph_model(nodes, tiny=tiny))[1] == 0
