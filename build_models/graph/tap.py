"""Taps: what any tensors inside a model hold when it runs, a bounded number of bytes at a time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from build_models.errors import BuildError, RecipeError
from build_models.graph.flow import close_names, float_names, live_nodes
from build_models.graph.model_io import first_line, open_session, runtime_errors, tensor_names, with_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

GROUP_BYTES = 256 << 20
_WIDEST = 8  # bytes of an element whose type is not known
_KINDS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Tap:
    """A tensor to look at.

    Attributes:
        tensor: its name.
        node: name of the node that computes it.
        op_type: of that node.
        stands_for: the float tensor that a dequantised one stands for; else its own name.
    """

    tensor: str
    node: str
    op_type: str
    stands_for: str


def find_taps(model: onnx.ModelProto, patterns: Sequence[str] | None = None) -> list[Tap]:
    """The outputs of nodes that match one of the patterns, in graph order.

    Args:
        model: any model; inside ``If`` and ``Loop`` nothing can be tapped.
        patterns: shell patterns over the names of nodes, of tensors and of operators; a dequantised tensor also
            matches under the name of the float tensor that it stands for. None: all that depend on an input, without
            the integers in front of each ``DequantizeLinear``.

    Raises:
        RecipeError: a pattern matches nothing.
    """
    places = range(len(model.graph.node)) if patterns is not None else live_nodes(model)
    stands_for, others = float_names(model), _no_tensors(model)
    taps = []
    for index in places:
        node = model.graph.node[index]
        computed = [name for name in node.output if name and name not in others]
        taps += [Tap(name, node.name, node.op_type, stands_for.get(name, name)) for name in computed]
    if patterns is None:
        return [tap for tap in taps if tap.op_type != "QuantizeLinear"]
    for pattern in patterns:
        if not any(_matches(tap, pattern) for tap in taps):
            known = [name for tap in taps for name in (tap.node, tap.tensor, tap.op_type) if name]
            raise RecipeError(
                f"--nodes {pattern}: no node, tensor or operator of the model matches; "
                f"{close_names(pattern, known) or 'it has the operators ' + _operators(model)}"
            )
    return [tap for tap in taps if any(_matches(tap, pattern) for pattern in patterns)]


def tap_values(
    model: onnx.ModelProto, taps: Sequence[Tap], feeds: Mapping[str, NDArray[Any]], group_bytes: int = GROUP_BYTES
) -> Iterator[tuple[Tap, NDArray[Any]]]:
    """Run the model as written and yield each tap with its value.

    The model runs once to learn how large each tensor is, then once for every ``group_bytes`` of them: at any time no
    more than one group is held, or one tensor, when a single one is larger.

    Raises:
        BuildError: ONNX Runtime does not accept the model or the feeds.
    """
    for group in tap_groups(model, taps, feeds, group_bytes):
        values = open_taps(model, [tap.tensor for tap in group])(feeds)
        yield from zip(group, values, strict=True)


def open_taps(model: onnx.ModelProto, names: Sequence[str]) -> Callable[[Mapping[str, NDArray[Any]]], list[Any]]:
    """A session that gives the tensors ``names`` for any feeds, as often as it is called.

    Raises:
        BuildError: ONNX Runtime does not accept the model; the call raises it for feeds that do not fit.
    """
    return _runner(with_outputs(model, names), names)


def tap_groups(
    model: onnx.ModelProto, taps: Sequence[Tap], feeds: Mapping[str, NDArray[Any]], group_bytes: int = GROUP_BYTES
) -> list[list[Tap]]:
    """The taps in runs of at most ``group_bytes`` together, measured on ``feeds``."""
    groups: list[list[Tap]] = []
    filled = 0
    for tap, size in zip(taps, tap_bytes(model, taps, feeds), strict=True):
        if not groups or filled + size > group_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tap)
        filled += size
    return groups


def tap_bytes(model: onnx.ModelProto, taps: Sequence[Tap], feeds: Mapping[str, NDArray[Any]]) -> list[int]:
    """How large each tap's value is in bytes."""
    types = _element_types(model)
    names = [tap.tensor for tap in taps]
    shapes = tensor_shapes(model, names, feeds)
    return [math.prod(shapes[name]) * types.get(name, _WIDEST) for name in names]


def tensor_shapes(
    model: onnx.ModelProto, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of computed tensors when the model runs: the graph tells them itself, so no value leaves it."""
    if not names:
        return {}
    probe = with_outputs(model, names)
    taken = tensor_names(probe)
    told = {name: next(_free(f"shape_of_{index}", taken)) for index, name in enumerate(names)}
    del probe.graph.output[:]
    for name, shape in told.items():
        probe.graph.node.append(helper.make_node("Shape", [name], [shape]))
        probe.graph.output.append(helper.make_tensor_value_info(shape, TensorProto.INT64, None))
    values = _runner(probe, list(told.values()))(feeds)
    return {name: tuple(map(int, value)) for name, value in zip(told, values, strict=True)}


def _free(name: str, taken: Collection[str]) -> Iterator[str]:
    while name in taken:
        name += "_"
    yield name


def _runner(model: onnx.ModelProto, names: Sequence[str]) -> Callable[[Mapping[str, NDArray[Any]]], list[Any]]:
    session = open_session(model)
    needed = {value.name for value in session.get_inputs()}  # a tap may not need all of them
    refusals: tuple[type[Exception], ...] = (*runtime_errors(), ValueError)  # what the feeds lack is a ValueError

    def run(feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
        try:
            return list(session.run(list(names), {name: array for name, array in feeds.items() if name in needed}))
        except refusals as err:
            raise BuildError(f"the model does not run on this input: {first_line(err)}") from err

    return run


def _matches(tap: Tap, pattern: str) -> bool:
    names = (tap.node, tap.tensor, tap.op_type, tap.stands_for)
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)  # a name may hold brackets


def _operators(model: onnx.ModelProto) -> str:
    counts = Counter(node.op_type for node in model.graph.node).most_common(_KINDS_SHOWN)
    return ", ".join(f"{name} ({count})" for name, count in counts)


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return [*graph.input, *graph.value_info, *graph.output]


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes of an element of each tensor whose type is known."""
    found = {}
    for value in _inferred(model):
        kind = value.type.tensor_type.elem_type
        if kind:
            found[value.name] = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).itemsize
    return found


def _no_tensors(model: onnx.ModelProto) -> set[str]:
    """Sequences, maps and optional values, and tensors of strings: nothing to draw or to count with."""
    return {
        value.name
        for value in _inferred(model)
        if value.type.WhichOneof("value") not in (None, "tensor_type")
        or value.type.tensor_type.elem_type == TensorProto.STRING
    }
