"""What flows where: inner graphs read the tensors around them, constants depend on no input."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import TensorProto, helper

from build_models.graph.flow import ancestors, close_names, float_names, live_nodes, nearest_before, reads
from tests.support.branching_model import branching_model

pytestmark = pytest.mark.build


def names_at(places: object) -> set[str]:
    model = branching_model()
    assert isinstance(places, list | set)
    return {model.graph.node[index].name for index in places}


def test_a_node_reads_what_its_branches_read() -> None:
    (branch,) = (node for node in branching_model().graph.node if node.op_type == "If")
    assert reads(branch) == {"always", "s", "two", "r"}


def test_constants_are_not_alive() -> None:
    places = live_nodes(branching_model())
    assert places == sorted(places)
    assert names_at(places) == {"conv[0]", "relu", "conv[1]", "skip", "if", "mean", "reshape"}


def test_ancestors_go_through_branches() -> None:
    model = branching_model()
    assert names_at(ancestors(model, ["b"])) == {"conv[0]", "relu", "conv[1]"}
    assert names_at(ancestors(model, ["chosen"])) == {"two", "conv[0]", "relu", "conv[1]", "skip", "if"}
    assert ancestors(model, ["image"]) == set()


def test_the_nearest_known_tensors_are_found_through_unknown_ones() -> None:
    before = nearest_before(branching_model(), {"a", "b", "scores"})
    assert before["b"] == {"a"}
    assert before["scores"] == {"a", "b"}
    assert before["a"] == set()


def test_a_dequantised_tensor_stands_for_what_was_quantised() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["anything"]),
        helper.make_node("DequantizeLinear", ["anything", "s", "z"], ["else"]),
        helper.make_node("DequantizeLinear", ["bytes", "s", "z"], ["y_DequantizeLinear_Output"]),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], [], [])
    assert float_names(helper.make_model(graph)) == {"else": "x", "y_DequantizeLinear_Output": "y"}


def test_close_names_are_those_that_contain_it_then_those_that_look_like_it() -> None:
    assert close_names("layer", ["x", "my/Layer_3"]) == "did you mean 'my/Layer_3'?"
    assert close_names("Conv_31", ["Conv_13", "Relu"]) == "did you mean 'Conv_13'?"
    assert close_names("zzz", ["Conv_13", "Relu"]) == ""
