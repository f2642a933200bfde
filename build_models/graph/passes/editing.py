"""The graph that a pass edits: who writes and reads each tensor, what is constant, which shapes are known."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from build_models.graph.model_io import OFFICIAL_DOMAINS, opset_of, tensor_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Dims = tuple[int | None, ...]

RANDOM_OPS = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
QUANTISING_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
# Shape inference looks into constants for shapes and axes, which are short; weights only slow it down.
_LONGEST_LOOKED_INTO = 1024


class GraphEdit:
    """An index of a model's main graph that stays true while the graph is changed through it.

    Args:
        model: is changed; call `finish` at the end, which puts new nodes in and takes dropped ones out.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.opset = opset_of(model)
        self.outputs = {value.name for value in graph.output}
        self.inputs = {value.name for value in graph.input}
        self._nodes = list(graph.node)
        self._dropped: set[int] = set()
        self._inserted: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        self._constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in self.inputs}
        self._writers = {name: node for node in self._nodes for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._captures: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            self._index(node)
        self._taken: set[str] | None = None
        self._types: dict[str, tuple[int, Dims | None]] | None = None

    def nodes(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        """The official operators of these types, in graph order; all official ones when none is given."""
        for node in self._nodes:
            wanted = node.domain in OFFICIAL_DOMAINS and (not op_types or node.op_type in op_types)
            if wanted and id(node) not in self._dropped:
                yield node

    def writer(self, tensor: str, *op_types: str) -> onnx.NodeProto | None:
        """The node that computes a tensor, when it is an official operator of one of these types."""
        node: onnx.NodeProto | None = self._writers.get(tensor)
        if node is None or node.domain not in OFFICIAL_DOMAINS or (op_types and node.op_type not in op_types):
            return None
        return node

    def is_read_once(self, tensor: str) -> bool:
        """One node reads it, once, in the main graph, and it is no output: it may disappear."""
        return len(self._readers[tensor]) == 1 and not self._captures[tensor] and tensor not in self.outputs

    def is_unused(self, tensor: str) -> bool:
        """Nobody reads it (an output left out has no name)."""
        return not tensor or not (self._readers[tensor] or self._captures[tensor] or tensor in self.outputs)

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of an initialiser that cannot be fed; None when the tensor is computed or there is none."""
        found = self._constants.get(tensor)
        return None if found is None else numpy_helper.to_array(found)

    def constant_tensor(self, tensor: str) -> onnx.TensorProto | None:
        """The same as it is stored."""
        return self._constants.get(tensor)

    def constant_names(self) -> list[str]:
        """The initialisers that cannot be fed, in order."""
        return list(self._constants)

    def dims(self, tensor: str) -> Dims | None:
        """A tensor's sides, None where one is not known; None when not even their number is."""
        return self._type(tensor)[1]

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """A tensor's shape when all of it is known."""
        dims = self.dims(tensor)
        known = tuple(side for side in dims or () if side is not None)
        return known if dims is not None and len(known) == len(dims) else None

    def element_type(self, tensor: str) -> int:
        """Its ``TensorProto`` data type; 0 when not known."""
        return self._type(tensor)[0]

    def add_constant(self, value: NDArray[Any], name: str) -> str:
        """A new initialiser; its name begins with ``name``."""
        contiguous = np.ascontiguousarray(value).reshape(np.shape(value))
        return self.add_tensor(numpy_helper.from_array(contiguous), self.free_name(name))

    def add_tensor(self, tensor: onnx.TensorProto, name: str) -> str:
        """A new initialiser from a stored one, under a name that is free."""
        own = self.model.graph.initializer.add()
        own.CopyFrom(tensor)
        own.name = name
        self._constants[name] = own
        return name

    def free_name(self, name: str) -> str:
        """A name that no tensor or node has yet."""
        if self._taken is None:
            self._taken = tensor_names(self.model) | {node.name for node in self._nodes}
        free, count = name, 1
        while free in self._taken:
            count += 1
            free = f"{name}_{count}"
        self._taken.add(free)
        return free

    def set_input(self, node: onnx.NodeProto, index: int, tensor: str) -> None:
        """Let a node read another tensor; an index behind its last input makes it longer."""
        while len(node.input) <= index:
            node.input.append("")
        self._forget(node)
        node.input[index] = tensor
        self._index(node)

    def set_inputs(self, node: onnx.NodeProto, tensors: Sequence[str]) -> None:
        """Give a node other inputs altogether."""
        self._forget(node)
        del node.input[:]
        node.input.extend(tensors)
        self._index(node)

    def insert_before(self, place: onnx.NodeProto, node: onnx.NodeProto) -> onnx.NodeProto:
        """Put a new node in; what it writes must have no writer."""
        self._inserted[id(place)].append(node)
        self._writers.update({name: node for name in node.output if name})
        self._index(node)
        return node

    def drop(self, node: onnx.NodeProto) -> None:
        """Take a node out; what it wrote must be unused or written by another."""
        self._dropped.add(id(node))
        self._forget(node)
        for name in node.output:
            if self._writers.get(name) is node:
                del self._writers[name]

    def take_over(self, earlier: onnx.NodeProto, later: onnx.NodeProto) -> None:
        """``earlier`` computes what ``later`` did, which alone read it, and ``later`` goes."""
        self.drop(later)
        del self._writers[earlier.output[0]]
        earlier.output[0] = later.output[0]
        self._writers[earlier.output[0]] = earlier

    def replace(self, old: str, new: str) -> bool:
        """Let all who use ``old`` use the equal tensor ``new``; False when both names must stay.

        When ``old`` is an output, ``new`` takes its name.
        """
        if old not in self.outputs:
            self._rename_reads(old, new)
            return True
        writer = self._writers.get(new)
        if writer is None or new in self.outputs:
            return False
        old_writer = self._writers.get(old)
        if old_writer is not None:
            old_writer.output[list(old_writer.output).index(old)] = ""
        writer.output[list(writer.output).index(new)] = old
        del self._writers[new]
        self._writers[old] = writer
        self._rename_reads(new, old)
        return True

    def replace_by_constant(self, tensor: str, value: NDArray[Any]) -> bool:
        """Let all who read ``tensor`` read a constant of the same name or nearly so; an output stays computed."""
        if tensor in self.outputs:
            return False
        return self.replace(tensor, self.add_constant(value, tensor))

    def finish(self) -> onnx.ModelProto:
        """Write the nodes back; the object must not be used any more."""
        if self._dropped or self._inserted:
            nodes = []
            for node in self._nodes:
                nodes.extend(self._inserted.get(id(node), []))
                if id(node) not in self._dropped:
                    nodes.append(node)
            del self.model.graph.node[:]
            self.model.graph.node.extend(nodes)
        return self.model

    def _index(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            self._readers[name].append(node)
        for name in captured_by(node):
            self._captures[name].append(node)

    def _forget(self, node: onnx.NodeProto) -> None:
        for index, names in ((self._readers, list(node.input)), (self._captures, sorted(captured_by(node)))):
            for name in names:
                index[name] = [reader for reader in index[name] if reader is not node]

    def _rename_reads(self, old: str, new: str) -> None:
        for node in self._readers.pop(old, []):
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new
            self._readers[new].append(node)
        for node in self._captures.pop(old, []):
            for graph in inner_graphs(node):
                rename_captured(graph, old, new)
            self._captures[new].append(node)

    def _type(self, tensor: str) -> tuple[int, Dims | None]:
        found = self._constants.get(tensor)
        if found is not None:
            return found.data_type, tuple(found.dims)
        if self._types is None:
            self._types = inferred_types(self.model)
        return self._types.get(tensor, (0, None))


def inferred_types(model: onnx.ModelProto) -> dict[str, tuple[int, Dims | None]]:
    """Element type and sides of every tensor that can be told from the inputs."""
    light = onnx.ModelProto()
    light.ir_version = max(model.ir_version, 4)  # before, initialisers had to be inputs
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = "light"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if tensor.name in inputs:
            continue  # may be fed: its value says nothing
        if np.prod(tensor.dims, dtype=np.int64) <= _LONGEST_LOOKED_INTO:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    try:
        inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    except shape_inference.InferenceError:
        inferred = graph  # a graph that contradicts itself: nothing is known beyond its inputs
    types: dict[str, tuple[int, Dims | None]] = {}
    for value in [*inferred.input, *inferred.value_info]:
        tensor_type = value.type.tensor_type
        dims = None
        if tensor_type.HasField("shape"):
            dims = tuple(side.dim_value if side.HasField("dim_value") else None for side in tensor_type.shape.dim)
        types[value.name] = (tensor_type.elem_type, dims)
    return types


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    graphs: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        graphs.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)
    return graphs


def captured_by(node: onnx.NodeProto) -> set[str]:
    """What the graphs inside a node read from outside."""
    names: set[str] = set()
    for graph in inner_graphs(node):
        read = {name for inner in graph.node for name in inner.input} | {value.name for value in graph.output}
        for inner in graph.node:
            read |= captured_by(inner)
        names |= read - _own_names(graph) - {""}
    return names


def rename_captured(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename what an inner graph reads from outside; a tensor of its own with that name is another one.

    An outer tensor cannot be an inner graph's output in ONNX Runtime but through a node; other files are renamed too.
    """
    if old in _own_names(graph):
        return
    for value in graph.output:
        if value.name == old:
            value.name = new
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for inner in inner_graphs(node):
            rename_captured(inner, old, new)


def keeps_shape(dims: Dims | None, other: Sequence[int]) -> bool:
    """Whether broadcasting a tensor of ``dims`` with a constant of shape ``other`` surely gives ``dims`` again."""
    if dims is None:
        return not other
    if len(other) > len(dims):
        return False
    return all(side in {1, own} for own, side in zip(dims[::-1], reversed(other), strict=False))


def _own_names(graph: onnx.GraphProto) -> set[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return own | {name for node in graph.node for name in node.output}
