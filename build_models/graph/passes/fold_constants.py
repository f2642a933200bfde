"""What depends on constants only is computed now, with the kernels that would compute it on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, shape_inference

from build_models.errors import BuildError
from build_models.graph.model_io import run_model
from build_models.graph.passes.editing import QUANTISING_OPS, RANDOM_OPS, GraphEdit, inner_graphs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# An Expand of one number to a plane stays an Expand: the device folds it when it loads the file, the file stays small.
LARGEST_GROWN_BYTES = 65_536
# Weights stay quantised; the others have no value.
_LEFT = RANDOM_OPS | QUANTISING_OPS | {"Constant", "Identity"}


def fold_constants(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """A result may be as large as its inputs together, or `LARGEST_GROWN_BYTES`; of unknown size it is not computed."""
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes():
        if node.op_type in _LEFT or inner_graphs(node) or not any(node.input):
            continue
        inputs = {name: edit.constant_tensor(name) for name in node.input if name}
        constants = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        if len(constants) < len(inputs) or any(name in edit.outputs for name in node.output):
            continue
        results = _evaluate(edit, node, constants)
        if results is None:
            continue
        for name, value in results.items():
            edit.replace_by_constant(name, value)
        edit.drop(node)
        count += 1
    return edit.finish(), count


def _evaluate(
    edit: GraphEdit, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> Mapping[str, NDArray[np.generic]] | None:
    """The node's outputs, or None when they would be too large or it does not run."""
    alone = helper.make_model(
        helper.make_graph([node], "alone", [], [], list(constants.values())),
        opset_imports=edit.model.opset_import,
        ir_version=max(edit.model.ir_version, 4),
    )
    try:
        inferred = shape_inference.infer_shapes(alone, data_prop=True).graph.value_info
    except shape_inference.InferenceError:
        return None
    results = {value.name: value for value in inferred}
    wanted = [name for name in node.output if name]
    grown = 0
    for name in wanted:
        if name not in results or not _is_static(results[name]):
            return None
        grown += _bytes(results[name].type.tensor_type)
    given = sum(tensor.ByteSize() for tensor in constants.values())
    if grown > max(given, LARGEST_GROWN_BYTES):
        return None
    alone.graph.output.extend(results[name] for name in wanted)
    try:
        return run_model(alone, {})
    except BuildError:
        return None  # no kernel here, or a node that cannot work: the runtime will say so, with the node's name


def _is_static(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    is_plain = kind.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING, onnx.TensorProto.BFLOAT16)
    return is_plain and kind.HasField("shape") and all(side.HasField("dim_value") for side in kind.shape.dim)


def _bytes(kind: onnx.TypeProto.Tensor) -> int:
    sides = [side.dim_value for side in kind.shape.dim]
    return int(np.prod(sides, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
