"""A product of two matrices and a sum become a Gemm, where the sum widens nothing."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.passes.matmul_to_gemm import matmul_to_gemm
from tests.support.onnx_graphs import graph_model, node, numbers, ops, rewritten

pytestmark = pytest.mark.build


@pytest.mark.parametrize("summand", [(5,), (1, 5), (2, 5), (2, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("order", [["m", "k"], ["k", "m"]], ids=str)
def test_product_and_sum_become_one(summand: tuple[int, ...], order: list[str]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", order, ["y"])]
    result, count = rewritten(
        matmul_to_gemm, graph_model(nodes, inputs={"x": (2, 3)}, w=numbers(3, 5), k=numbers(*summand))
    )
    assert (ops(result), count) == (["Gemm"], 1)


def test_nothing_of_it_need_be_constant() -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Neg", ["k"], ["n"]), node("Add", ["m", "n"], ["y"])]
    model = graph_model(nodes, inputs={"x": ("N", 3), "w": (3, 5), "k": (5,)})
    result, _ = rewritten(matmul_to_gemm, model, {"N": 2})
    assert ops(result) == ["Neg", "Gemm"]


@pytest.mark.parametrize(
    ("x", "w", "summand"),
    [
        ((2, 4, 3), (3, 5), (5,)),
        ((3,), (3, 5), (5,)),
        ((2, 3), (3, 5), (4, 1, 5)),
        ((1, 3), (3, 5), (4, 5)),
        ((2, 3), (3, 1), (2, 6)),
    ],
    ids=["three axes", "a vector", "one axis more", "more rows", "more columns"],
)
def test_any_other_stays(x: tuple[int, ...], w: tuple[int, ...], summand: tuple[int, ...]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "k"], ["y"])]
    model = graph_model(nodes, inputs={"x": x}, w=numbers(*w), k=numbers(*summand))
    assert rewritten(matmul_to_gemm, model)[1] == 0


def test_rows_that_are_not_known_may_be_one() -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "k"], ["y"])]
    model = graph_model(nodes, inputs={"x": ("N", 3)}, w=numbers(3, 5), k=numbers(4, 5))
    assert rewritten(matmul_to_gemm, model, {"N": 1})[1] == 0


def test_a_product_that_another_reads_stays() -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "k"], ["y"]), node("Relu", ["m"], ["z"])]
    model = graph_model(nodes, inputs={"x": (2, 3)}, outputs={"y": 1, "z": 1}, w=numbers(3, 5), k=numbers(5))
    assert rewritten(matmul_to_gemm, model)[1] == 0


def test_a_product_added_to_itself_stays() -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "m"], ["y"])]
    assert rewritten(matmul_to_gemm, graph_model(nodes, inputs={"x": (2, 3)}, w=numbers(3, 5)))[1] == 0
