"""Looking at and running an ONNX model: its tensors, its constants, who follows whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from agent.model.runtime import ort
from build_models.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# Another order of additions changes float32 results of deep networks by up to 1e-5 of the largest; a real mistake
# in a graph by far more.
SAME_WITHIN = 1e-4
OFFICIAL_DOMAINS = frozenset({"", "ai.onnx"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's name, element type as numpy names it, and shape; an unknown side is its symbol or ``?``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape when all sides are numbers, else None."""
        sides = tuple(side for side in self.shape if isinstance(side, int))
        return sides if len(sides) == len(self.shape) else None

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{','.join(map(str, self.shape))}]"


def inputs_of(model: onnx.ModelProto) -> list[TensorInfo]:
    """The inputs that a caller must feed: old files also list their initialisers, which are left out."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [_info(value) for value in model.graph.input if value.name not in constants]


def outputs_of(model: onnx.ModelProto) -> list[TensorInfo]:
    """The outputs, in order."""
    return [_info(value) for value in model.graph.output]


def describe(tensors: Iterable[TensorInfo]) -> str:
    """``boxes float32[1,100,4], scores float32[1,100,2]`` for messages."""
    return ", ".join(map(str, tensors)) or "none"


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the official operator set; 0 when the model imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in OFFICIAL_DOMAINS), default=0)


def constant_of(model: onnx.ModelProto, name: str) -> NDArray[Any] | None:
    """The value of an initialiser, or None when the tensor is computed."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    return None


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or ``default`` when the node has none of that name."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute, instead of the one of that name."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, each followed by those of the graphs inside it."""
    for node in graph.node:
        yield from _with_inner_nodes(node)


def tensor_names(model: onnx.ModelProto) -> set[str]:
    """Every tensor name in use."""
    graph = model.graph
    names = {value.name for value in [*graph.input, *graph.output]} | {tensor.name for tensor in graph.initializer}
    for node in every_node(graph):
        names.update(node.input)
        names.update(node.output)
    return names - {""}


def rename_tensor(model: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor wherever it appears, graph inputs, outputs and subgraphs included; changes ``model``."""
    graph = model.graph
    for named in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        if named.name == old:
            named.name = new
    for node in every_node(graph):
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def free_names(model: onnx.ModelProto, wanted: Collection[str]) -> dict[str, str]:
    """Rename tensors that bear one of the ``wanted`` names to ``source/<name>``; returns old to new."""
    taken = tensor_names(model)
    moved = {}
    for name in sorted(taken & set(wanted)):
        new = f"source/{name}"
        while new in taken:
            new += "_"
        rename_tensor(model, name, new)
        taken.add(new)
        moved[name] = new
    return moved


def remove_unused_initialisers(model: onnx.ModelProto) -> None:
    """Drop initialisers that nothing reads any more; changes ``model``."""
    used = {name for node in every_node(model.graph) for name in node.input}
    used.update(value.name for value in model.graph.output)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def freeze_initialisers(model: onnx.ModelProto) -> int:
    """Take initialisers off the list of inputs, where older files had them: nobody may feed them any more.

    Changes ``model``; returns how many there were.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    count = len(model.graph.input) - len(kept)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)  # before, they had to be there
    return count


def nodes_after(model: onnx.ModelProto, tensors: Collection[str]) -> list[str]:
    """Names of the nodes that depend on one of ``tensors``, in graph order: the decode tail behind raw heads."""
    reached = set(tensors)
    names = []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy whose only outputs are the tensors ``names``, with nodes that serve none of them removed.

    Raises:
        BuildError: a tensor does not exist.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = {value.name: value for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]}
    missing = sorted(set(names) - tensor_names(model))
    if missing:
        raise BuildError(f"the graph has no tensor {', '.join(missing)}; its outputs are {describe(outputs_of(model))}")
    del result.graph.output[:]
    # An unknown type is left empty: ONNX Runtime infers it.
    result.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    remove_dead_nodes(result)
    return result


def remove_dead_nodes(model: onnx.ModelProto) -> None:
    """Drop nodes whose results nobody uses, and the initialisers that only they read; changes ``model``."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for inner in _with_inner_nodes(node) for name in inner.input if name)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    remove_unused_initialisers(model)


def open_session(model: onnx.ModelProto, *, optimise: bool = False) -> ort.InferenceSession:
    """A CPU session of a model in memory; by default its graph runs as written, node by node.

    Raises:
        BuildError: ONNX Runtime does not accept the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except runtime_errors() as err:
        raise BuildError(f"ONNX Runtime refuses the model: {first_line(err)}") from err


def run_model(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], *, optimise: bool = False
) -> dict[str, NDArray[Any]]:
    """Run a model once; returns every output by name.

    Raises:
        BuildError: ONNX Runtime does not accept the model, or the run fails.
    """
    session = open_session(model, optimise=optimise)
    names = [output.name for output in session.get_outputs()]
    try:
        values = session.run(names, dict(feeds))
    except runtime_errors() as err:
        raise BuildError(f"the model does not run: {first_line(err)}") from err
    return dict(zip(names, values, strict=True))


def random_feed(model: onnx.ModelProto, seed: int) -> dict[str, NDArray[np.float32]]:
    """A normal-distributed float32 input for a model of static shape, for comparing two forms of one graph."""
    rng = np.random.default_rng(seed)
    return {
        info.name: rng.standard_normal([int(side) for side in info.shape], dtype=np.float32)
        for info in inputs_of(model)
    }


def check_same(expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]], complaint: str) -> float:
    """Largest difference of two runs in float32 that may add in another order, as a share of the largest output.

    Raises:
        BuildError: it begins with ``complaint``; more than `SAME_WITHIN`, another shape, or not finite.
    """
    worst = 0.0
    for name, want in expected.items():
        have = got[name]
        if have.shape != want.shape:
            raise BuildError(f"{complaint}: output {name} has shape {list(have.shape)}, expected {list(want.shape)}")
        scale = max(float(np.abs(want).max()), 1e-6)
        off = float(np.abs(want.astype(np.float64) - have).max()) / scale
        if not off <= SAME_WITHIN:
            raise BuildError(
                f"{complaint}: output {name} is off by {off:.2g} of its largest value (limit {SAME_WITHIN:g})"
            )
        worst = max(worst, off)
    return worst


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a model it does not accept; the classes share no base of their own."""
    state = ort.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    return tuple(getattr(state, name) for name in names)


def first_line(err: Exception) -> str:
    """A foreign error's first line, for a message of ours."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0]


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "?"
    sides = (side.dim_value if side.HasField("dim_value") else side.dim_param or "?" for side in tensor.shape.dim)
    return TensorInfo(value.name, dtype, tuple(sides))


def _with_inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            yield from every_node(graph)
