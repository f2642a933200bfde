"""Dynamic int8: matrix products only, official operators, and the report says what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import random_feed, run_model
from build_models.graph.portable import check_portable
from build_models.quantize.dynamic import multiplications, quantize_dynamic
from tests.build_models.quantize.test_static_subsets import network

pytestmark = pytest.mark.build

CLOSE = 0.05  # of the largest value; measured: 0.01


def attention(*, conv: bool = False) -> onnx.ModelProto:
    """One head of attention over 6 places, a Gemm behind it; perhaps a convolution in front."""
    rng = np.random.default_rng(7)
    constants: dict[str, Any] = {name: rng.standard_normal((16, 16)).astype(np.float32) / 4 for name in "qkvo"}
    constants |= {"b": rng.standard_normal(16).astype(np.float32), "shape": np.array([6, 16])}
    constants["w"] = rng.standard_normal((64, 1, 3)).astype(np.float32)
    constants["middle"] = np.array([0])
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}_x"], name=name) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["k_x"], ["k_t"], perm=[0, 2, 1], name="turn"),
        helper.make_node("MatMul", ["q_x", "k_t"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["share"], name="softmax"),
        helper.make_node("MatMul", ["share", "v_x"], ["mixed"], name="mixed"),
        helper.make_node("Reshape", ["mixed", "shape"], ["flat"], name="reshape"),
        helper.make_node("Gemm", ["flat", "o", "b"], ["y"], name="gemm", transB=1),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 16])]
    if conv:
        nodes.append(helper.make_node("Unsqueeze", ["y", "middle"], ["y3"], name="unsqueeze"))
        nodes.append(helper.make_node("Transpose", ["y3"], ["rows"], perm=[1, 0, 2], name="rows"))
        nodes.append(helper.make_node("Conv", ["rows", "w"], ["z"], name="conv"))
        outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [6, 64, 14])]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 16])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_products_with_constant_weights_become_int8_and_stay_close() -> None:
    model = attention()
    result, told = quantize_dynamic(model)
    check_portable(result)
    assert told["nodes"] == ["q", "k", "v", "gemm"]
    assert {each["node"]: each["reason"] for each in told["left"]} == dict.fromkeys(
        ("scores", "mixed"), "both factors are computed"
    )
    assert [node.op_type for node in result.graph.node].count("MatMulInteger") == 4
    for seed in range(4):
        feed = random_feed(model, seed)
        exact, rough = (run_model(each, feed)["y"] for each in (model, result))
        assert np.abs(exact - rough).max() < CLOSE * np.abs(exact).max()
        assert not np.array_equal(exact, rough)


def test_the_share_and_the_advice_follow_the_multiplications() -> None:
    assert multiplications(attention(conv=True)) == {
        **dict.fromkeys("qkv", 6 * 16 * 16),
        **dict.fromkeys(("scores", "mixed"), 6 * 6 * 16),
        "gemm": 6 * 16 * 16,
        "conv": 6 * 64 * 14 * 3,
    }
    _, told = quantize_dynamic(attention())
    assert told["multiplications_share"] == pytest.approx(4 * 1536 / (4 * 1536 + 2 * 576), abs=1e-4)
    assert told["advice"] is None
    _, told = quantize_dynamic(attention(conv=True))
    assert told["multiplications_share"] < 0.5
    assert "static quantisation does more, it needs calibration pictures" in told["advice"]


def test_a_convolution_is_left_in_float_with_the_reason() -> None:
    result, told = quantize_dynamic(attention(conv=True))
    assert {each["node"]: each["reason"] for each in told["left"]}["conv"] == "no fast kernel for a dynamic range"
    kinds = {node.op_type for node in result.graph.node}
    assert "Conv" in kinds
    assert "ConvInteger" not in kinds


def test_only_wanted_nodes_are_quantised() -> None:
    result, told = quantize_dynamic(attention(), ["q", "gemm"])
    assert told["nodes"] == ["q", "gemm"]
    assert [node.op_type for node in result.graph.node].count("MatMulInteger") == 2


def test_reduced_weights_have_7_bits() -> None:
    for reduce_range, greatest in ((False, 127), (True, 64)):
        result, _ = quantize_dynamic(attention(), reduce_range=reduce_range)
        stored = [
            numpy_helper.to_array(each) for each in result.graph.initializer if each.data_type == TensorProto.INT8
        ]
        assert max(np.abs(each.astype(int)).max() for each in stored) == greatest


def test_a_gemm_that_scales_is_left() -> None:
    model = attention()
    next(node for node in model.graph.node if node.name == "gemm").attribute.append(helper.make_attribute("alpha", 0.5))
    _, told = quantize_dynamic(model)
    assert told["left"][-1] == {"node": "gemm", "op_type": "Gemm", "reason": "it scales or transposes its input"}


def test_a_model_without_matrix_products_is_refused_with_the_way_out() -> None:
    with pytest.raises(BuildError, match="use static quantisation, which needs calibration pictures"):
        quantize_dynamic(network()[0])


def test_the_given_model_is_not_changed_and_nothing_is_said_on_standard_error(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = attention()
    before = model.SerializeToString(deterministic=True)
    quantize_dynamic(model)
    assert model.SerializeToString(deterministic=True) == before
    assert capfd.readouterr().err == ""
    assert caplog.text == ""
