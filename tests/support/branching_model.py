"""A small float graph with a skip connection, a Constant node and an If: what looking inside has to get right."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIDE = 8


def branching_model() -> ModelProto:
    """``image`` [1,3,8,8] -> conv ``a`` -> relu ``r`` -> conv ``b``; ``r + b`` -> If -> mean -> ``scores`` [1,4]."""
    rng = np.random.default_rng(11)
    constants = {
        "w_a": rng.standard_normal((4, 3, 3, 3)).astype(np.float32) / 5,
        "w_b": rng.standard_normal((4, 4, 1, 1)).astype(np.float32) / 2,
        "flat": np.array([1, 4], np.int64),
        "always": np.array([True]),
    }
    then = helper.make_graph(
        [helper.make_node("Mul", ["s", "two"], ["doubled"])],
        "then",
        [],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["r"], ["negated"])],
        "other",
        [],
        [helper.make_tensor_value_info("negated", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["two"], name="two", value=numpy_helper.from_array(np.array(2, np.float32))),
        helper.make_node("Conv", ["image", "w_a"], ["a"], name="conv[0]", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w_b"], ["b"], name="conv[1]"),
        helper.make_node("Add", ["r", "b"], ["s"], name="skip"),
        helper.make_node("If", ["always"], ["chosen"], name="if", then_branch=then, else_branch=other),
        helper.make_node("GlobalAveragePool", ["chosen"], ["mean"], name="mean"),
        helper.make_node("Reshape", ["mean", "flat"], ["scores"], name="reshape"),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
