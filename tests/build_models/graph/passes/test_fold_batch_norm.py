"""Batch normalisation with constant statistics disappears in the layer before it, or becomes a product and a sum."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import ModelProto, NodeProto

from build_models.graph.passes.fold_batch_norm import fold_batch_norm
from tests.support.onnx_graphs import graph_model, node, numbers, ops, rewritten

pytestmark = pytest.mark.build

STATISTICS = ["gamma", "beta", "mean", "var"]
NORM = node("BatchNormalization", ["c", *STATISTICS], ["y"], epsilon=1e-3)


def with_statistics(nodes: list[NodeProto], channels: int, opset: int = 17, **more: object) -> ModelProto:
    values = {name: numbers(channels, seed=index) for index, name in enumerate(STATISTICS)}
    values["var"] = np.abs(values["var"])
    return graph_model(nodes, opset=opset, **{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("opset", [9, 13, 17])
def test_it_goes_into_the_convolution_before_it(biased: bool, groups: int, opset: int) -> None:
    conv = node("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["c"], pads=[1] * 4, group=groups)
    model = with_statistics([conv, NORM], 6, opset, w=numbers(6, 3 // groups, 3, 3), b=numbers(6))
    result, count = rewritten(fold_batch_norm, model)
    assert (ops(result), count) == (["Conv"], 1)


@pytest.mark.parametrize("groups", [1, 2])
def test_and_into_a_transposed_one(groups: int) -> None:
    conv = node("ConvTranspose", ["x", "w"], ["c"], group=groups)
    model = with_statistics([conv, NORM], 6, inputs={"x": (1, 4, 3, 3)}, w=numbers(4, 6 // groups, 3, 3))
    assert ops(rewritten(fold_batch_norm, model)[0]) == ["ConvTranspose"]


def test_and_into_a_gemm() -> None:
    gemm = node("Gemm", ["x", "w"], ["c"])
    model = with_statistics([gemm, NORM], 5, inputs={"x": (2, 3)}, w=numbers(3, 5))
    assert ops(rewritten(fold_batch_norm, model)[0]) == ["Gemm"]


def test_two_may_share_their_statistics() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", *STATISTICS], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("Conv", ["r", "w2"], ["d"]),
        node("BatchNormalization", ["d", *STATISTICS], ["y"]),
    ]
    model = with_statistics(nodes, 4, w=numbers(4, 3, 3, 3), w2=numbers(4, 4, 3, 3))
    result, count = rewritten(fold_batch_norm, model)
    assert (ops(result), count) == (["Conv", "Relu", "Conv"], 2)


@pytest.mark.parametrize("before", [[node("Relu", ["x"], ["c"])], [node("Conv", ["x", "w"], ["c"])]])
def test_alone_it_becomes_a_product_and_a_sum(before: list[NodeProto]) -> None:
    """Also behind a convolution whose own result is wanted."""
    model = with_statistics([*before, NORM], 3, outputs={"y": 1, "c": 1}, w=numbers(3, 3, 1, 1))
    result, count = rewritten(fold_batch_norm, model)
    assert (ops(result)[1:], count) == (["Mul", "Add"], 1)


def test_training_keeps_it() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", *STATISTICS], ["y", "m", "v"], training_mode=1),
    ]
    model = with_statistics(nodes, 4, outputs={"y": 1, "m": 1}, w=numbers(4, 3, 3, 3))
    copy = ModelProto()
    copy.CopyFrom(model)
    result, count = fold_batch_norm(copy)  # it does not run on the CPU as written
    assert count == 0
    assert result == model


def test_computed_statistics_keep_it() -> None:
    model = with_statistics([node("Conv", ["x", "w"], ["c"]), NORM], 4, w=numbers(4, 3, 3, 3))
    model.graph.input.add().CopyFrom(graph_model([], inputs={"beta": (4,)}).graph.input[0])
    assert rewritten(fold_batch_norm, model)[1] == 0


def test_a_negative_variance_is_the_runtimes_to_judge() -> None:
    model = with_statistics([node("Conv", ["x", "w"], ["c"]), NORM], 4, w=numbers(4, 3, 3, 3))
    before = {tensor.name: tensor for tensor in model.graph.initializer}
    before["var"].CopyFrom(graph_model([], var=-np.ones(4, np.float32)).graph.initializer[0])
    assert fold_batch_norm(model)[1] == 0
