"""Where the channels lie, told by the operators around a tensor."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from onnx import TensorProto, helper

from build_models.look.layouts import FIRST, LAST, channel_axes
from tests.support.branching_model import branching_model

pytestmark = pytest.mark.build


def test_what_only_computes_leaves_the_channels_where_they_were() -> None:
    axes = channel_axes(branching_model())
    assert {name: axes[name] for name in ("image", "a", "r", "s")} == dict.fromkeys(["image", "a", "r", "s"], FIRST)
    assert "scores" not in axes


def test_a_transpose_moves_them() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("Transpose", ["relu"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "w"], ["conv"]),
        helper.make_node("Transpose", ["conv"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["last"], ["odd"], perm=[3, 2, 1, 0]),
        helper.make_node("Softmax", ["last"], ["soft"]),
        helper.make_node("Reshape", ["soft", "shape"], ["flat"]),
        helper.make_node("QLinearAveragePool", ["first"], ["pooled"], domain="com.microsoft", channels_last=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 8, 3])
    axes = channel_axes(helper.make_model(helper.make_graph(nodes, "g", [x], [])))
    assert axes == {
        "x": LAST,
        "relu": LAST,
        "first": FIRST,
        "conv": FIRST,
        "last": LAST,
        "soft": LAST,
        "pooled": LAST,
    }
