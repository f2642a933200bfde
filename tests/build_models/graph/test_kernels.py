"""What ONNX Runtime makes of a model is counted as its dumped graph has it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")


from typing import TYPE_CHECKING

from build_models.errors import BuildError
from build_models.graph import kernels
from build_models.graph.kernels import kernel_report
from tests.support.onnx_graphs import graph_model, node, numbers

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

pytestmark = pytest.mark.build

SCALE = {"s": np.array(0.02, np.float32), "z": np.array(128, np.uint8), "sw": np.array(0.01, np.float32)}


def float_model() -> ModelProto:
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        node("Softmax", ["t"], ["y"]),
    ]
    return graph_model(nodes, w=numbers(16, 3, 3, 3))


def quantised(between: list[NodeProto], tail: list[NodeProto]) -> ModelProto:
    """Two int8 convolutions with something between "m0" and "m1", and a float tail from "t0" to "y"."""

    def pair(source: str, result: str) -> list[NodeProto]:
        return [
            node("QuantizeLinear", [source, "s", "z"], [f"{result}_q"]),
            node("DequantizeLinear", [f"{result}_q", "s", "z"], [result]),
        ]

    nodes = [
        *pair("x", "xd"),
        node("DequantizeLinear", ["w", "sw"], ["wd"]),
        node("Conv", ["xd", "wd"], ["c"]),
        *pair("c", "m0"),
        *between,
        *pair("m1", "md"),
        node("DequantizeLinear", ["v", "sw"], ["vd"]),
        node("Conv", ["md", "vd"], ["d"]),
        *pair("d", "t0"),
        *tail,
    ]
    rng = np.random.default_rng(0)
    weights = {"w": rng.integers(-99, 99, (8, 3, 1, 1)), "v": rng.integers(-99, 99, (8, 8, 1, 1))}
    return graph_model(nodes, **{name: value.astype(np.int8) for name, value in weights.items()}, **SCALE)  # type: ignore[arg-type]


def test_a_convolution_takes_its_activation_along() -> None:
    report = kernel_report(float_model())
    assert (report.fused_activations, report.float_convolutions, report.integer) == (1, 1, 0)
    assert "Relu" not in report.operators
    assert report.nodes == sum(report.operators.values())
    assert (report.quantise, report.dequantise, report.float_islands) == (0, 0, ())


def test_transposes_and_layout_conversions_are_counted() -> None:
    report = kernel_report(float_model())
    assert report.transposes == report.operators.get("Transpose", 0)
    assert report.reorders == sum(report.operators.get(name, 0) for name in ("ReorderInput", "ReorderOutput"))


def test_integer_kernels_leave_no_pair_between_them() -> None:
    report = kernel_report(
        quantised([node("MaxPool", ["m0"], ["m1"], kernel_shape=[2, 2])], [node("Exp", ["t0"], ["y"])])
    )
    assert report.integer == 2
    assert report.float_convolutions == 0
    assert (report.quantise, report.dequantise) == (1, 1)  # at the input and before the tail
    assert report.float_islands == ()


def test_what_has_no_integer_kernel_is_an_island() -> None:
    """Its two conversions are left too; the float tail behind the last integer is none."""
    between = [node("Exp", ["m0"], ["e"]), node("Sin", ["e"], ["m1"])]
    report = kernel_report(quantised(between, [node("Exp", ["t0"], ["y"])]))
    assert report.float_islands == (("Exp", "Sin"),)
    assert (report.integer, report.quantise, report.dequantise) == (2, 2, 2)


def test_branches_that_meet_are_one_island_and_others_are_not() -> None:
    nodes = [
        node("DequantizeLinear", ["a"], ["f"]),
        node("Exp", ["f"], ["e"]),
        node("Sin", ["f"], ["s"]),
        node("Add", ["e", "s"], ["sum"]),
        node("QuantizeLinear", ["sum"], ["q"]),
        node("DequantizeLinear", ["b"], ["g"]),
        node("Cos", ["g"], ["c"]),
        node("QuantizeLinear", ["c"], ["r"]),
        node("Neg", ["g"], ["tail"]),
    ]
    assert kernels._float_islands(nodes) == [("Add", "Exp", "Sin"), ("Cos",)]


def test_a_model_that_does_not_load_is_refused() -> None:
    model = float_model()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(BuildError, match="ONNX Runtime refuses the model"):
        kernel_report(model)
