"""What is computed twice from the same is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.passes.common_subexpressions import common_subexpressions
from tests.support.onnx_graphs import graph_model, node, numbers, ops, rewritten

if TYPE_CHECKING:
    from onnx import NodeProto

pytestmark = pytest.mark.build

W = numbers(4, 3, 3, 3)


def test_chains_of_duplicates_go_in_one_pass() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1] * 4),
        node("Relu", ["c"], ["d"]),
        node("Add", ["b", "d"], ["y"]),
    ]
    result, count = rewritten(common_subexpressions, graph_model(nodes, w=W))
    assert (ops(result), count) == (["Conv", "Relu", "Add"], 2)


def test_attributes_count_in_any_order() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4, strides=[2, 2]),
        node("Conv", ["x", "w"], ["b"], pads=[1] * 4, strides=[2, 2]),
        node("Add", ["a", "b"], ["y"]),
    ]
    turned = list(nodes[1].attribute)[::-1]
    del nodes[1].attribute[:]
    nodes[1].attribute.extend(turned)
    assert nodes[0].attribute != nodes[1].attribute
    assert rewritten(common_subexpressions, graph_model(nodes, w=W))[1] == 1


def test_an_output_keeps_its_name() -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Relu", ["x"], ["y"]), node("Neg", ["a"], ["z"])]
    result, count = rewritten(common_subexpressions, graph_model(nodes, outputs={"y": 1, "z": 1}))
    assert (ops(result), count) == (["Relu", "Neg"], 1)


def test_two_outputs_stay_two() -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["z"])]
    assert rewritten(common_subexpressions, graph_model(nodes, outputs={"y": 1, "z": 1}))[1] == 0


def test_several_results_are_merged_one_by_one() -> None:
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=2),
        node("Split", ["x"], ["c", "d"], axis=2),
        node("Concat", ["a", "d", "c"], ["y"], axis=2),
    ]
    result, count = rewritten(common_subexpressions, graph_model(nodes, opset=13))
    assert (count, list(result.graph.node[1].input)) == (1, ["a", "b", "a"])


def test_of_several_results_none_is_merged_when_one_is_an_output() -> None:
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=2),
        node("Split", ["x"], ["y", "d"], axis=2),
        node("Concat", ["a", "d"], ["z"], axis=2),
    ]
    assert rewritten(common_subexpressions, graph_model(nodes, opset=13, outputs={"y": 1, "z": 1}))[1] == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (node("Softmax", ["x"], ["a"], axis=1), node("Softmax", ["x"], ["b"], axis=2)),
        (node("Sub", ["x", "k"], ["a"]), node("Sub", ["k", "x"], ["b"])),
        (node("Relu", ["x"], ["a"]), node("Sigmoid", ["x"], ["b"])),
        (node("Clip", ["x", "", "k0"], ["a"]), node("Clip", ["x", "k0"], ["b"])),
    ],
    ids=["attribute", "order of the inputs", "operator", "which input is left out"],
)
def test_what_differs_stays(first: NodeProto, second: NodeProto) -> None:
    nodes = [first, second, node("Add", ["a", "b"], ["y"])]
    model = graph_model(nodes, k=numbers(3, 1, 1), k0=np.array(0.25, np.float32))
    assert rewritten(common_subexpressions, model)[1] == 0


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_two_draws_are_two(op_type: str) -> None:
    nodes = [
        node("Sigmoid", ["x"], ["p"]),
        node(op_type, ["p"], ["a"]),
        node(op_type, ["p"], ["b"]),
        node("Sub", ["a", "b"], ["y"]),
    ]
    assert common_subexpressions(graph_model(nodes))[1] == 0


def test_operators_of_other_domains_are_not_known_to_be_pure() -> None:
    model = graph_model([node("Relu", ["x"], ["a"]), node("Relu", ["x"], ["b"]), node("Add", ["a", "b"], ["y"])])
    for each in model.graph.node[:2]:
        each.op_type, each.domain = "Gelu", "com.microsoft"
    assert common_subexpressions(model)[1] == 0
