"""Small ONNX graphs from lists of nodes, and the proof that a rewritten one computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, shape_inference

from build_models.graph.model_io import inputs_of, run_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import NodeProto

    Pass = Callable[[ModelProto], tuple[ModelProto, int]]

node = helper.make_node
PICTURE = (1, 3, 6, 5)


def graph_model(
    nodes: Sequence[NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]] | None = None,
    outputs: Mapping[str, int] | None = None,
    opset: int = 17,
    **constants: NDArray[Any],
) -> ModelProto:
    """A model of float32 inputs.

    Args:
        nodes: in order.
        inputs: name to shape; by default "x", a picture.
        outputs: name to data type; by default "y", float32.
        opset: of the official operators.
        constants: initialisers by name.
    """
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
            for name, shape in (inputs or {"x": PICTURE}).items()
        ],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in (outputs or {"y": 1}).items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return shape_inference.infer_shapes(model)  # the checker wants to know the outputs' shapes


def ops(model: ModelProto) -> list[str]:
    """Operators in graph order."""
    return [each.op_type for each in model.graph.node]


def rewritten(apply: Pass, model: ModelProto, sizes: Mapping[str, int] | None = None) -> tuple[ModelProto, int]:
    """What a pass makes of a copy, after proving that it is well formed and computes the same."""
    copy = ModelProto()
    copy.CopyFrom(model)
    result, count = apply(copy)
    assert_same(model, result, sizes)
    return result, count


def assert_same(before: ModelProto, after: ModelProto, sizes: Mapping[str, int] | None = None) -> None:
    """Same outputs on random inputs, within 1e-5 of the largest value, with ONNX Runtime's own optimisations off."""
    checker.check_model(after, full_check=True)
    for seed in range(2):
        feed = feed_of(before, seed, sizes)
        expected, got = run_model(before, feed), run_model(after, feed)
        assert list(expected) == list(got)
        for name, want in expected.items():
            assert got[name].dtype == want.dtype
            assert got[name].shape == want.shape
            largest = float(np.abs(want).max()) if want.size else 0.0
            np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5 * largest, err_msg=name)


def feed_of(model: ModelProto, seed: int, sizes: Mapping[str, int] | None = None) -> dict[str, NDArray[np.float32]]:
    """Normal-distributed inputs; open axes are as large as ``sizes`` says of their symbol."""
    rng = np.random.default_rng(seed)
    known = sizes or {}
    return {
        info.name: rng.standard_normal(
            [side if isinstance(side, int) else known[side] for side in info.shape], dtype=np.float32
        )
        for info in inputs_of(model)
    }


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Constants between 0.5 and 1.5, half of them negative: their products and quotients stay moderate."""
    rng = np.random.default_rng((seed, *shape))
    values = (rng.random(shape) + 0.5) * rng.choice([-1, 1], shape)
    return np.asarray(values, np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    """A constant of int64."""
    return np.array(values, np.int64)
