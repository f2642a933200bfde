"""A node that hands its input on goes; one that only looks like it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.passes.remove_identities import remove_identities
from tests.support.onnx_graphs import graph_model, ints, node, ops, rewritten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto, NodeProto

pytestmark = pytest.mark.build

BEFORE = node("Relu", ["x"], ["a"])
AFTER = node("Sigmoid", ["b"], ["y"])
CONSTANTS: dict[str, Any] = {
    "one": np.ones((), np.float32),
    "ones": np.ones((3, 1, 1), np.float32),
    "wider": np.ones((2, 1, 1, 1), np.float32),
    "deeper": np.ones((1, 1, 1, 1, 1), np.float32),
    "zero": np.zeros((1,), np.float32),
    "two": np.full((), 2, np.float32),
    "shape": ints(1, 3, 6, 5),
    "inferring": ints(0, -1, 6, 5),
    "flat": ints(1, 90),
    "nothing": ints(0, 0, 0, 0, 0, 0, 0, 0),
    "crop": ints(0, 0, -1, 0, 0, 0, 1, 0),
    "start": ints(0),
    "end": ints(99),
    "last": ints(-1),
    "before_all": ints(-99),
    "axis": ints(2),
    "step": ints(1),
    "back": ints(-1),
    "repeats": ints(1, 1, 1, 1),
    "scales": np.ones(4, np.float32),
    "nearly": np.array([1, 1, 1.1, 1], np.float32),
    "false": np.array(False),
    "true": np.array(True),
    "ratio": np.array(0.5, np.float32),
    "halves": np.full((1, 3, 6, 5), 0.5, np.float32),
}


def model_with(middle: NodeProto, opset: int = 17, shape: tuple[int | str, ...] = (1, 3, 6, 5)) -> ModelProto:
    used = {name: CONSTANTS[name] for name in middle.input if name in CONSTANTS}
    return graph_model([BEFORE, middle, AFTER], inputs={"x": shape}, opset=opset, **used)


@pytest.mark.parametrize(
    ("middle", "opset"),
    [
        (node("Identity", ["a"], ["b"]), 17),
        (node("Mul", ["a", "one"], ["b"]), 17),
        (node("Mul", ["ones", "a"], ["b"]), 17),
        (node("Div", ["a", "ones"], ["b"]), 17),
        (node("Add", ["a", "zero"], ["b"]), 17),
        (node("Add", ["zero", "a"], ["b"]), 17),
        (node("Sub", ["a", "zero"], ["b"]), 17),
        (node("Pow", ["a", "one"], ["b"]), 17),
        (node("Reshape", ["a", "shape"], ["b"]), 17),
        (node("Reshape", ["a", "inferring"], ["b"]), 17),
        (node("Expand", ["a", "shape"], ["b"]), 17),
        (node("Transpose", ["a"], ["b"], perm=[0, 1, 2, 3]), 17),
        (node("Cast", ["a"], ["b"], to=1), 17),
        (node("Slice", ["a", "start", "end", "axis"], ["b"]), 17),
        (node("Slice", ["a", "start", "end", "axis", "step"], ["b"]), 17),
        (node("Slice", ["a"], ["b"], starts=[0], ends=[99], axes=[3]), 9),
        (node("Pad", ["a", "nothing"], ["b"]), 17),
        (node("Pad", ["a"], ["b"], pads=[0] * 8), 9),
        (node("Concat", ["a"], ["b"], axis=1), 17),
        (node("Sum", ["a"], ["b"]), 17),
        (node("Max", ["a"], ["b"]), 17),
        (node("Split", ["a"], ["b"], axis=1), 13),
        (node("Tile", ["a", "repeats"], ["b"]), 17),
        (node("Clip", ["a"], ["b"]), 17),
        (node("Clip", ["a"], ["b"]), 9),
        (node("Dropout", ["a"], ["b"]), 9),
        (node("Dropout", ["a", "ratio"], ["b"]), 17),
        (node("Dropout", ["a", "ratio", "false"], ["b", "mask"]), 17),
        (node("Resize", ["a", "", "scales"], ["b"], mode="linear"), 17),
        (node("Resize", ["a", "", "", "shape"], ["b"], mode="cubic"), 17),
    ],
    ids=lambda value: value.op_type if hasattr(value, "op_type") else str(value),
)
def test_what_changes_nothing_goes(middle: NodeProto, opset: int) -> None:
    result, count = rewritten(remove_identities, model_with(middle, opset))
    assert (ops(result), count) == (["Relu", "Sigmoid"], 1)


@pytest.mark.parametrize(
    "middle",
    [
        node("Mul", ["a", "two"], ["b"]),
        node("Mul", ["a", "wider"], ["b"]),
        node("Add", ["a", "deeper"], ["b"]),
        node("Mul", ["a", "deeper"], ["b"]),
        node("Sub", ["zero", "a"], ["b"]),
        node("Div", ["one", "a"], ["b"]),
        node("Pow", ["one", "a"], ["b"]),
        node("Reshape", ["a", "flat"], ["b"]),
        node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2]),
        node("Transpose", ["a"], ["b"]),
        node("Slice", ["a", "last", "before_all", "axis", "back"], ["b"]),
        node("Pad", ["a", "crop"], ["b"]),
        node("Concat", ["a", "halves"], ["b"], axis=1),
        node("Clip", ["a", "", "ratio"], ["b"]),
        node("Resize", ["a", "", "nearly"], ["b"], mode="linear"),
    ],
    ids=lambda value: f"{value.op_type} {' '.join(value.input)}",
)
def test_what_only_looks_like_it_stays(middle: NodeProto) -> None:
    model = model_with(middle)
    result, count = rewritten(remove_identities, model)
    assert (ops(result), count) == (["Relu", middle.op_type, "Sigmoid"], 0)


def test_a_scale_of_nearly_one_keeps_the_shape_and_moves_the_samples() -> None:
    """The control of the Resize above: its shape alone would have told that it does nothing."""
    model = model_with(node("Resize", ["a", "", "nearly"], ["b"], mode="linear"))
    assert [side.dim_value for side in model.graph.output[0].type.tensor_type.shape.dim] == [1, 3, 6, 5]


def test_a_transpose_that_moves_only_axes_of_one_goes() -> None:
    model = graph_model(
        [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("Relu", ["t"], ["y"])], inputs={"x": (1, 1, 5)}
    )
    assert ops(rewritten(remove_identities, model)[0]) == ["Relu"]


@pytest.mark.parametrize(("op_type", "constant"), [("Mul", "ones"), ("Reshape", "shape"), ("Expand", "shape")])
def test_where_the_shape_is_not_known_it_stays(op_type: str, constant: str) -> None:
    """The constant may be what gives the tensor its shape."""
    model = model_with(node(op_type, ["a", constant], ["b"]), shape=("N", "C", "H", "W"))
    sizes: Mapping[str, int] = {"N": 1, "C": 3, "H": 6, "W": 5}
    assert rewritten(remove_identities, model, sizes)[1] == 0


def test_a_scalar_needs_no_known_shape() -> None:
    model = model_with(node("Mul", ["a", "one"], ["b"]), shape=("N", "C"))
    assert rewritten(remove_identities, model, {"N": 2, "C": 3})[1] == 1


def test_a_cast_to_another_type_stays() -> None:
    nodes = [BEFORE, node("Cast", ["a"], ["d"], to=11), node("Cast", ["d"], ["y"], to=1)]
    assert rewritten(remove_identities, graph_model(nodes))[1] == 0


def test_a_dropout_whose_mask_is_wanted_stays() -> None:
    nodes = [BEFORE, node("Dropout", ["a"], ["y", "mask"])]
    model = graph_model(nodes, outputs={"y": 1, "mask": 9})
    assert rewritten(remove_identities, model)[1] == 0


def test_a_dropout_that_trains_stays() -> None:
    model = model_with(node("Dropout", ["a", "ratio", "true"], ["b"]))
    assert remove_identities(model)[1] == 0


def test_an_output_takes_its_name_along() -> None:
    model = graph_model([BEFORE, node("Identity", ["a"], ["y"])])
    result, count = rewritten(remove_identities, model)
    assert (ops(result), count, result.graph.node[0].output[0]) == (["Relu"], 1, "y")


@pytest.mark.parametrize("source", ["x", "one"])
def test_between_an_input_or_a_constant_and_an_output_it_stays(source: str) -> None:
    model = graph_model([node("Identity", [source], ["y"])], one=CONSTANTS["ones"])
    assert rewritten(remove_identities, model)[1] == 0


def test_between_two_outputs_it_stays() -> None:
    model = graph_model([BEFORE, node("Identity", ["a"], ["y"])], outputs={"a": 1, "y": 1})
    assert rewritten(remove_identities, model)[1] == 0
