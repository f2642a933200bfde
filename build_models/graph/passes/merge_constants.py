"""Equal initialisers become one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx

_BIASED = ("Conv", "ConvTranspose", "Gemm")


def merge_constants(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Equal in type, shape and every bit. Biases stay apart: each is quantised with the scales of its own layer."""
    edit = GraphEdit(model)
    biases = {name for node in edit.nodes(*_BIASED) for name in node.input[2:]}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    count = 0
    for name in edit.constant_names():
        tensor = edit.constant_tensor(name)
        if tensor is None or name in biases or name in edit.outputs or edit.is_unused(name):
            continue
        value = edit.constant(name)
        if value is None or value.dtype.hasobject:  # strings
            continue
        data = value.tobytes()
        same = first.setdefault((tensor.data_type, tuple(tensor.dims), data), name)
        if same != name and edit.replace(name, same):
            count += 1
    return edit.finish(), count
