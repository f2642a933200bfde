"""The proof sees a difference of any kind, and does not pass where it compared nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import ModelProto, TensorProto, helper

from build_models.errors import BuildError
from build_models.graph.proof import prove_same, random_feeds
from tests.support.onnx_graphs import graph_model, ints, node, numbers

pytestmark = pytest.mark.build


def scaled(factor: float, **inputs: object) -> ModelProto:
    return graph_model([node("Mul", ["x", "k"], ["y"])], k=np.array(factor, np.float32), **inputs)  # type: ignore[arg-type]


def test_equal_models_are_equal() -> None:
    assert prove_same(scaled(2), scaled(2)) == 0


def test_rounding_is_no_difference_and_more_is() -> None:
    assert 0 < prove_same(scaled(1), scaled(1 + 1e-6)) < 1e-5
    with pytest.raises(BuildError, match=r"the optimised model differs: output y is off by 0\.001"):
        prove_same(scaled(1), scaled(1.001))


def test_another_shape_or_type_is_a_difference() -> None:
    with pytest.raises(BuildError, match=r"output y is float32\[2, 3, 6, 5\], expected float32\[1, 3, 6, 5\]"):
        prove_same(scaled(1), graph_model([node("Mul", ["x", "k"], ["y"])], k=numbers(2, 1, 1, 1)))


def test_whole_numbers_may_differ_by_ties_only() -> None:
    def labels(offset: int) -> ModelProto:
        nodes = [node("ArgMax", ["x"], ["a"], axis=1), node("Add", ["a", "offset"], ["y"])]
        return graph_model(nodes, outputs={"y": TensorProto.INT64}, offset=ints(offset))

    assert prove_same(labels(0), labels(0)) == 0
    with pytest.raises(BuildError, match="30 of 30 numbers of output y are others"):
        prove_same(labels(0), labels(1))


def test_what_is_never_a_number_proves_nothing() -> None:
    model = graph_model([node("Sub", ["x", "x"], ["zero"]), node("Div", ["zero", "zero"], ["y"])])
    with pytest.raises(BuildError, match="gives no finite numbers on random inputs, so nothing can be compared"):
        prove_same(model, model)


def test_open_axes_get_a_size_with_which_the_model_runs() -> None:
    model = graph_model([node("Reshape", ["x", "halves"], ["y"])], inputs={"x": ("N", "C")}, halves=ints(1, 2, 56, -1))
    assert {feed["x"].shape for feed in random_feeds(model)} == {(1, 224)}


def test_without_such_a_size_it_says_what_to_do() -> None:
    model = graph_model([node("Reshape", ["x", "odd"], ["y"])], inputs={"x": ("N", "C")}, odd=ints(17, -1))
    with pytest.raises(BuildError, match=r"open axes of x float32\[N,C\] .* fix them with --shape"):
        random_feeds(model)


def test_inputs_of_any_type_are_made_up() -> None:
    nodes = [
        node("Gather", ["table", "tokens"], ["a"]),
        node("Cast", ["picture"], ["b"], to=1),
        node("Where", ["mask", "a", "b"], ["y"]),
    ]
    model = graph_model(nodes, inputs={"picture": (4,), "tokens": (4,), "mask": (4,)}, table=numbers(9))
    kinds = (TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL)
    for value, kind in zip(model.graph.input, kinds, strict=True):
        value.type.tensor_type.elem_type = kind
    feeds = random_feeds(model)
    assert [feeds[0][name].dtype.name for name in ("picture", "tokens", "mask")] == ["uint8", "int64", "bool"]
    assert prove_same(model, model) == 0


def test_text_cannot_be_made_up() -> None:
    model = graph_model([node("Identity", ["x"], ["y"])])
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.STRING, [2]))
    with pytest.raises(BuildError, match="cannot make up numbers for the input x"):
        random_feeds(model)
