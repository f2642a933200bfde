"""The first convolution on groups of pixels, for x86: the same sums with a third of the copying.

An int8 convolution first copies what each of its places sees, and three channels make nine copies of three bytes. The
camera's rows ``[1, H, W, 3]`` are ``[1, H, W/4, 12]`` without moving a byte; on them a convolution of few, wide places
computes four columns (two at stride 2) at once, as more output channels, and its rows are the wanted rows again.
The added weights are zeros, so it pays where products are cheaper than copies: measured on x86 with VNNI, whole models
take 0.74 to 0.95 of the time; under emulation an A76 takes 1.2 and an A72 2.1 times as long for this layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from build_models.graph.model_io import constant_of, remove_dead_nodes
from build_models.graph.writer import GraphWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from build_models.quantize.ranges import Ranges

_GROUP = 4  # pixels
_CHANNELS = 3
_NHWC_TO_NCHW, _NCHW_TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class Packed:
    """The rewritten graph, the ranges with those of its new tensors, and the names of the nodes that were added."""

    model: onnx.ModelProto
    ranges: Ranges
    added: list[str]


def pack_stem(model: onnx.ModelProto, ranges: Ranges, chosen: Collection[str]) -> Packed | None:
    """Rewrite the first convolution; None where the graph or its sizes do not allow it. The model stays as it is.

    Args:
        model: canonical float graph: image, Cast, Transpose, perhaps an Add of a mean, Conv, perhaps a Relu or Clip.
        chosen: names of the nodes to run in int8; the rewrite serves nothing unless the convolution is one of them.
        ranges: of its tensors; the new ones get those of the tensors that they stand for.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stem = _find(result)
    plan = _Plan.of(stem) if stem is not None else None
    if stem is None or plan is None or not {node.name for node in stem.nodes} <= set(chosen):
        return None
    told = dict(ranges)
    writer = GraphWriter(result, "stem")
    rows, height, width = stem.pixels, *stem.input_hw
    tensor = writer.reshape(rows, [1, height, width // _GROUP, _GROUP * _CHANNELS], "groups")
    tensor = writer.op("Transpose", tensor, name="groups_nchw", perm=_NHWC_TO_NCHW)
    added = [node.name for node in writer.nodes]
    for name in (node.output[0] for node in writer.nodes):
        told[name] = (0.0, 255.0)
    if stem.mean is not None:
        value = constant_of(result, stem.mean.input[1])
        assert value is not None
        spread = value if value.size == 1 else np.tile(value.ravel(), _GROUP)[None, :, None, None]
        tensor = _copy(writer, stem.mean, [tensor, writer.constant(spread, np.float32, "mean")])
        told[tensor] = told[stem.mean.output[0]]
    inputs = [tensor, writer.constant(plan.weights(), np.float32, "weights")]
    if stem.bias is not None:
        inputs.append(writer.constant(np.tile(stem.bias, plan.columns), np.float32, "bias"))
    tensor = _copy(writer, stem.conv, inputs, strides=[stem.strides[0], 1], pads=plan.pads, kernel_shape=plan.kernel_hw)
    told[tensor] = told[stem.conv.output[0]]
    last = stem.conv.output[0]
    if stem.act is not None:
        tensor = _copy(writer, stem.act, [tensor, *stem.act.input[1:]])
        last = stem.act.output[0]
        told[tensor] = told[last]
    before = len(writer.nodes)
    tensor = writer.op("Transpose", tensor, name="rows", perm=_NCHW_TO_NHWC)
    tensor = writer.reshape(tensor, [1, *plan.out_hw, len(stem.weights)], "columns")
    writer.op("Transpose", tensor, name="planes", output=last, perm=_NHWC_TO_NCHW)
    for node in writer.nodes[before:]:
        added.append(node.name)
        told[node.output[0]] = told[last]
    _replace(result, stem, writer.nodes)
    return Packed(result, told, added)


@dataclass(frozen=True)
class _Stem:
    pixels: str  # float, NHWC
    input_hw: tuple[int, int]
    mean: onnx.NodeProto | None
    conv: onnx.NodeProto
    act: onnx.NodeProto | None
    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    strides: list[int]
    pads: list[int]  # top, left, bottom, right

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return [node for node in (self.mean, self.conv, self.act) if node is not None]


@dataclass(frozen=True)
class _Plan:
    """Sizes of the packed convolution: ``columns`` of the output at once, from groups ``first`` to ``last``."""

    stem: _Stem
    columns: int
    first: int
    last: int
    out_hw: tuple[int, int]

    @classmethod
    def of(cls, stem: _Stem) -> _Plan | None:
        """None where the columns do not come out even."""
        (height, width), (kernel_h, kernel_w) = stem.input_hw, stem.weights.shape[2:]
        stride_h, stride_w = stem.strides
        top, left, bottom, right = stem.pads
        out_h = (height + top + bottom - kernel_h) // stride_h + 1
        out_w = (width + left + right - kernel_w) // stride_w + 1
        columns = _GROUP // stride_w
        if kernel_w == 1 or width % _GROUP or _GROUP % stride_w or out_w != width // stride_w:
            return None
        last = (stride_w * (columns - 1) - left + kernel_w - 1) // _GROUP
        return cls(stem, columns, -left // _GROUP, last, (out_h, out_w))

    @property
    def kernel_hw(self) -> list[int]:
        return [self.stem.weights.shape[2], self.last - self.first + 1]

    @property
    def pads(self) -> list[int]:
        top, _, bottom, _ = self.stem.pads
        return [top, -self.first, bottom, self.last]

    def weights(self) -> NDArray[np.float32]:
        """``[columns * C, group * 3, kernel_h, groups]``: every weight at each place where a column needs it."""
        weights = self.stem.weights
        outputs, inputs, kernel_h, kernel_w = weights.shape
        packed = np.zeros((self.columns, outputs, _GROUP, inputs, *self.kernel_hw), np.float32)
        for column in range(self.columns):
            for tap in range(kernel_w):
                group, pixel = divmod(self.stem.strides[1] * column - self.stem.pads[1] + tap, _GROUP)
                packed[column, :, pixel, :, :, group - self.first] = weights[..., tap]
        return packed.reshape(self.columns * outputs, _GROUP * inputs, kernel_h, -1)


def _find(model: onnx.ModelProto) -> _Stem | None:
    """The one path from the image through the first convolution, each step read by the next alone."""
    casts = [node for node in model.graph.node if "image" in node.input]
    if len(casts) != 1 or casts[0].op_type != "Cast":
        return None
    planes = _only_reader(model, casts[0])
    if planes is None or planes.op_type != "Transpose" or _attribute(planes, "perm", []) != _NHWC_TO_NCHW:
        return None
    mean = None
    conv = _only_reader(model, planes)
    if conv is not None and conv.op_type == "Add":
        mean, value = conv, constant_of(model, conv.input[1])
        if value is None or value.size not in (1, _CHANNELS) or (value.size > 1 and value.shape[-3] != _CHANNELS):
            return None
        conv = _only_reader(model, mean)
    if conv is None or conv.op_type != "Conv":
        return None
    weights = constant_of(model, conv.input[1])
    bias = constant_of(model, conv.input[2]) if len(conv.input) > 2 else None
    plain = (_attribute(conv, "group", 1), _attribute(conv, "auto_pad", b"NOTSET"))
    if weights is None or plain != (1, b"NOTSET") or set(_attribute(conv, "dilations", [1])) != {1}:
        return None
    act = _only_reader(model, conv)
    height, width = (side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    return _Stem(
        casts[0].output[0],
        (height, width),
        mean,
        conv,
        act if act is not None and act.op_type in ("Relu", "Clip") else None,
        weights,
        bias,
        list(_attribute(conv, "strides", [1, 1])),
        list(_attribute(conv, "pads", [0] * 4)),
    )


def _only_reader(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
    readers = [other for other in model.graph.node if node.output[0] in other.input]
    is_output = any(value.name == node.output[0] for value in model.graph.output)
    return readers[0] if len(readers) == 1 and not is_output else None


def _copy(writer: GraphWriter, node: onnx.NodeProto, inputs: Sequence[str], **changes: Any) -> str:
    """The node under its old name, with other inputs and another output."""
    kept = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    tensor = writer.op(node.op_type, *inputs, name=node.op_type.lower(), **{**kept, **changes})
    writer.nodes[-1].name = node.name
    return tensor


def _replace(model: onnx.ModelProto, stem: _Stem, nodes: Sequence[onnx.NodeProto]) -> None:
    old = {node.name for node in stem.nodes}
    kept: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in old:
            kept.append(node)
        elif node.name == stem.conv.name:
            kept.extend(nodes)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]  # of tensors whose shape changed; they are inferred again
    remove_dead_nodes(model)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default
