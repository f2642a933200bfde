"""Sums and products behind a layer go into it; where that would be another function, they stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import NodeProto, numpy_helper

from build_models.graph.passes.fold_behind import fold_bias, fold_scale
from tests.support.onnx_graphs import graph_model, node, numbers, ops, rewritten

pytestmark = pytest.mark.build

CONV = node("Conv", ["x", "w"], ["c"], pads=[1] * 4)
W = numbers(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        (node("Add", ["c", "k"], ["y"]), (4, 1, 1)),
        (node("Add", ["k", "c"], ["y"]), (1, 4, 1, 1)),
        (node("Sub", ["c", "k"], ["y"]), ()),
        (node("Sub", ["k", "c"], ["y"]), (1,)),
    ],
    ids=["one a channel", "constant first", "scalar", "subtracted from"],
)
def test_a_sum_behind_a_convolution_becomes_its_bias(step: NodeProto, shape: tuple[int, ...]) -> None:
    result, count = rewritten(fold_bias, graph_model([CONV, step], w=W, k=numbers(*shape)))
    assert (ops(result), count) == (["Conv"], 1)
    assert len(result.graph.node[0].input) == 3


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        (node("Mul", ["c", "k"], ["y"]), (4, 1, 1)),
        (node("Mul", ["k", "c"], ["y"]), (1, 1, 1, 1)),
        (node("Div", ["c", "k"], ["y"]), (4, 1, 1)),
        (node("Neg", ["c"], ["y"]), ()),
    ],
    ids=["one a channel", "a number", "a quotient", "the sign"],
)
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_behind_a_convolution_goes_into_its_weights(
    step: NodeProto, shape: tuple[int, ...], biased: bool
) -> None:
    conv = node("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["c"])
    result, count = rewritten(fold_scale, graph_model([conv, step], w=W, b=numbers(4), k=numbers(*shape)))
    assert (ops(result), count) == (["Conv"], 1)


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_a_transposed_convolution_scale_their_own_outputs(groups: int) -> None:
    nodes = [
        node("ConvTranspose", ["x", "w", "b"], ["c"], group=groups, strides=[2, 2]),
        node("Mul", ["c", "k"], ["m"]),
        node("Add", ["m", "k"], ["y"]),
    ]
    model = graph_model(
        nodes, inputs={"x": (1, 4, 3, 3)}, w=numbers(4, 6 // groups, 2, 2), b=numbers(6), k=numbers(6, 1, 1)
    )
    scaled, _ = rewritten(fold_scale, model)
    assert ops(scaled) == ["ConvTranspose", "Add"]
    result, _ = rewritten(fold_bias, scaled)
    assert ops(result) == ["ConvTranspose"]


def test_a_grouped_convolution_is_no_different() -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], group=3), node("Mul", ["c", "k"], ["y"])]
    result, _ = rewritten(fold_scale, graph_model(nodes, w=numbers(6, 1, 3, 3), k=numbers(6, 1, 1)))
    assert ops(result) == ["Conv"]


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}], ids=str)
@pytest.mark.parametrize("bias", [(), (5,), (1, 5)], ids=str)
def test_a_gemm_takes_in_both(attributes: dict[str, Any], bias: tuple[int, ...]) -> None:
    nodes = [
        node("Gemm", ["x", "w", "b"], ["c"], **attributes),
        node("Mul", ["c", "k"], ["m"]),
        node("Add", ["m", "l"], ["y"]),
    ]
    shape = (5, 3) if attributes.get("transB") else (3, 5)
    model = graph_model(nodes, inputs={"x": (2, 3)}, w=numbers(*shape), b=numbers(*bias), k=numbers(5), l=numbers(1, 5))
    result, _ = rewritten(lambda each: fold_bias(fold_scale(each)[0]), model)
    assert ops(result) == ["Gemm"]


def test_a_matrix_product_takes_a_scale_and_no_bias() -> None:
    nodes = [node("MatMul", ["x", "w"], ["c"]), node("Mul", ["c", "k"], ["m"]), node("Add", ["m", "k"], ["y"])]
    model = graph_model(nodes, inputs={"x": (2, 4, 3)}, w=numbers(3, 5), k=numbers(5))
    scaled, _ = rewritten(fold_scale, model)
    assert ops(scaled) == ["MatMul", "Add"]
    result, count = rewritten(fold_bias, scaled)
    assert (ops(result), count) == (["MatMul", "Add"], 0)


def test_a_weight_that_two_convolutions_share_changes_for_one_only() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Conv", ["z", "w"], ["other"]),
        node("Mul", ["c", "k"], ["y"]),
    ]
    model = graph_model(
        nodes, inputs={"x": (1, 3, 6, 5), "z": (1, 3, 6, 5)}, outputs={"y": 1, "other": 1}, w=W, k=numbers(4, 1, 1)
    )
    result, count = rewritten(fold_scale, model)
    assert (ops(result), count) == (["Conv", "Conv"], 1)
    assert result.graph.node[1].input[1] == "w"


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([CONV, node("Mul", ["c", "k"], ["y"]), node("Relu", ["c"], ["z"])], ["y", "z"]),
        ([CONV, node("Mul", ["c", "k"], ["y"])], ["y", "c"]),
        ([CONV, node("Mul", ["c", "map"], ["y"])], ["y"]),
        ([CONV, node("Mul", ["c", "wider"], ["y"])], ["y"]),
        ([CONV, node("Mul", ["c", "row"], ["y"])], ["y"]),
        ([CONV, node("Div", ["k", "c"], ["y"])], ["y"]),
        ([CONV, node("Mul", ["c", "c"], ["y"])], ["y"]),
        ([CONV, node("Relu", ["c"], ["r"]), node("Mul", ["r", "k"], ["y"])], ["y"]),
        ([node("Conv", ["x", "computed"], ["c"]), node("Mul", ["c", "k"], ["y"])], ["y"]),
    ],
    ids=[
        "another reader",
        "the convolution is an output",
        "a map, not one a channel",
        "it broadcasts to a larger batch",
        "one a column",
        "the reciprocal",
        "the square",
        "something between",
        "weights that are fed",
    ],
)
def test_what_is_another_function_stays(nodes: list[NodeProto], outputs: list[str]) -> None:
    model = graph_model(
        nodes,
        inputs={"x": (1, 3, 6, 5), "computed": (4, 3, 3, 3)},
        outputs=dict.fromkeys(outputs, 1),
        w=W,
        k=numbers(4, 1, 1),
        map=numbers(1, 4, 6, 5),
        wider=numbers(2, 4, 1, 1),
        row=numbers(5),
    )
    before = model.SerializeToString(deterministic=True)
    result, count = rewritten(fold_scale, model)
    assert count == 0
    assert result.SerializeToString(deterministic=True) == before


def test_an_initialiser_that_may_be_fed_is_no_constant() -> None:
    model = graph_model([CONV, node("Mul", ["c", "k"], ["y"])], w=W, k=numbers(4, 1, 1))
    model.graph.input.add().CopyFrom(graph_model([], inputs={"k": (4, 1, 1)}).graph.input[0])
    assert rewritten(fold_scale, model)[1] == 0


def test_a_product_that_leaves_float32_stays() -> None:
    huge = np.full((4, 1, 1), 1e38, np.float32)
    model = graph_model([CONV, node("Mul", ["c", "k"], ["y"])], w=W * np.float32(10), k=huge)
    copy = type(model)()
    copy.CopyFrom(model)
    assert fold_scale(copy)[1] == 0
    assert np.isfinite(numpy_helper.to_array(copy.graph.initializer[0])).all()
