"""Graphs made up at random of what the graph passes look for and what only looks like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference

from build_models.graph.model_io import run_model
from tests.support.onnx_graphs import feed_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    Shape = tuple[int, ...]

_VALUES = [0.0, 1.0, -1.0, 0.5, 1.5, -0.75, 1.25]
_MOST_NODES = 14
_MOST_ELEMENTS = 600


class _Draft:
    """A graph while it grows: float tensors with their shapes, constants that later nodes may share."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.shapes: dict[str, Shape] = {}

    def pick(self, fits: Callable[[Shape], bool] = lambda _: True) -> str | None:
        """An earlier tensor, the latest most often, so that chains arise."""
        names = [name for name, shape in self.shapes.items() if fits(shape)]
        if not names:
            return None
        return names[-1] if self.draw(st.integers(0, 2)) else self.draw(st.sampled_from(names))

    def constant(self, shape: Shape, values: list[float] | None = None) -> str:
        """A constant of that shape: one that is there already, all of one value, or different numbers."""
        same = [name for name, value in self.constants.items() if value.shape == shape and value.dtype == np.float32]
        if same and values is None and self.draw(st.booleans()):
            return self.draw(st.sampled_from(same))
        if values is None and self.draw(st.booleans()):
            rng = np.random.default_rng(self.draw(st.integers(0, 5)))
            value = (rng.random(shape) + 0.5) * rng.choice([-1, 1], shape)
        else:
            value = np.full(shape, self.draw(st.sampled_from(values or _VALUES)))
        return self.add(value.astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.add(np.array(values, np.int64))

    def add(self, value: NDArray[Any]) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def node(self, op_type: str, *inputs: str, shape: Shape, more: int = 0, **attributes: Any) -> str:
        outputs = [f"t{len(self.nodes)}", *(f"t{len(self.nodes)}_{index}" for index in range(more))]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=f"n{len(self.nodes)}", **attributes))
        self.shapes.update(dict.fromkeys(outputs, shape))
        return outputs[0]


def _activation(draft: _Draft) -> None:
    tensor = draft.pick()
    assert tensor is not None
    op_type = draft.draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Neg", "Identity", "Dropout", "Abs"]))
    draft.node(op_type, tensor, shape=draft.shapes[tensor])


def _affine(draft: _Draft) -> None:
    tensor = draft.pick()
    assert tensor is not None
    shape = draft.shapes[tensor]
    op_type = draft.draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    # Of full rank, per channel, scalar, or of one axis more than the tensor.
    kinds: list[Shape] = [(), (1,), shape, (1, *shape)]
    if len(shape) == 4:
        kinds += [(shape[1], 1, 1), (1, shape[1], 1, 1), (shape[1], 1, 1)]
    other = draft.draw(st.sampled_from(kinds))
    result = tuple(int(side) for side in np.broadcast_shapes(shape, other))
    turned = op_type != "Div" and draft.draw(st.booleans())
    constant = draft.constant(other, [1.0, 0.5, -2.0] if op_type == "Div" else None)
    draft.node(op_type, *([constant, tensor] if turned else [tensor, constant]), shape=result)


def _together(draft: _Draft) -> None:
    first = draft.pick()
    assert first is not None
    second = draft.pick(lambda shape: shape == draft.shapes[first])
    assert second is not None
    op_type = draft.draw(st.sampled_from(["Add", "Mul", "Max", "Sub"]))
    draft.node(op_type, first, second, shape=draft.shapes[first])


def _conv(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) == 4 and min(shape[2:]) >= 3)
    if tensor is None:
        return
    batch, channels, height, width = draft.shapes[tensor]
    side, pad = draft.draw(st.sampled_from([(1, 0), (3, 0), (3, 1)]))
    grouped = draft.draw(st.booleans())
    transposed = draft.draw(st.integers(0, 3)) == 0
    groups, outputs = (channels, channels) if grouped else (1, draft.draw(st.integers(1, 4)))
    weights = (channels, outputs // groups, side, side) if transposed else (outputs, channels // groups, side, side)
    inputs = [tensor, draft.constant(weights, None)]
    if draft.draw(st.booleans()):
        inputs.append(draft.constant((outputs,)))
    grown = side - 1 - 2 * pad if transposed else 2 * pad + 1 - side
    draft.node(
        "ConvTranspose" if transposed else "Conv",
        *inputs,
        shape=(batch, outputs, height + grown, width + grown),
        group=groups,
        pads=[pad] * 4,
    )


def _batch_norm(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) == 4)
    if tensor is None:
        return
    channels = draft.shapes[tensor][1]
    statistics = [draft.constant((channels,)) for _ in range(3)]
    variance = draft.constant((channels,), [1.0, 0.5])
    draft.node("BatchNormalization", tensor, *statistics, variance, shape=draft.shapes[tensor])


