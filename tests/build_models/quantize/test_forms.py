"""What each form of a file leaves in float."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import helper

from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.quantize.forms import FORMS, PACKED, PLAIN, form_named
from build_models.recipe import InputRecipe
from tests.support.onnx_graphs import graph_model, numbers

pytestmark = pytest.mark.build

MEAN = InputRecipe(mean=[0.4, 0.5, 0.6], std=[0.25] * 3)


def network(*strides: int, side: int = 32, recipe: InputRecipe = MEAN) -> onnx.ModelProto:
    """A chain of padded convolutions with a Relu each, behind a mean; canonical."""
    nodes, tensor = [], "x"
    weights: dict[str, Any] = {"w1": numbers(4, 3, 3, 3), "w": numbers(4, 4, 3, 3)}
    for layer, stride in enumerate(strides, 1):
        name = f"conv{layer}"
        reads = [tensor, "w1" if layer == 1 else "w"]
        nodes.append(helper.make_node("Conv", reads, [f"c{layer}"], name=name, pads=[1] * 4, strides=[stride] * 2))
        tensor = "y" if layer == len(strides) else f"r{layer}"
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [tensor], name=f"relu{layer}"))
    native, _ = native_input(graph_model(nodes, inputs={"x": (1, 3, side, side)}, **weights), recipe)
    model, _ = make_portable(native, ["y"])
    return model


def in_float(form: str, model: onnx.ModelProto) -> set[str]:
    """Names of those layers, without what brings the picture in."""
    return {name for name in form_named(form).in_float(model) if not name.startswith("native")}


def test_forms_are_found_by_name() -> None:
    assert [form_named(each.name) for each in FORMS] == list(FORMS)
    assert FORMS[:2] == (PLAIN, PACKED)
    with pytest.raises(ValueError, match="not enough values"):
        form_named("round")


def test_the_plain_and_the_packed_form_leave_nothing() -> None:
    model = network(2, 1, 2)
    assert PLAIN.in_float(model) == PACKED.in_float(model) == frozenset()
    assert [each.packed_stem for each in FORMS] == [False, True, False, False]


def test_the_stem_is_the_mean_the_first_convolution_and_its_relu() -> None:
    model = network(2, 1, 2)
    left = form_named("stem in float").in_float(model)
    by_name = {node.name: node.op_type for node in model.graph.node}
    assert sorted(by_name[name] for name in left) == ["Conv", "Relu", "Sub"]
    assert in_float("stem in float", model) == {"conv1", "relu1"}


def test_a_stem_without_a_mean() -> None:
    assert form_named("stem in float").in_float(network(2, 1, 2, recipe=InputRecipe())) == {"conv1", "relu1"}


@pytest.mark.parametrize(
    ("strides", "left"),
    [
        ((2, 1, 2, 1), {"conv1", "relu1", "conv2", "relu2"}),
        ((1, 2, 2, 1), {"conv1", "relu1", "conv2", "relu2"}),
        ((4, 1), {"conv1", "relu1"}),  # the stem is coarse itself
    ],
)
def test_high_resolution_ends_with_the_first_coarser_map(strides: tuple[int, ...], left: set[str]) -> None:
    assert in_float("high resolution in float", network(*strides)) == left


@pytest.mark.parametrize("form", ["stem in float", "high resolution in float"])
def test_a_form_that_would_leave_everything_in_float_leaves_nothing(form: str) -> None:
    assert form_named(form).in_float(network(2)) == frozenset()
    assert in_float("high resolution in float", network(1, 1)) == set()
    assert in_float("stem in float", network(1, 1)) == {"conv1", "relu1"}
