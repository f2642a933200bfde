from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import (
    check_same,
    describe,
    free_names,
    inputs_of,
    nodes_after,
    run_model,
    with_outputs,
)

pytestmark = pytest.mark.build


def chain() -> onnx.ModelProto:
    """``x -> first -> second -> third``, and a side branch from ``first``."""
    nodes = [
        helper.make_node("Relu", ["x"], ["first"], name="one"),
        helper.make_node("Mul", ["first", "factor"], ["second"], name="two"),
        helper.make_node("Neg", ["second"], ["third"], name="three"),
        helper.make_node("Abs", ["first"], ["side"], name="branch"),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("third", "side")],
        [numpy_helper.from_array(np.full(1, 3, np.float32), "factor")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_tensors_describe_themselves() -> None:
    assert describe(inputs_of(chain())) == "x float32[N,2]"
    assert describe([]) == "none"


def test_initialisers_listed_as_inputs_are_no_inputs() -> None:
    model = chain()
    model.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, [1]))

    assert [info.name for info in inputs_of(model)] == ["x"]


def test_the_nodes_behind_a_tensor_are_those_that_depend_on_it() -> None:
    assert nodes_after(chain(), ["second"]) == ["three"]
    assert nodes_after(chain(), ["first"]) == ["two", "three", "branch"]


def test_an_inner_tensor_can_be_the_only_output() -> None:
    inner = with_outputs(chain(), ["second"])

    assert [node.name for node in inner.graph.node] == ["one", "two"]
    np.testing.assert_array_equal(run_model(inner, {"x": np.ones((1, 2), np.float32)})["second"], [[3, 3]])
    with pytest.raises(BuildError, match="no tensor nowhere"):
        with_outputs(chain(), ["nowhere"])


def test_a_wanted_name_is_freed_everywhere() -> None:
    model = chain()
    feed = {"x": np.ones((1, 2), np.float32)}
    before = run_model(model, feed)

    moved = free_names(model, ["first", "side", "unused"])

    assert moved == {"first": "source/first", "side": "source/side"}
    np.testing.assert_array_equal(run_model(model, feed)["source/side"], before["side"])


def test_a_failing_run_is_a_build_error_of_one_line() -> None:
    with pytest.raises(BuildError, match="the model does not run") as caught:
        run_model(chain(), {"x": np.ones((1, 2, 3), np.float32)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [np.array([1.0, 2.001]), np.array([1.0, np.nan]), np.array([1.0])])
def test_outputs_that_differ_are_told_apart_from_rounding(wrong: np.ndarray) -> None:
    expected = {"y": np.array([1.0, 2.0])}

    assert check_same(expected, {"y": np.array([1.0, 2.00001])}, "changed") == pytest.approx(5e-6)
    with pytest.raises(BuildError, match="changed: output y"):
        check_same(expected, {"y": wrong}, "changed")
