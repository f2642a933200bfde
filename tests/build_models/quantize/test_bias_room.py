"""A channel of next to no weights keeps its bias in int8."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.graph.model_io import constant_of, run_model
from build_models.quantize.bias_room import make_room_for_biases
from build_models.quantize.static import quantize_static

pytestmark = pytest.mark.build

RANGES = {"x": (0.0, 255.0), "y": (-20.0, 20.0)}


def network(dead_weight: float) -> onnx.ModelProto:
    """Two channels over the image's bytes: a usual one, and one that says its bias of -7 alone."""
    weight = np.stack([np.full((3, 1, 1), 0.01), np.full((3, 1, 1), dead_weight)]).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["x"], "nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 4, 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([0.5, -7.0], np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("dead_weight", [0.0, 1e-12, -1e-12])
def test_a_bias_without_weights_survives_int8(dead_weight: float) -> None:
    model = network(dead_weight)
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    quantised, _ = quantize_static(model, ["conv"], RANGES)
    expected, got = (run_model(each, {"image": image})["y"] for each in (model, quantised))
    np.testing.assert_allclose(got, expected, atol=40 / 255)


def test_the_raised_weight_moves_its_channel_by_next_to_nothing() -> None:
    model = network(1e-12)
    assert make_room_for_biases(model, ["conv"], RANGES, 127) == 1
    weight = constant_of(model, model.graph.node[2].input[1])
    assert weight is not None
    np.testing.assert_array_equal(weight[0], np.full((3, 1, 1), 0.01, np.float32))
    assert 255 * np.abs(weight[1]).sum() < 1e-4 * 7


def test_usual_weights_are_left_alone() -> None:
    model = network(0.02)
    before = model.SerializeToString()
    assert make_room_for_biases(model, ["conv"], RANGES, 127) == 0
    assert model.SerializeToString() == before


def test_nothing_is_cut_off_where_the_quantiser_would_say_so(caplog: pytest.LogCaptureFixture) -> None:
    """Figures of a published detector: weights of 4e-14 with a bias of 3e-8."""
    model = network(4e-14)
    for tensor in model.graph.initializer:
        if tensor.name == "b":
            tensor.CopyFrom(numpy_helper.from_array(np.array([0.5, 2.9e-8], np.float32), "b"))
    quantize_static(model, ["conv"], RANGES)
    assert not [record for record in caplog.records if "exceeds the range" in record.message]
