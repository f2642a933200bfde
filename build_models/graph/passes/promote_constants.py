"""Constant nodes become initialisers, the one form in which all others look for numbers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from build_models.graph.model_io import OFFICIAL_DOMAINS

_KINDS = {"value", "value_float", "value_floats", "value_int", "value_ints"}


def promote_constants(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Sparse constants and strings stay; so does one that is a graph output, which some readers want computed."""
    outputs = {value.name for value in model.graph.output}
    kept = []
    for node in model.graph.node:
        kinds = {attribute.name for attribute in node.attribute}
        is_constant = node.op_type == "Constant" and node.domain in OFFICIAL_DOMAINS
        if not is_constant or not kinds <= _KINDS or node.output[0] in outputs:
            kept.append(node)
            continue
        model.graph.initializer.append(_tensor_of(node))
    count = len(model.graph.node) - len(kept)
    if count:
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return model, count


def _tensor_of(node: onnx.NodeProto) -> onnx.TensorProto:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        return tensor
    dtype = np.float32 if attribute.name.startswith("value_float") else np.int64
    return numpy_helper.from_array(np.asarray(value, dtype), node.output[0])
