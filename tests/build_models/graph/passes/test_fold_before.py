"""A scale in front of a layer always goes into it, an offset only where nothing is padded."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.passes.fold_before import fold_before
from tests.support.onnx_graphs import graph_model, node, numbers, ops, rewritten

pytestmark = pytest.mark.build


@pytest.mark.parametrize("op_type", ["Mul", "Div"])
@pytest.mark.parametrize(("groups", "shape"), [(1, (3, 1, 1)), (3, (1, 3, 1, 1)), (1, ())])
def test_a_scale_goes_into_a_padded_convolution(op_type: str, groups: int, shape: tuple[int, ...]) -> None:
    nodes = [node(op_type, ["x", "k"], ["m"]), node("Conv", ["m", "w"], ["y"], pads=[1] * 4, group=groups)]
    result, count = rewritten(fold_before, graph_model(nodes, w=numbers(6, 3 // groups, 3, 3), k=numbers(*shape)))
    assert (ops(result), count) == (["Conv"], 1)


@pytest.mark.parametrize(
    ("attributes", "side", "folds"),
    [
        ({}, 3, True),
        ({"auto_pad": "VALID"}, 3, True),
        ({"auto_pad": "SAME_UPPER"}, 1, True),
        ({"pads": [0, 0, 0, 1]}, 3, False),
        ({"auto_pad": "SAME_LOWER"}, 3, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("op_type", ["Add", "Sub"])
def test_an_offset_goes_in_unless_the_convolution_pads(
    attributes: dict[str, Any], side: int, folds: bool, op_type: str
) -> None:
    nodes = [node(op_type, ["x", "k"], ["m"]), node("Conv", ["m", "w", "b"], ["y"], **attributes)]
    model = graph_model(nodes, w=numbers(4, 3, side, side), b=numbers(4), k=numbers(3, 1, 1))
    result, count = rewritten(fold_before, model)
    assert (ops(result), count) == (["Conv"], 1) if folds else ([op_type, "Conv"], 0)


def test_a_constant_minus_the_input_is_both() -> None:
    nodes = [node("Sub", ["k", "x"], ["m"]), node("Conv", ["m", "w"], ["y"], group=3)]
    result, _ = rewritten(fold_before, graph_model(nodes, w=numbers(6, 1, 3, 3), k=numbers(3, 1, 1)))
    assert ops(result) == ["Conv"]


def test_a_transposed_convolution_takes_a_scale_and_no_offset() -> None:
    convolution = node("ConvTranspose", ["m", "w"], ["y"], group=2, strides=[2, 2])
    constants: dict[str, Any] = {"w": numbers(4, 3, 3, 3), "k": numbers(4, 1, 1)}
    for op_type, expected in (("Mul", ["ConvTranspose"]), ("Add", ["Add", "ConvTranspose"])):
        model = graph_model([node(op_type, ["x", "k"], ["m"]), convolution], inputs={"x": (1, 4, 3, 3)}, **constants)
        assert ops(rewritten(fold_before, model)[0]) == expected


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
def test_a_gemm_takes_in_any(op_type: str, transposed: int) -> None:
    nodes = [
        node(op_type, ["x", "k"], ["m"]),
        node("Gemm", ["m", "w", "b"], ["y"], transB=transposed, alpha=0.5, beta=3.0),
    ]
    shape = (5, 3) if transposed else (3, 5)
    model = graph_model(nodes, inputs={"x": (2, 3)}, w=numbers(*shape), b=numbers(5), k=numbers(3))
    assert ops(rewritten(fold_before, model)[0]) == ["Gemm"]


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [((1, 1, 1, 5), (1, 3, 6, 5)), ((3, 1, 1), (1, 1, 6, 5)), ((2, 1, 1, 1), (1, 3, 6, 5))],
    ids=["one a column", "one channel broadcast to three", "one picture broadcast to two"],
)
def test_what_varies_or_widens_stays(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> None:
    nodes = [node("Mul", ["x", "k"], ["m"]), node("Conv", ["m", "w"], ["y"])]
    model = graph_model(nodes, inputs={"x": input_shape}, w=numbers(4, 3, 3, 3), k=numbers(*shape))
    assert rewritten(fold_before, model)[1] == 0


def test_what_another_reads_too_stays() -> None:
    nodes = [node("Mul", ["x", "k"], ["m"]), node("Conv", ["m", "w"], ["y"]), node("Relu", ["m"], ["z"])]
    model = graph_model(nodes, outputs={"y": 1, "z": 1}, w=numbers(4, 3, 3, 3), k=numbers(3, 1, 1))
    assert rewritten(fold_before, model)[1] == 0
