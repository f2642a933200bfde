"""Comparing: a planted fault is found where it was planted, nothing is found where there is none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import ModelProto, TensorProto, helper, numpy_helper

from build_models.errors import RecipeError
from build_models.graph.model_io import constant_of, rename_tensor
from build_models.look.compare import INT8_DB, SAME_DB, Comparison, compare_models
from build_models.look.samples import Preparation, samples_for
from build_models.progress import Progress
from tests.support.branching_model import SIDE, branching_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.build


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Two arrays of noise."""
    paths = [tmp_path / f"{seed}.npy" for seed in range(2)]
    for seed, path in enumerate(paths):
        np.save(path, np.random.default_rng(seed).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32))
    return [str(path) for path in paths]


def compare(first: ModelProto, second: ModelProto, inputs: list[str], group_bytes: int = 1 << 30) -> Comparison:
    samples = samples_for(first, inputs, Preparation()), samples_for(second, inputs, Preparation())
    return compare_models(first, second, samples, Progress(1, io.StringIO()), group_bytes=group_bytes)


def changed(name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> ModelProto:
    model = branching_model()
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    return model


def with_zero_points(wrong: int) -> ModelProto:
    """``r`` and ``b`` are quantised; the zero point of b's DequantizeLinear is off by ``wrong``."""
    model = branching_model()
    for name, value in {"scale": np.float32(0.02), "zero": np.uint8(128), "zero_b": np.uint8(128 + wrong)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    nodes = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in ("r", "b") and node.name in ("conv[1]", "skip"):
                node.input[index] = f"{name}_DequantizeLinear_Output"
        nodes.append(node)
        if node.name in ("relu", "conv[1]"):
            (name,) = node.output
            quantised, zero = f"{name}_QuantizeLinear_Output", "zero_b" if name == "b" else "zero"
            nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [quantised]))
            nodes.append(
                helper.make_node("DequantizeLinear", [quantised, "scale", zero], [f"{name}_DequantizeLinear_Output"])
            )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def test_a_model_is_equal_to_itself(inputs: list[str]) -> None:
    found = compare(branching_model(), branching_model(), inputs)
    assert found.equal
    assert found.below == found.parts == []
    assert set(found.outputs) == {"scores"}
    assert [each.tensor for each in found.signals] == ["a", "r", "b", "s", "chosen", "mean", "scores"]
    assert {each.signal_db for each in found.signals} == {200.0}


@pytest.mark.parametrize(("weight", "tensor"), [("w_a", "a"), ("w_b", "b")])
def test_a_changed_weight_is_found_at_its_convolution(weight: str, tensor: str, inputs: list[str]) -> None:
    def change(value: NDArray[np.float32]) -> NDArray[np.float32]:
        value = value.copy()
        value.flat[0] += 0.05
        return value

    found = compare(branching_model(), changed(weight, change), inputs)
    assert not found.equal
    part = found.parts[0]
    assert (part.tensor, part.op_type, part.inputs_db) == (tensor, "Conv", 200.0)
    assert 0 < part.signal_db < SAME_DB


def test_the_ratio_is_that_of_all_samples(inputs: list[str]) -> None:
    """The output of a convolution whose weights grew by a tenth is a tenth off: 20 dB."""
    found = compare(branching_model(), changed("w_b", lambda value: value * np.float32(1.1)), inputs)
    part = found.parts[0]
    assert part.signal_db == pytest.approx(20, abs=0.05)
    assert part.largest_difference == pytest.approx(part.largest / 10, rel=1e-4)
    assert found.samples == 2


def test_a_wrong_zero_point_is_found_and_a_right_one_is_none(inputs: list[str]) -> None:
    right = compare(branching_model(), with_zero_points(0), inputs)
    assert right.threshold_db == INT8_DB
    assert right.parts == []
    assert {each.tensor: each.second for each in right.signals}["b"] == "b_DequantizeLinear_Output"
    assert not right.equal
    wrong = compare(branching_model(), with_zero_points(60), inputs)
    assert [each.tensor for each in wrong.parts][:1] == ["b"]
    both = compare(with_zero_points(0), with_zero_points(60), inputs)
    assert both.threshold_db == SAME_DB
    assert (both.parts[0].tensor, both.parts[0].first) == ("b", "b_DequantizeLinear_Output")


def test_noise_that_only_grows_parts_nowhere(inputs: list[str]) -> None:
    found = compare(branching_model(), changed("w_a", lambda value: value * np.float32(1 + 1e-3)), inputs)
    assert [each.tensor for each in found.parts] == ["a"]
    assert all(each.inputs_db - each.signal_db < 6 for each in found.signals if each.tensor != "a")


def test_small_groups_give_the_same(inputs: list[str]) -> None:
    other = changed("w_b", lambda value: value * np.float32(1.1))
    assert compare(branching_model(), other, inputs, group_bytes=1) == compare(branching_model(), other, inputs)


def test_outputs_of_other_names_are_compared_by_place(inputs: list[str]) -> None:
    other = branching_model()
    for node in other.graph.node:
        for name in [*node.output]:
            rename_tensor(other, name, f"their_{name}")
    found = compare(branching_model(), other, inputs)
    assert [(each.first, each.second) for each in found.signals] == [("scores", "their_scores")]
    assert found.equal
    assert (found.only_first, found.only_second) == (6, 6)


def test_models_with_nothing_in_common_are_refused(inputs: list[str]) -> None:
    other = branching_model()
    for node in other.graph.node:
        for name in [*node.output]:
            rename_tensor(other, name, f"their_{name}")
    other.graph.output.add(name="their_mean")
    with pytest.raises(RecipeError, match=r"nothing to compare: the first gives scores float32\[1,4\]"):
        compare(branching_model(), other, inputs)


def test_another_shape_is_listed_and_not_compared(inputs: list[str]) -> None:
    other = changed("flat", lambda value: np.array([4, 1], value.dtype))
    del other.graph.output[0].type.tensor_type.shape.dim[:]
    other.graph.output[0].type.tensor_type.ClearField("shape")
    found = compare(branching_model(), other, inputs)
    assert found.unlike == ("scores",)
    assert "scores" not in {each.tensor for each in found.signals}


def test_what_is_not_finite_is_as_different_as_can_be(inputs: list[str]) -> None:
    broken = changed("w_b", lambda value: np.where(value == value.flat[0], np.nan, value).astype(np.float32))
    found = compare(branching_model(), broken, inputs)
    assert (found.parts[0].tensor, found.parts[0].signal_db) == ("b", -200.0)
    assert compare(broken, broken, inputs).equal


def test_behind_a_choice_nothing_is_a_fault(inputs: list[str]) -> None:
    def with_top(model: ModelProto) -> ModelProto:
        model.graph.initializer.append(numpy_helper.from_array(np.array([4], np.int64), "k"))
        model.graph.node.append(helper.make_node("TopK", ["scores", "k"], ["best", "places"]))
        model.graph.output.append(helper.make_tensor_value_info("places", TensorProto.INT64, [1, 4]))
        return model

    turned = with_top(changed("w_b", lambda value: -value))
    found = compare(with_top(branching_model()), turned, inputs)
    assert {each.tensor for each in found.signals if each.chosen} == {"best", "places"}
    assert found.parts[0].tensor == "b"
    assert not {each.tensor for each in found.below} & {"best", "places"}
    assert constant_of(turned, "k") is not None
