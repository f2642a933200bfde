"""Which nodes run in int8: only what is wanted, only what pays, never a value that float readers want."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.quantize.islands import settle

pytestmark = pytest.mark.build


def graph(*lines: str, outputs: tuple[str, ...] = ("out",)) -> onnx.ModelProto:
    """Lines such as ``c1: Conv x -> a``; each node is called as its line begins, weights and bounds are added."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, object] = {}
    for line in lines:
        name, rest = line.split(": ")
        op_type, *inputs, _, output = rest.split()
        if op_type in ("Conv", "Gemm"):
            constants[f"w_{name}"] = np.ones((4, 4, 1, 1), np.float32)
            inputs.append(f"w_{name}")
        elif op_type == "Clip":
            constants |= {f"low_{name}": np.float32(inputs[1]), f"high_{name}": np.float32(inputs[2])}
            inputs = [inputs[0], f"low_{name}", f"high_{name}"]
        nodes.append(helper.make_node(op_type, inputs, output.split(","), name=name))
    shape = [1, 4, 8, 8]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
    )


def settled(*lines: str, wanted: str, outputs: tuple[str, ...] = ("out",), pixels: tuple[str, ...] = ()) -> str:
    return " ".join(settle(graph(*lines, outputs=outputs), wanted.split(), pixels))


def test_a_plain_chain_runs_as_wanted() -> None:
    assert settled("c1: Conv x -> a", "c2: Conv a -> out", wanted="c1 c2") == "c1 c2"


def test_the_relu_behind_an_int8_convolution_comes_with_it() -> None:
    assert settled("c1: Conv x -> a", "r: Relu a -> out", wanted="c1") == "c1 r"


def test_a_relu_behind_a_float_convolution_stays_with_that() -> None:
    lines = ("c1: Conv x -> a", "r: Relu a -> b", "c2: Conv b -> out")
    assert settled(*lines, wanted="r c2") == "c2"


def test_a_relu_whose_input_others_read_is_not_absorbed() -> None:
    lines = ("c1: Conv x -> a", "r: Relu a -> b", "s: Add a b -> out")
    assert settled(*lines, wanted="c1") == "c1"


@pytest.mark.parametrize(("bounds", "expected"), [("0 6", "c1 k"), ("-1 1", "c1 k"), ("2 6", "c1"), ("-6 -2", "c1")])
def test_a_clip_is_absorbed_only_when_its_bounds_hold_zero(bounds: str, expected: str) -> None:
    assert settled("c1: Conv x -> a", f"k: Clip a {bounds} -> out", wanted="c1 k") == expected


def test_what_is_passed_on_between_int8_nodes_stays_int8() -> None:
    lines = ("c1: Conv x -> a", "t: Transpose a -> b", "c2: Conv b -> out")
    assert settled(*lines, wanted="c1 t c2") == "c1 t c2"


def test_what_passes_float_to_float_is_left_alone() -> None:
    lines = ("c1: Conv x -> a", "t: Transpose a -> b", "f: Flatten b -> c", "c2: Conv c -> out")
    assert settled(*lines, wanted="t f") == ""
    assert settled(*lines, wanted="t f c2") == "t f c2"


def test_a_float_value_that_a_float_node_reads_too_is_not_passed_through_int8() -> None:
    lines = ("c1: Conv x -> a", "t: Transpose a -> b", "c2: Conv b -> p", "e: Exp b -> q", "s: Add p q -> out")
    assert settled(*lines, wanted="t c2") == "c2"


def test_a_float_value_that_is_a_result_is_not_passed_through_int8() -> None:
    lines = ("t: Transpose x -> b", "c2: Conv b -> out")
    assert settled(*lines, wanted="t c2", outputs=("out", "b")) == "c2"


def test_a_join_of_floats_stays_float_and_one_of_int8_does_not() -> None:
    lines = ("c1: Conv x -> a", "c2: Conv x -> b", "j: Concat a b -> c", "c3: Conv c -> out")
    assert settled(*lines, wanted="j c3") == "c3"
    assert settled(*lines, wanted="c1 j c3") == "c1 j c3"
    assert settled(*lines, wanted="c1 j") == "c1"
    assert settled(*lines, wanted="c1 c2 j") == "c1 c2 j"


def test_stretches_without_a_weight_are_float() -> None:
    lines = ("p: AveragePool x -> a", "s: Sigmoid a -> b", "e: Exp b -> out")
    assert settled(*lines, wanted="p s", pixels=("x",)) == ""


def test_the_cameras_bytes_count_as_int8() -> None:
    lines = ("m: Add x mean -> a", "c1: Conv a -> out")
    assert settled(*lines, wanted="m c1") == "c1"
    model = graph(*lines)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 4, 1, 1), np.float32), "mean"))
    assert settle(model, ["m", "c1"], ["x"]) == ["m", "c1"]
    assert settle(model, ["m"], ["x"]) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("c1 p c2", "c1 p c2"), ("c1 p", "c1"), ("p c2", "c2"), ("c1 p j c2", "c1 p c2")],
)
def test_a_pool_of_maxima_is_int8_only_between_int8_convolutions(wanted: str, expected: str) -> None:
    lines = ("c1: Conv x -> a", "p: MaxPool a -> b", "c2: Conv b -> d", "j: Concat d x -> e", "l: Exp e -> out")
    assert settled(*lines, wanted=wanted) == expected


def test_a_convolution_with_computed_weights_stays_float() -> None:
    model = graph("c1: Conv x -> a", "c2: Conv a -> out")
    model.graph.node[1].input[1] = "x"
    assert settle(model, ["c1", "c2"], []) == ["c1"]


def test_nodes_that_do_not_exist_and_operators_without_kernels_are_refused() -> None:
    model = graph("c1: Conv x -> a", "h: HardSwish a -> out")
    with pytest.raises(BuildError, match="there is no c9"):
        settle(model, ["c9"], [])
    with pytest.raises(BuildError, match="got HardSwish"):
        settle(model, ["c1", "h"], [])
