"""Float16 inside: close to float32, and what float16 cannot hold stays float32 and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.canonical_output import canonical_output
from build_models.graph.model_io import run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import check_portable, make_portable, strip
from build_models.quantize.float16 import convert_float16
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import quantisable_tensors
from build_models.recipe import InputRecipe
from build_models.source.families.anchor_free import AnchorFree
from tests.build_models.quantize.test_static_subsets import PICTURES, RAW, network
from tests.support.float_models import LABELS, MEAN, SIDE, STD, spot_detector, spot_picture

pytestmark = pytest.mark.build

CLOSE = 0.005  # of the largest value; measured: 0.001


def convert(**changed: tuple[float, float]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    model, ranges = network()
    result, told = convert_float16(model, RAW, {**ranges, **changed})
    result = strip(result)
    check_portable(result)
    return result, told


def reasons(told: dict[str, Any]) -> dict[str, str]:
    return {each["node"]: each["reason"] for each in told["kept_float"]}


def types(model: onnx.ModelProto) -> dict[str, int]:
    values = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in [*values.value_info, *values.output]}


def with_constant(name: str, values: np.ndarray[Any, Any]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(network()[0])
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def test_the_result_is_close_to_float32() -> None:
    result, told = convert()
    assert told["float16_nodes"] > 15
    for picture in PICTURES:
        exact, rough = (run_model(each, {"image": picture[None]}, optimise=True) for each in (network()[0], result))
        for name, value in exact.items():
            assert rough[name].dtype == np.float32
            assert np.abs(value - rough[name]).max() < CLOSE * np.abs(value).max()
            assert not np.array_equal(value, rough[name])  # the control: something happened


def test_inputs_and_outputs_keep_their_types_and_weights_halve() -> None:
    result, _ = convert()
    model = network()[0]
    assert list(result.graph.input) == list(model.graph.input)
    assert {value.name: value.type.tensor_type.elem_type for value in result.graph.output} == dict.fromkeys(RAW, 1)
    stored = {tensor.name: tensor.data_type for tensor in result.graph.initializer if len(tensor.dims) == 4}
    assert set(stored.values()) == {TensorProto.FLOAT16}


def test_bytes_become_float16_at_once() -> None:
    result, _ = convert()
    (cast,) = (node for node in result.graph.node if "image" in node.input)
    assert cast.op_type == "Cast"
    assert types(result)[cast.output[0]] == TensorProto.FLOAT16


def test_a_sensitive_operator_stays_float32_between_two_casts() -> None:
    result, told = convert()
    assert reasons(told) == {"strange": "a small error of its input becomes a large one"}
    (node,) = (node for node in result.graph.node if node.op_type == "Exp")
    known = types(result)
    assert known[node.input[0]] == known[node.output[0]] == TensorProto.FLOAT


def test_values_near_the_end_of_the_range_stay_float32() -> None:
    _, told = convert(cat=(-20_000.0, 5.0))
    assert reasons(told)["cat"] == reasons(told)["mixed"] == "its values reach 2e+04, float16 ends at 65504"
    _, told = convert(cat=(-10_000.0, 5.0))
    assert set(reasons(told)) == {"strange"}


def test_float32_neighbours_pass_float32_on() -> None:
    """A cast to float16 between them would bring the overflow back."""
    result, _ = convert(mixed=(-1e6, 1e6))
    known = types(result)
    assert known["mixed"] == known["odd"] == TensorProto.FLOAT
    casts = [node.input[0] for node in result.graph.node if node.op_type == "Cast"]
    assert "mixed" not in casts


def test_a_weight_beyond_float16_keeps_its_node_float32() -> None:
    weights = np.ones((4, 8, 1, 1))
    weights[0, 0] = 1e5
    _, told = convert_float16(with_constant("head", weights), RAW, network()[1])
    assert reasons(told)["boxes"] == "a constant reaches 1e+05, float16 ends at 65504"


def test_a_channel_that_would_vanish_keeps_its_node_float32_and_a_dead_one_does_not() -> None:
    weights = np.full((4, 8, 1, 1), 1e-3)
    weights[1] = 1e-6
    _, told = convert_float16(with_constant("head", weights), RAW, network()[1])
    assert reasons(told)["boxes"] == "constants down to 1e-06 vanish in float16"
    weights[1] = 1e-12
    _, told = convert_float16(with_constant("head", weights), RAW, network()[1])
    assert "boxes" not in reasons(told)


def test_an_infinite_bound_stays_infinite_and_a_huge_one_becomes_the_end() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "", "high"], ["a"], name="a"),
        helper.make_node("Max", ["a", "low"], ["y"], name="y"),
    ]
    bounds = {"high": np.float32(np.inf), "low": np.full(1, -np.inf, np.float32)}
    graph = helper.make_graph(
        nodes,
        "bounds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in bounds.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result, told = convert_float16(model, ["y"], dict.fromkeys(("x", "a", "y"), (-2.0, 2.0)))
    assert told["kept_float"] == []
    values = np.array([-2, 1.5], np.float32)
    assert np.array_equal(run_model(result, {"x": values})["y"], values)


def test_decoding_stays_float32() -> None:
    native, _ = native_input(spot_detector(), InputRecipe(mean=MEAN, std=STD))
    canonical, head = canonical_output(native, AnchorFree(family="anchor_free"), (SIDE, SIDE), LABELS)
    raw = list(head.raw_tensors.values())
    model, _ = make_portable(canonical, raw)
    pictures = [spot_picture(seed) for seed in range(4)]
    result, told = convert_float16(model, raw, collect_ranges(model, quantisable_tensors(model, raw), pictures))
    check_portable(strip(result))
    kept = {each["op_type"]: each["reason"] for each in told["kept_float"]}
    assert {"TopK", "Exp", "Sigmoid", "Add"} <= set(kept)
    assert set(kept.values()) == {"decoding: a coordinate needs more than the 11 bits of float16"}
    known = types(result)
    for picture in pictures:
        exact, rough = (run_model(each, {"image": picture[None]}) for each in (model, result))
        seen = exact["scores"][0] > 0.3
        assert seen.any()
        assert np.abs(exact["scores"][0] - rough["scores"][0]).max() < 0.01
        assert np.abs(exact["boxes"][0, seen] - rough["boxes"][0, seen]).max() < 0.1
    assert known["boxes"] == TensorProto.FLOAT


def test_a_missing_range_is_told_by_name() -> None:
    model, ranges = network()
    with pytest.raises(BuildError, match="expected a range of the tensor mixed, found none"):
        convert_float16(model, RAW, {name: value for name, value in ranges.items() if name != "mixed"})


def test_nothing_left_to_convert_is_refused() -> None:
    with pytest.raises(BuildError, match="expected a node that float16 suits, found none"):
        convert_float16(network()[0], [], {})
