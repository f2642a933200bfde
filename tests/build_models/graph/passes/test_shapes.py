"""Shape arithmetic folds where the shape is known; reshapes and transposes in a row become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.optimise import SHAPE_PASSES, optimise
from build_models.graph.passes.fold_shapes import fold_shapes
from build_models.graph.passes.merge_reshapes import merge_reshapes
from build_models.graph.passes.merge_transposes import merge_transposes
from tests.support.onnx_graphs import assert_same, graph_model, ints, node, ops, rewritten

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

pytestmark = pytest.mark.build

SIZES = {"N": 2, "H": 4}


def flattening(input_shape: tuple[int | str, ...]) -> ModelProto:
    """What exporters write for ``x.view(x.shape[0], -1, x.shape[3])``."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "first"], ["n"]),
        node("Slice", ["s", "three", "four"], ["w"]),
        node("Unsqueeze", ["n", "zero"], ["nn"]),
        node("Concat", ["nn", "open", "w"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "first": ints(0).reshape(()),
        "three": ints(3),
        "four": ints(4),
        "zero": ints(0),
        "open": ints(-1),
    }
    return graph_model(nodes, inputs={"x": input_shape}, **constants)


def test_a_chain_folds_once_the_shape_is_fixed() -> None:
    model = flattening((2, 3, 4, 5))
    result, _ = optimise(model, passes=SHAPE_PASSES)
    assert ops(result) == ["Reshape"]
    assert_same(model, result)


def test_an_open_batch_leaves_what_depends_on_it() -> None:
    model = flattening(("N", 3, 4, 5))
    result, _ = optimise(model, passes=SHAPE_PASSES)
    assert ops(result) == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]
    assert_same(model, result, SIZES)


@pytest.mark.parametrize(
    ("nodes", "folds"),
    [
        ([node("Shape", ["x"], ["s"])], False),
        ([node("Shape", ["x"], ["s"], start=1, end=2)], True),
        ([node("Shape", ["x"], ["s"], start=-1)], True),
        ([node("Size", ["x"], ["s"])], False),
        ([node("Shape", ["x"], ["a"]), node("Gather", ["a", "known"], ["s"])], True),
        ([node("Shape", ["x"], ["a"]), node("Gather", ["a", "open"], ["s"])], False),
        ([node("Shape", ["x"], ["a"]), node("Slice", ["a", "one", "two"], ["s"])], True),
        ([node("Shape", ["x"], ["a"]), node("Slice", ["a", "one", "far"], ["s"])], False),
    ],
    ids=[
        "all",
        "a known range",
        "from behind",
        "product",
        "known sides",
        "an open side",
        "a known slice",
        "an open slice",
    ],
)
def test_sides_that_are_known_are_constants(nodes: list[NodeProto], folds: bool) -> None:
    model = graph_model(
        [*nodes, node("Cast", ["s"], ["y"], to=1)],
        inputs={"x": ("N", 3, "H", 5)},
        known=ints(1, -1),
        open=ints(1, 2),
        one=ints(1),
        two=ints(2),
        far=ints(99),
    )
    result, count = rewritten(fold_shapes, model, SIZES)
    assert count == int(folds)
    assert (result.graph.node[-1].input[0] == nodes[-1].output[0]) is not folds


def test_a_size_that_is_known_is_a_constant() -> None:
    model = graph_model([node("Size", ["x"], ["s"]), node("Cast", ["s"], ["y"], to=1)])
    assert ops(rewritten(fold_shapes, model)[0]) == ["Cast"]


def test_a_shape_that_is_an_output_stays() -> None:
    model = graph_model([node("Shape", ["x"], ["y"])], outputs={"y": 7})
    assert rewritten(fold_shapes, model)[1] == 0


def test_two_transposes_become_one() -> None:
    nodes = [node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), node("Transpose", ["t"], ["y"], perm=[0, 2, 1, 3])]
    result, count = rewritten(merge_transposes, graph_model(nodes))
    assert count == 1
    assert list(result.graph.node[1].attribute[0].ints) == [0, 3, 2, 1]
    assert result.graph.node[1].input[0] == "x"


def test_a_reversal_has_no_attribute() -> None:
    nodes = [node("Transpose", ["x"], ["t"]), node("Transpose", ["t"], ["y"])]
    result, _ = rewritten(merge_transposes, graph_model(nodes))
    assert list(result.graph.node[1].attribute[0].ints) == [0, 1, 2, 3]


def test_a_transpose_with_other_readers_stays_for_them() -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("Transpose", ["t"], ["y"], perm=[0, 3, 1, 2]),
        node("Relu", ["t"], ["z"]),
    ]
    result, _ = rewritten(merge_transposes, graph_model(nodes, outputs={"y": 1, "z": 1}))
    assert ops(result) == ["Transpose", "Transpose", "Relu"]
    assert result.graph.node[2].input[0] == "t"


def test_transposes_around_something_else_stay() -> None:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node("Softmax", ["t"], ["s"]),
        node("Transpose", ["s"], ["y"], perm=[0, 3, 1, 2]),
    ]
    assert rewritten(merge_transposes, graph_model(nodes))[1] == 0


@pytest.mark.parametrize(
    "later",
    [
        node("Reshape", ["r", "shape"], ["y"]),
        node("Reshape", ["r", "copying"], ["y"]),
        node("Flatten", ["r"], ["y"], axis=2),
        node("Unsqueeze", ["r", "axis"], ["y"]),
        node("Squeeze", ["r"], ["y"]),
    ],
    ids=lambda value: " ".join([value.op_type, *value.input]),
)
@pytest.mark.parametrize(
    "earlier",
    [node("Reshape", ["x", "first"], ["r"]), node("Flatten", ["x"], ["r"]), node("Unsqueeze", ["x", "axis"], ["r"])],
    ids=lambda value: value.op_type,
)
def test_reshapes_in_a_row_become_the_last(earlier: NodeProto, later: NodeProto) -> None:
    constants: dict[str, Any] = {"first": ints(1, 15, 6), "shape": ints(9, -1), "copying": ints(0, -1), "axis": ints(1)}
    result, count = rewritten(merge_reshapes, graph_model([earlier, later], **constants))
    assert count == 1
    assert result.graph.node[1].op_type == "Reshape"
    assert result.graph.node[1].input[0] == "x"


def test_a_reshape_that_copies_an_open_side_of_the_first_stays() -> None:
    nodes = [node("Reshape", ["x", "first"], ["r"]), node("Reshape", ["r", "copying"], ["y"])]
    model = graph_model(nodes, inputs={"x": ("N", 3, "H", 5)}, first=ints(-1, 5), copying=ints(0, 5, 1))
    assert rewritten(merge_reshapes, model, SIZES)[1] == 0


def test_with_open_sides_a_constant_shape_is_enough() -> None:
    nodes = [node("Reshape", ["x", "first"], ["r"]), node("Reshape", ["r", "last"], ["y"])]
    model = graph_model(nodes, inputs={"x": ("N", 3, "H", 5)}, first=ints(-1, 5), last=ints(3, -1))
    assert rewritten(merge_reshapes, model, SIZES)[1] == 1


def test_reshapes_around_something_else_stay() -> None:
    nodes = [
        node("Flatten", ["x"], ["r"]),
        node("Softmax", ["r"], ["s"]),
        node("Reshape", ["s", "shape"], ["y"]),
    ]
    assert rewritten(merge_reshapes, graph_model(nodes, shape=ints(1, 3, 6, 5)))[1] == 0