def _pad(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) == 4)
    if tensor is None:
        return
    batch, channels, height, width = draft.shapes[tensor]
    pad = draft.draw(st.integers(0, 1))
    inputs = [tensor, draft.ints(0, 0, pad, pad, 0, 0, pad, pad)]
    if draft.draw(st.booleans()):
        inputs.append(draft.constant((), [0.0, 0.0, 1.0]))
    draft.node("Pad", *inputs, shape=(batch, channels, height + 2 * pad, width + 2 * pad))


def _pool(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) == 4 and min(shape[2:]) >= 2)
    if tensor is None:
        return
    batch, channels, height, width = draft.shapes[tensor]
    op_type = draft.draw(st.sampled_from(["AveragePool", "MaxPool"]))
    draft.node(op_type, tensor, shape=(batch, channels, height - 1, width - 1), kernel_shape=[2, 2])


def _move(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) == 4)
    if tensor is None:
        return
    shape = draft.shapes[tensor]
    perm = draft.draw(st.sampled_from([(0, 2, 3, 1), (0, 3, 1, 2), (0, 1, 3, 2), (0, 1, 2, 3), (0, 2, 1, 3)]))
    draft.node("Transpose", tensor, shape=tuple(shape[axis] for axis in perm), perm=perm)


def _reshape(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) > 0)
    if tensor is None:
        return
    shape = draft.shapes[tensor]
    size = int(np.prod(shape))
    kind = draft.draw(st.sampled_from(["flatten", "flat", "same", "computed"]))
    if kind == "flatten":
        draft.node("Flatten", tensor, shape=(shape[0], size // shape[0]))
    elif kind == "flat":
        draft.node("Reshape", tensor, draft.ints(1, -1), shape=(1, size))
    elif kind == "same":
        draft.node("Reshape", tensor, draft.ints(*shape), shape=shape)
    else:  # as exporters write it
        known = draft.node("Shape", tensor, shape=(len(shape),))
        first = draft.node("Slice", known, draft.ints(0), draft.ints(1), shape=(1,))
        target = draft.node("Concat", first, draft.ints(-1), shape=(2,), axis=0)
        for name in (known, first, target):
            del draft.shapes[name]  # no floats
        draft.node("Reshape", tensor, target, shape=(shape[0], size // shape[0]))


def _join(draft: _Draft) -> None:
    first = draft.pick(lambda shape: len(shape) > 1 and int(np.prod(shape)) * 2 <= _MOST_ELEMENTS)
    if first is None:
        return
    shape = draft.shapes[first]
    count = draft.draw(st.integers(1, 2))
    draft.node("Concat", *[first] * count, shape=(shape[0], shape[1] * count, *shape[2:]), axis=1)


def _split(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) > 1 and shape[1] % 2 == 0)
    if tensor is None:
        return
    shape = draft.shapes[tensor]
    draft.node("Split", tensor, shape=(shape[0], shape[1] // 2, *shape[2:]), more=1, axis=1)


def _product(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) == 2)
    if tensor is None:
        _reshape(draft)
        return
    rows, columns = draft.shapes[tensor]
    outputs = draft.draw(st.integers(1, 4))
    weights = draft.constant((columns, outputs))
    if draft.draw(st.booleans()):
        bias = draft.constant((outputs,))
        draft.node("Gemm", tensor, weights, bias, shape=(rows, outputs), alpha=0.5, beta=2.0)
    else:
        draft.node("MatMul", tensor, weights, shape=(rows, outputs))


def _layer_and_affine(draft: _Draft) -> None:
    """One on the other, or the other way round, on a tensor that perhaps somebody else reads too."""
    steps = [draft.draw(st.sampled_from([_conv, _product])), _affine]
    for step in steps if draft.draw(st.booleans()) else steps[::-1]:
        step(draft)


def _twice(draft: _Draft) -> None:
    """In a row, or the same again on the same tensor."""
    step = draft.draw(st.sampled_from([_reshape, _move, _pad, _product, _activation, _batch_norm]))
    step(draft)
    step(draft)


def _constants_only(draft: _Draft) -> None:
    tensor = draft.pick(lambda shape: len(shape) > 0)
    if tensor is None:
        return
    first = draft.constant((1,))
    spread = draft.node("Expand", first, draft.ints(*draft.shapes[tensor]), shape=draft.shapes[tensor])
    draft.node("Add", tensor, spread, shape=draft.shapes[tensor])


def _choice(draft: _Draft) -> None:
    tensor = draft.pick()
    assert tensor is not None
    shape = draft.shapes[tensor]
    other = draft.pick(lambda each: each == shape)
    assert other is not None

    def branch(op_type: str, source: str) -> GraphProto:
        name = f"{op_type}_{len(draft.nodes)}"
        inner = [
            helper.make_node("Identity", [source], [f"{name}_same"]),
            helper.make_node(op_type, [f"{name}_same"], [name]),
        ]
        return helper.make_graph(inner, op_type, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    branches = {"then_branch": branch("Relu", tensor), "else_branch": branch("Tanh", other)}
    if draft.draw(st.booleans()):
        condition = draft.add(np.array(draft.draw(st.booleans())))
    else:
        total = draft.node("ReduceSum", tensor, shape=(), keepdims=0)
        condition = draft.node("Greater", total, draft.constant((), [0.0]), shape=())
        del draft.shapes[condition]
    draft.node("If", condition, shape=shape, **branches)


_STEPS = (
    *(_activation, _affine, _together, _conv, _batch_norm, _pad, _pool, _move, _reshape, _join, _split, _product),
    *(_layer_and_affine, _layer_and_affine, _layer_and_affine, _twice, _twice, _constants_only, _choice),
)


@st.composite
def fuzzed_models(draw: DrawFn) -> ModelProto:
    """A model of static shape with one or two inputs, and some tensors within as outputs."""
    draft = _Draft(draw)
    for name in ["x", "z"][: draw(st.integers(1, 2))]:
        draft.shapes[name] = (1, draw(st.integers(1, 4)), draw(st.integers(3, 5)), draw(st.integers(3, 5)))
    inputs = dict(draft.shapes)
    for _ in range(draw(st.integers(3, _MOST_NODES))):
        step = draw(st.sampled_from(_STEPS))
        step(draft)
        for name in [name for name, shape in draft.shapes.items() if int(np.prod(shape)) > _MOST_ELEMENTS]:
            del draft.shapes[name]
    computed = [name for name in draft.shapes if name not in inputs] or [draft.node("Relu", "x", shape=inputs["x"])]
    chosen = draw(st.lists(st.sampled_from(computed), min_size=1, max_size=3, unique=True))
    outputs = sorted({*chosen, computed[-1]})
    graph = helper.make_graph(
        draft.nodes,
        "fuzzed",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(draft.shapes[name])) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in draft.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return shape_inference.infer_shapes(model)


def is_well_conditioned(model: ModelProto) -> bool:
    """Whether float32 can say the outputs to 1e-5 at all: not where large numbers cancel to a small one.

    Told by the model itself: inputs and constants that move by a few roundings must not move an output by more.
    """
    rng = np.random.default_rng(0)
    moved = ModelProto()
    moved.CopyFrom(model)
    for tensor in moved.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(_moved(value, rng), tensor.name))
    for seed in range(2):
        feed = feed_of(model, seed)
        expected = run_model(model, feed)
        got = run_model(moved, {name: _moved(value, rng) for name, value in feed.items()})
        for name, want in expected.items():
            if np.abs(got[name] - want).max() > 1e-5 * np.abs(want).max():
                return False
    return True


def _moved(value: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """By up to four times the last bit."""
    return np.asarray(value * (1 + 4 * np.finfo(np.float32).eps * rng.uniform(-1, 1, value.shape)), np.float32)
