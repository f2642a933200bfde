"""Weights of 7 bits: x86 without VNNI adds two products of a byte in 16 bits, which 8-bit weights overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import TensorProto, helper, numpy_helper

from build_models.graph.native_input import native_input
from build_models.graph.portable import make_portable
from build_models.quantize.static import fusible_nodes, quantize_static
from build_models.recipe import InputRecipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.build

INT16 = np.iinfo(np.int16)


def vpmaddubsw(values: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """The instruction: neighbours of uint8 times int8 are added in 16 bits, with saturation."""
    products = values.astype(np.int32) * weights.astype(np.int32)
    sums: NDArray[np.int32] = np.clip(products[..., 0::2] + products[..., 1::2], INT16.min, INT16.max)
    return sums


def stored_weights(*, reduce_range: bool) -> NDArray[np.int8]:
    """int8 weights of a convolution whose neighbours are all as large as they can be."""
    weights = np.where(np.random.default_rng(5).random((8, 3, 4, 4)) < 0.5, -1.0, 1.0).astype(np.float32)
    weights[0], weights[1] = 1, -1
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "extreme",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 5, 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model, _ = make_portable(native_input(source, InputRecipe())[0], ["y"])
    result, _ = quantize_static(model, fusible_nodes(model, ["y"]), {"y": (-48.0, 48.0)}, reduce_range=reduce_range)
    (stored,) = (
        numpy_helper.to_array(tensor)
        for tensor in result.graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4
    )
    return stored.transpose(0, 2, 3, 1).reshape(8, -1)  # channels last, as the kernel reads them


def test_a_white_picture_overflows_full_weights_and_not_reduced_ones() -> None:
    white = np.full(48, 255, np.uint8)
    for reduce_range, exact in ((False, False), (True, True)):
        weights = stored_weights(reduce_range=reduce_range)
        wanted = (white.astype(np.int64) * weights).sum(axis=1)
        got = vpmaddubsw(white, weights).sum(axis=1)
        assert np.array_equal(wanted, got) == exact


def test_no_picture_at_all_can_overflow_reduced_weights() -> None:
    weights = stored_weights(reduce_range=True).astype(int)
    assert np.abs(weights).max() == 64
    assert 255 * 2 * 64 <= INT16.max < 255 * 2 * 127
    assert np.abs(stored_weights(reduce_range=False).astype(int)).max() == 127
