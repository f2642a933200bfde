"""A Pad in front of a Conv or a pooling becomes its padding, where that is exactly the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from build_models.graph.model_io import attribute_of, set_attribute
from build_models.graph.passes.editing import GraphEdit

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Pads = list[int]

# What they give is never below zero, so a zero that pads never is the largest of a window with something else in it.
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "HardSigmoid", "Softplus", "Abs")


def fold_pads(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Constant spatial pads; each reader that can takes them in, and the Pad goes when no reader is left.

    A Conv pads with zeros. An AveragePool may count its own padding as zeros. A MaxPool pads with minus infinity,
    which says the same as zero where the input is never negative.
    """
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes("Conv", "AveragePool", "MaxPool"):
        pad = edit.writer(node.input[0], "Pad")
        found = _spatial_pads(edit, pad) if pad is not None else None
        if pad is None or found is None or not _is_exact(edit, node, pad, *found):
            continue
        pads, _ = found
        own = attribute_of(node, "pads", [0] * len(pads))
        set_attribute(node, "pads", [int(mine + more) for mine, more in zip(own, pads, strict=True)])
        if attribute_of(node, "auto_pad", None) is not None:
            set_attribute(node, "auto_pad", "NOTSET")
        if node.op_type == "AveragePool":
            set_attribute(node, "count_include_pad", 1)
        edit.set_input(node, 0, pad.input[0])
        count += 1
    return edit.finish(), count


def _is_exact(edit: GraphEdit, node: onnx.NodeProto, pad: onnx.NodeProto, pads: Pads, value: float) -> bool:
    # SAME computes its padding from the input's size; VALID is none.
    if attribute_of(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return False
    if node.op_type == "Conv":
        return value == 0
    if not _touches_the_picture(node, pads):
        return False
    if node.op_type == "AveragePool":
        counted = bool(attribute_of(node, "count_include_pad", 0)) or not any(attribute_of(node, "pads", [0]))
        return value == 0 and counted and edit.opset >= 7
    if any(node.output[1:]):
        return False  # where the largest stood is counted in the padded picture
    return value == -np.inf or (value == 0 and edit.writer(pad.input[0], *_NEVER_NEGATIVE) is not None)


def _touches_the_picture(node: onnx.NodeProto, more: Pads) -> bool:
    """Whether every window of a pooling does: its padding is smaller than it, and its output's size is rounded down."""
    kernel = attribute_of(node, "kernel_shape", [])
    pads = [mine + added for mine, added in zip(attribute_of(node, "pads", [0] * len(more)), more, strict=True)]
    dilated = any(side != 1 for side in attribute_of(node, "dilations", [1]))
    fits = len(pads) == 2 * len(kernel) and all(pad < side for pad, side in zip(pads, [*kernel, *kernel], strict=True))
    return fits and not dilated and not attribute_of(node, "ceil_mode", 0)


def _spatial_pads(edit: GraphEdit, pad: onnx.NodeProto) -> tuple[Pads, float] | None:
    """Begins, then ends, of the axes behind batch and channels, and the value; None when it does more than that."""
    if attribute_of(pad, "mode", b"constant") != b"constant":
        return None
    found = _attributes(pad) if edit.opset < 11 else _inputs(edit, pad)
    if found is None:
        return None
    pads, value = found
    if pads.size < 6 or pads.size % 2 or (pads < 0).any():
        return None
    begins, ends = np.split(pads, 2)
    if begins[:2].any() or ends[:2].any():
        return None
    return [int(side) for side in [*begins[2:], *ends[2:]]], value


def _attributes(pad: onnx.NodeProto) -> tuple[NDArray[np.int64], float]:
    return np.array(attribute_of(pad, "pads", []), np.int64), float(attribute_of(pad, "value", 0.0))


def _inputs(edit: GraphEdit, pad: onnx.NodeProto) -> tuple[NDArray[np.int64], float] | None:
    """Since opset 11; the axes since 18."""
    if edit.element_type(pad.input[0]) != TensorProto.FLOAT:
        return None
    names = [*pad.input[1:], "", ""][:3]
    pads, value, axes = (edit.constant(name) if name else None for name in names)
    if any(name and constant is None for name, constant in zip(names, (pads, value, axes), strict=True)):
        return None
    if pads is None:
        return None
    if axes is not None:
        dims = edit.dims(pad.input[0])
        if dims is None:
            return None
        on_all_axes = np.zeros((2, len(dims)), np.int64)
        on_all_axes[:, axes] = pads.reshape(2, -1)
        pads = on_all_axes.reshape(-1)
    return pads, 0.0 if value is None else float(value.reshape(-1)[0])
