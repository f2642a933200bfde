from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError, RecipeError
from build_models.graph.fix_shape import fix_shape
from build_models.graph.model_io import describe, inputs_of, outputs_of, run_model

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.build

INT64 = np.int64


def model_of(
    nodes: Sequence[onnx.NodeProto], input_shape: Sequence[int | str], constants: dict[str, list[int]] | None = None
) -> onnx.ModelProto:
    """Input ``x`` to output ``y``, whose shape nobody has inferred yet."""
    graph = helper.make_graph(
        nodes,
        "source",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "anything"])],
        [numpy_helper.from_array(np.array(value, INT64), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


FLATTEN = [helper.make_node("Flatten", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("shape", "size_hw", "expected"),
    [
        (["N", 3, 8, 10], None, "x float32[1,3,8,10]"),  # only the batch is open
        (["N", 3, "h", "w"], (8, 10), "x float32[1,3,8,10]"),
        (["N", "c", "h", "w"], (8, 10), "x float32[1,3,8,10]"),
        ([1, 3, 8, 10], (8, 10), "x float32[1,3,8,10]"),  # the recipe repeats what the model says
    ],
)
def test_open_sides_become_the_recipes(shape: list[int | str], size_hw: tuple[int, int] | None, expected: str) -> None:
    fixed, report = fix_shape(model_of(FLATTEN, shape), "nchw", size_hw)

    assert describe(inputs_of(fixed)) == report.after == expected
    assert describe(outputs_of(fixed)) == "y float32[1,240]"


def test_shapes_that_the_graph_computes_are_folded() -> None:
    """The way old exporters flatten: take the batch from Shape, join it with -1, reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    fixed, _ = fix_shape(model_of(nodes, ["N", 3, "h", "w"], {"first": [0], "rest": [-1]}), "nchw", (4, 4))
    picture = np.random.default_rng(0).random((1, 3, 4, 4), dtype=np.float32)

    assert describe(outputs_of(fixed)) == "y float32[1,48]"
    np.testing.assert_array_equal(run_model(fixed, {"x": picture})["y"], picture.reshape(1, 48))


@pytest.mark.parametrize(
    ("shape", "layout", "size_hw", "message"),
    [
        (["N", 3, "h", "w"], "nchw", None, "takes any size.*set input.height and input.width"),
        ([1, 3, 8, 8], "nchw", (8, 10), "expected an input of 1x3x8x10 .nchw., found x float32.1,3,8,8."),
        ([1, 3, 8, 8], "nhwc", None, "expected an input of 1x.x.x3 .nhwc."),
        ([4, 3, 8, 8], "nchw", None, "expected an input of 1x3x"),  # a baked batch
        ([1, 3, 64], "nchw", None, "expected an input of four axes"),
    ],
)
def test_an_input_that_contradicts_the_recipe_is_refused(
    shape: list[int | str], layout: str, size_hw: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        fix_shape(model_of(FLATTEN, shape), layout, size_hw)  # type: ignore[arg-type] # one of the two


def test_a_model_with_two_inputs_is_refused() -> None:
    model = model_of([helper.make_node("Add", ["x", "sizes"], ["y"])], [1, 3, 8, 8])
    model.graph.input.append(helper.make_tensor_value_info("sizes", TensorProto.FLOAT, [1]))

    with pytest.raises(RecipeError, match=r"one input, a picture, found 2: x .*, sizes"):
        fix_shape(model, "nchw", None)


def test_a_model_whose_output_size_depends_on_the_picture_is_refused() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["found"]), helper.make_node("Cast", ["found"], ["y"], to=1)]

    with pytest.raises(BuildError, match="expected outputs of fixed shape, found y"):
        fix_shape(model_of(nodes, ["N", 3, 8, 8]), "nchw", None)


def test_contradicting_shapes_are_told_in_one_line() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Add", ["shape", "five numbers"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]

    with pytest.raises(BuildError, match="contradict each other at this input size") as caught:
        fix_shape(model_of(nodes, ["N", 3, "h", "w"], {"five numbers": [1, 2, 3, 4, 5]}), "nchw", (8, 8))
    assert "\n" not in str(caught.value)
