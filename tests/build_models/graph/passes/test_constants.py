"""Constants: out of nodes, computed once, never larger than what they came from, equal ones merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import numpy_helper

from build_models.graph.passes.fold_constants import LARGEST_GROWN_BYTES, fold_constants
from build_models.graph.passes.merge_constants import merge_constants
from build_models.graph.passes.promote_constants import promote_constants
from build_models.graph.passes.remove_dead import remove_dead
from tests.support.onnx_graphs import graph_model, ints, node, numbers, ops, rewritten

if TYPE_CHECKING:
    from onnx import NodeProto

pytestmark = pytest.mark.build


@pytest.mark.parametrize(
    "value",
    [
        {"value": numpy_helper.from_array(numbers(3, 1, 1))},
        {"value_float": 0.5},
        {"value_floats": [0.5] * 5},
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_constant_node_becomes_an_initialiser(value: dict[str, Any]) -> None:
    model = graph_model([node("Constant", [], ["k"], **value), node("Mul", ["x", "k"], ["y"])])
    result, count = rewritten(promote_constants, model)
    assert (ops(result), count) == (["Mul"], 1)
    assert [tensor.name for tensor in result.graph.initializer] == ["k"]


def test_so_does_a_shape() -> None:
    model = graph_model([node("Constant", [], ["k"], value_ints=[-1, 5]), node("Reshape", ["x", "k"], ["y"])])
    assert ops(rewritten(promote_constants, model)[0]) == ["Reshape"]


def test_a_constant_that_is_an_output_stays_computed() -> None:
    nodes = [node("Constant", [], ["k"], value_float=0.5), node("Mul", ["x", "k"], ["y"])]
    assert rewritten(promote_constants, graph_model(nodes, outputs={"y": 1, "k": 1}))[1] == 0


def test_what_depends_on_constants_only_is_computed() -> None:
    nodes = [
        node("Add", ["a", "b"], ["ab"]),
        node("Sqrt", ["positive"], ["root"]),
        node("Split", ["root"], ["first", "second"], axis=0),
        node("Mul", ["ab", "second"], ["k"]),
        node("Mul", ["x", "k"], ["y"]),
    ]
    constants: dict[str, Any] = {"a": numbers(5), "b": numbers(1), "positive": np.abs(numbers(12, 5))}
    model = graph_model(nodes, opset=13, **constants)
    result, count = rewritten(fold_constants, model)
    assert (ops(result), count) == (["Mul"], 4)
    assert len(remove_dead(result)[0].graph.initializer) == 1


@pytest.mark.parametrize(
    "grown",
    [
        node("Expand", ["one", "plane"], ["k"]),
        node("ConstantOfShape", ["plane"], ["k"]),
        node("Tile", ["one", "plane"], ["k"]),
    ],
    ids=lambda value: value.op_type,
)
@pytest.mark.parametrize(("side", "folds"), [(4, True), (200, False)])
def test_a_constant_never_grows_the_file(grown: NodeProto, side: int, folds: bool) -> None:
    """200 x 200 float32 are more than a file may grow by; the device computes them when it loads the file."""
    nodes = [grown, node("Add", ["x", "k"], ["y"])]
    model = graph_model(nodes, inputs={"x": (1, side, side)}, one=numbers(1, 1, 1), plane=ints(1, side, side))
    result, count = rewritten(fold_constants, model)
    assert (side * side * 4 > LARGEST_GROWN_BYTES) is not folds
    assert count == int(folds)
    assert (grown.op_type in ops(result)) is not folds


def test_large_constants_fold_as_long_as_they_do_not_grow() -> None:
    nodes = [node("Transpose", ["w"], ["t"]), node("MatMul", ["x", "t"], ["y"])]
    model = graph_model(nodes, inputs={"x": (1, 200)}, w=numbers(100, 200))
    assert ops(rewritten(fold_constants, model)[0]) == ["MatMul"]


@pytest.mark.parametrize(
    "random",
    [
        node("RandomNormalLike", ["k"], ["r"]),
        node("RandomUniformLike", ["k"], ["r"], seed=1.0),
        node("Bernoulli", ["k"], ["r"]),
        node("Dropout", ["k", "half", "true"], ["r"]),
        node("RandomNormal", [], ["r"], shape=[5]),
    ],
    ids=lambda value: value.op_type,
)
def test_chance_is_not_folded(random: NodeProto) -> None:
    model = graph_model(
        [random, node("Add", ["x", "r"], ["y"])],
        k=np.full(5, 0.5, np.float32),
        half=np.array(0.5, np.float32),
        true=np.array(True),
    )
    result, count = fold_constants(model)
    assert (ops(result), count) == ([random.op_type, "Add"], 0)


def test_quantised_weights_stay_quantised() -> None:
    nodes = [node("DequantizeLinear", ["w", "scale"], ["k"]), node("Conv", ["x", "k"], ["y"])]
    model = graph_model(nodes, w=np.ones((4, 3, 3, 3), np.int8), scale=np.array(0.1, np.float32))
    assert rewritten(fold_constants, model)[1] == 0


def test_an_output_of_constants_stays_computed() -> None:
    model = graph_model([node("Sqrt", ["k"], ["y"])], k=np.ones(3, np.float32))
    assert rewritten(fold_constants, model)[1] == 0


def test_what_may_be_fed_is_not_folded() -> None:
    model = graph_model([node("Sqrt", ["k"], ["s"]), node("Add", ["x", "s"], ["y"])], k=np.ones(5, np.float32))
    model.graph.input.add().CopyFrom(graph_model([], inputs={"k": (5,)}).graph.input[0])
    assert rewritten(fold_constants, model)[1] == 0


def test_a_node_that_cannot_work_is_left_to_the_runtime() -> None:
    nodes = [node("Reshape", ["k", "shape"], ["r"]), node("Add", ["x", "r"], ["y"])]
    model = graph_model(nodes, k=numbers(5), shape=ints(1, 4))
    assert fold_constants(model)[1] == 0


def test_equal_constants_become_one() -> None:
    nodes = [node("Mul", ["x", "a"], ["m"]), node("Add", ["m", "b"], ["n"]), node("Add", ["n", "other"], ["y"])]
    same = numbers(3, 1, 1)
    model = graph_model(nodes, a=same, b=same.copy(), other=same.reshape(1, 3, 1, 1))
    result, count = rewritten(merge_constants, model)
    assert count == 1
    assert [each.input[1] for each in result.graph.node] == ["a", "a", "other"]


def test_equal_bytes_of_another_type_or_sign_are_not_equal() -> None:
    nodes = [
        node("Mul", ["x", "zero"], ["m"]),
        node("Div", ["m", "minus"], ["d"]),
        node("Cast", ["int"], ["f"], to=1),
        node("Add", ["d", "f"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "zero": np.zeros((), np.float32),
        "minus": np.array(-0.0, np.float32),
        "int": np.zeros((), np.int32),
    }
    model = graph_model(nodes, **constants)
    assert merge_constants(model)[1] == 0


def test_biases_of_two_layers_stay_apart() -> None:
    nodes = [node("Conv", ["x", "w", "b"], ["c"]), node("Conv", ["c", "v", "d"], ["y"])]
    same = numbers(3)
    model = graph_model(nodes, w=numbers(3, 3, 1, 1), v=numbers(3, 3, 1, 1), b=same, d=same)
    result, count = rewritten(merge_constants, model)
    assert count == 1  # the weights
    assert [each.input[2] for each in result.graph.node] == ["b", "d"]


def test_dead_nodes_and_unused_constants_go() -> None:
    nodes = [
        node("Relu", ["x"], ["y"]),
        node("Mul", ["x", "k"], ["dead"]),
        node("Add", ["dead", "k"], ["deader"]),
    ]
    result, count = rewritten(remove_dead, graph_model(nodes, k=numbers(5)))
    assert (ops(result), count, len(result.graph.initializer)) == (["Relu"], 3, 0)


def test_an_unused_input_keeps_its_default() -> None:
    """Without the value it would have to be fed."""
    model = graph_model([node("Relu", ["x"], ["y"])], k=numbers(5))
    model.graph.input.add().CopyFrom(graph_model([], inputs={"k": (5,)}).graph.input[0])
    result, count = rewritten(remove_dead, model)
    assert (count, len(result.graph.initializer)) == (0, 1)


def test_an_output_left_out_keeps_nothing_alive() -> None:
    """The name of an output that is left out is empty, like that of an input that is."""
    nodes = [
        node("Clip", ["x", "", "k"], ["y"]),
        node("GRU", ["x", "w", "r"], ["", "last"], hidden_size=2),
    ]
    model = graph_model(
        nodes, inputs={"x": (3, 1, 4)}, k=np.array(0.5, np.float32), w=numbers(1, 6, 4), r=numbers(1, 6, 2)
    )
    assert ops(rewritten(remove_dead, model)[0]) == ["Clip"]
