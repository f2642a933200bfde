"""If and Loop: what they read from outside counts as read, and a decided If becomes its branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import TensorProto, helper, numpy_helper

from build_models.graph.optimise import optimise
from build_models.graph.passes.editing import captured_by
from build_models.graph.passes.fold_behind import fold_scale
from build_models.graph.passes.inline_branches import inline_branches
from build_models.graph.passes.remove_dead import remove_dead
from build_models.graph.passes.remove_identities import remove_identities
from tests.support.onnx_graphs import assert_same, graph_model, node, numbers, ops, rewritten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import GraphProto, ModelProto, NodeProto

pytestmark = pytest.mark.build

W = numbers(3, 3, 1, 1)


def branch(
    nodes: Sequence[NodeProto], output: str, **constants: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> GraphProto:
    return helper.make_graph(
        list(nodes),
        "branch",
        [],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def choosing(
    before: Sequence[NodeProto], then: GraphProto, otherwise: GraphProto, *, decided: bool | None = None
) -> ModelProto:
    """``before``, then an If between two branches; whether the sum of "x" is positive decides, or nobody."""
    condition = [
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["positive"]),
    ]
    name = "positive" if decided is None else "known"
    model = graph_model(
        [*before, *condition, node("If", [name], ["y"], name="if", then_branch=then, else_branch=otherwise)],
        zero=np.zeros((), np.float32),
        known=np.array(bool(decided)),
        w=W,
        k=numbers(3, 1, 1),
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 6, 5]))
    return model


def test_a_tensor_that_only_a_branch_reads_is_read() -> None:
    before = [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "k"], ["m"])]
    reading = branch([node("Neg", ["c"], ["n"]), node("Add", ["n", "m"], ["t"])], "t")
    model = choosing(before, reading, branch([node("Relu", ["m"], ["e"])], "e"))
    assert captured_by(model.graph.node[-1]) == {"c", "m"}
    result, count = rewritten(fold_scale, model)
    assert count == 0
    assert ops(rewritten(remove_dead, result)[0])[:2] == ["Conv", "Mul"]


def test_a_branch_reads_what_a_removed_node_read() -> None:
    before = [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["b"])]
    model = choosing(before, branch([node("Neg", ["b"], ["t"])], "t"), branch([node("Abs", ["b"], ["e"])], "e"))
    result, count = rewritten(remove_identities, model)
    assert count == 1
    assert captured_by(result.graph.node[-1]) == {"a"}


def test_a_tensor_of_the_branch_is_not_the_one_outside() -> None:
    """Both branches have a tensor "t" of their own."""
    before = [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["b"])]
    nodes = [node("Neg", ["b"], ["t"]), node("Abs", ["t"], ["u"])]
    model = choosing(before, branch(nodes, "u"), branch([node("Exp", ["b"], ["t"])], "t"))
    result, report = optimise(model)
    assert_same(model, result)
    assert report.rewrites["remove_identities"] == 1


def test_nested_branches_read_through() -> None:
    inner = node(
        "If",
        ["positive"],
        ["i"],
        then_branch=branch([node("Neg", ["b"], ["t2"])], "t2"),
        else_branch=branch([node("Abs", ["b"], ["e2"])], "e2"),
    )
    before = [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["b"])]
    model = choosing(before, branch([inner], "i"), branch([node("Exp", ["b"], ["e"])], "e"))
    result, _ = rewritten(remove_identities, model)
    assert captured_by(result.graph.node[-1]) == {"a", "positive"}


@pytest.mark.parametrize("decided", [True, False])
def test_a_decided_if_becomes_its_branch(decided: bool) -> None:
    then = branch([node("Mul", ["a", "two"], ["t"]), node("Exp", ["t"], ["u"])], "u", two=np.full(1, 2, np.float32))
    otherwise = branch([node("Neg", ["a"], ["t"])], "t")
    model = choosing([node("Relu", ["x"], ["a"])], then, otherwise, decided=decided)
    result, count = rewritten(inline_branches, model)
    assert count == 1
    assert "If" not in ops(result)
    taken = ["Mul", "Exp"] if decided else ["Neg"]
    assert ops(optimise(result)[0]) == ["Relu", *taken]


def test_an_undecided_if_stays() -> None:
    model = choosing([], branch([node("Neg", ["x"], ["t"])], "t"), branch([node("Abs", ["x"], ["e"])], "e"))
    assert rewritten(inline_branches, model)[1] == 0


def test_two_ifs_may_use_the_same_names_inside() -> None:
    nodes = []
    for index, source in enumerate(["x", "first"]):
        then = branch([node("Relu", [source], ["t"]), node("Neg", ["t"], ["u"])], "u")
        otherwise = branch([node("Abs", [source], ["t"])], "t")
        nodes.append(
            node("If", ["known"], [["first", "y"][index]], name=f"if{index}", then_branch=then, else_branch=otherwise)
        )
    model = graph_model(nodes, known=np.array(True))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 6, 5]))
    result, count = rewritten(inline_branches, model)
    assert count == 2
    assert ops(optimise(result)[0]) == ["Relu", "Neg", "Relu", "Neg"]


def test_a_loop_reads_from_outside() -> None:
    body = helper.make_graph(
        [
            node("Identity", ["going_on"], ["still"]),
            node("Mul", ["state", "b"], ["scaled"]),
            node("Add", ["scaled", "k"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 3, 6, 5]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 3, 6, 5]),
        ],
    )
    nodes = [
        node("Sigmoid", ["x"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("Sigmoid", ["x"], ["again"]),
        node("Loop", ["three", "", "again"], ["y"], body=body),
    ]
    model = graph_model(nodes, three=np.array(3), k=numbers(3, 1, 1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 6, 5]))
    result, _ = optimise(model)
    assert ops(result) == ["Sigmoid", "Loop"]
    assert captured_by(result.graph.node[1]) == {"a", "k"}
    assert_same(model, result)
