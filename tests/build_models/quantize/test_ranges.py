"""Calibration ranges: the true least and greatest values, and no number that is none."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.quantize.ranges import collect_ranges

pytestmark = pytest.mark.build

SIDE = 50


def tapped_model(opset: int = 17) -> onnx.ModelProto:
    """Of the image's pixels x: 2 x - 1 ("double"), 1 / (x - 7) ("inverse") and (x - 7) / (x - 7) ("undefined")."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "two"], ["product"]),
        helper.make_node("Sub", ["product", "one"], ["double"]),
        helper.make_node("Sub", ["pixels", "seven"], ["zero_at_seven"]),
        helper.make_node("Div", ["zero_at_seven", "zero_at_seven"], ["undefined"]),
        helper.make_node("Div", ["one", "zero_at_seven"], ["inverse"]),
    ]
    shape = [1, SIDE, SIDE, 3]
    graph = helper.make_graph(
        nodes,
        "ranges",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("double", "undefined", "inverse")],
        [
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in (("one", 1), ("two", 2), ("seven", 7))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def picture(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    image.reshape(-1)[: len(values)] = values
    return image


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_a_range_spans_all_pictures(opset: int) -> None:
    ranges = collect_ranges(tapped_model(opset), ["double", "pixels"], iter([picture(90), picture(120, 110)]))
    assert ranges == {"double": (179.0, 239.0), "pixels": (90.0, 120.0)}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), max_size=5), min_size=1, max_size=4))
def test_a_range_is_that_of_all_values(pictures: list[list[int]]) -> None:
    images = [picture(*values) for values in pictures]
    (found,) = collect_ranges(tapped_model(), ["pixels"], images).values()
    assert found == (float(np.min(images)), float(np.max(images)))


@pytest.mark.parametrize("place", [0, 1, 4000, SIDE * SIDE * 3 - 1])
@pytest.mark.parametrize("tensor", ["undefined", "inverse"])
def test_a_value_that_is_no_number_is_found_wherever_it_is_and_its_tensor_named(tensor: str, place: int) -> None:
    image = picture()
    image.reshape(-1)[place] = 7
    with pytest.raises(BuildError, match=f"tensor {tensor} .* not finite"):
        collect_ranges(tapped_model(), ["double", tensor], [picture(), image])


def test_the_same_tensors_pass_where_they_are_numbers() -> None:
    assert collect_ranges(tapped_model(), ["undefined"], [picture()]) == {"undefined": (1.0, 1.0)}


def test_without_a_picture_there_is_no_range() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        collect_ranges(tapped_model(), ["double"], [])


def test_the_model_is_not_changed() -> None:
    model = tapped_model()
    collect_ranges(model, ["double"], [picture()])
    assert model == tapped_model()
