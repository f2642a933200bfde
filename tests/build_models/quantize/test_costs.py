"""Arithmetic of nodes against figures worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import helper

from build_models.quantize.costs import arithmetic_of, shapes_of
from tests.support.onnx_graphs import graph_model, ints, numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.build


def cost(
    op_type: str, shapes: dict[str, tuple[int, ...]], attributes: dict[str, Any], outputs: Sequence[str] = ("y",)
) -> float:
    """Of one node that reads "x" and constants of some shapes."""
    inputs = list(shapes)
    nodes = [helper.make_node(op_type, inputs, list(outputs), name="it", **attributes)]
    constants: dict[str, Any] = {name: numbers(*shape) for name, shape in shapes.items() if name != "x"}
    model = graph_model(nodes, inputs={"x": shapes["x"]}, outputs=dict.fromkeys(outputs, 1), **constants)
    return arithmetic_of(model)["it"]


PICTURE = (1, 6, 10, 8)


@pytest.mark.parametrize(
    ("op_type", "weight", "attributes", "expected"),
    [
        ("Conv", (4, 6, 3, 3), {"pads": [1] * 4}, 10 * 8 * 4 * 6 * 9),
        ("Conv", (4, 6, 3, 3), {}, 8 * 6 * 4 * 6 * 9),
        ("Conv", (4, 6, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}, 5 * 4 * 4 * 6 * 9),
        ("Conv", (6, 1, 3, 3), {"pads": [1] * 4, "group": 6}, 10 * 8 * 6 * 9),
        ("Conv", (4, 3, 1, 1), {"group": 2}, 10 * 8 * 4 * 3),
        ("Conv", (4, 6, 3, 3), {"pads": [2] * 4, "dilations": [2, 2]}, 10 * 8 * 4 * 6 * 9),
        ("ConvTranspose", (6, 4, 2, 2), {"strides": [2, 2]}, 10 * 8 * 6 * 4 * 4),
        ("ConvTranspose", (6, 1, 2, 2), {"strides": [2, 2], "group": 6}, 10 * 8 * 6 * 4),
    ],
)
def test_convolutions(op_type: str, weight: tuple[int, ...], attributes: dict[str, Any], expected: int) -> None:
    assert cost(op_type, {"x": PICTURE, "w": weight}, attributes) == expected


@pytest.mark.parametrize(
    ("op_type", "data", "weight", "attributes", "expected"),
    [
        ("Gemm", (2, 7), (7, 5), {}, 2 * 7 * 5),
        ("Gemm", (2, 7), (5, 7), {"transB": 1}, 2 * 7 * 5),
        ("Gemm", (7, 2), (7, 5), {"transA": 1}, 2 * 7 * 5),
        ("MatMul", (3, 2, 7), (7, 5), {}, 3 * 2 * 7 * 5),
        ("MatMul", (3, 2, 7), (3, 7, 5), {}, 3 * 2 * 7 * 5),
    ],
)
def test_products(
    op_type: str, data: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any], expected: int
) -> None:
    assert cost(op_type, {"x": data, "w": weight}, attributes) == expected


def test_what_multiplies_no_matrices_costs_its_results() -> None:
    assert cost("Relu", {"x": PICTURE}, {}) == 480
    assert cost("Add", {"x": PICTURE, "c": (6, 1, 1)}, {}) == 480
    assert cost("Split", {"x": PICTURE}, {"axis": 1}, outputs=("a", "b")) == 480


def test_a_bias_costs_nothing_more() -> None:
    shapes = {"x": PICTURE, "w": (4, 6, 1, 1), "b": (4,)}
    assert cost("Conv", shapes, {}) == 10 * 8 * 4 * 6


def test_shapes_hold_constants_inputs_and_what_lies_between() -> None:
    nodes = [helper.make_node("Reshape", ["x", "flat"], ["f"]), helper.make_node("Relu", ["f"], ["y"])]
    shapes = shapes_of(graph_model(nodes, inputs={"x": PICTURE}, flat=ints(1, 480)))
    assert shapes == {"x": PICTURE, "flat": (2,), "f": (1, 480), "y": (1, 480)}
