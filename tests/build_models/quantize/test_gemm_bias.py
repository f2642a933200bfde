"""A Gemm whose bias is broadcast runs in int8 as any other."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import TensorProto, helper, numpy_helper

from build_models.graph.model_io import run_model
from build_models.quantize.static import quantize_static

pytestmark = pytest.mark.build


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1,)])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_bias_of_any_shape_is_added(shape: tuple[int, ...], transposed: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.01, (12, 4)).astype(np.float32)
    bias = rng.normal(0, 5, shape).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["x"], "flat"),
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], "gemm", transB=transposed),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 2, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(weight.T.copy() if transposed else weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    quantised, told = quantize_static(model, ["flat", "gemm"], {"f": (0, 255), "x": (0, 255), "y": (-20, 20)})
    assert "gemm" in told["nodes"]
    image = rng.integers(0, 256, (1, 2, 2, 3), np.uint8)
    expected, got = (run_model(each, {"image": image})["y"] for each in (model, quantised))
    np.testing.assert_allclose(got, expected, atol=2 * 40 / 255)
    assert np.abs(bias).max() > 2 * 40 / 255, "without its bias the result would be another"
