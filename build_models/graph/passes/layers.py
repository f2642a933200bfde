"""Layers with constant weights, into which scales and offsets of their inputs and outputs can go.

All arithmetic is in float64 and rounded to float32 once. New weights are new constants: what else reads the old ones
goes on as before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from build_models.graph.model_io import attribute_of, set_attribute

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from build_models.graph.passes.editing import GraphEdit

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul, seen as ``outputs = weights * inputs + bias``.

    Attributes:
        node: the node.
        weights: float64 ``[groups, outputs per group, inputs per group, kernel elements]``.
        bias: float64 ``[outputs]``, or None where there is none.
        rank: axes of its input and output; None for a MatMul whose rank is not known.
        channel_axis: counted from the end, so that it also holds for a MatMul of unknown rank.
    """

    node: onnx.NodeProto
    weights: NDArray[np.float64]
    bias: NDArray[np.float64] | None
    rank: int | None
    channel_axis: int
    _stored_shape: tuple[int, ...] = field(repr=False)

    @classmethod
    def of(cls, edit: GraphEdit, node: onnx.NodeProto) -> Layer | None:
        """None when the weights or the bias are computed, or of another type than float32."""
        weights = edit.constant(node.input[1])
        biased = len(node.input) > 2 and bool(node.input[2])
        bias = edit.constant(node.input[2]) if biased else None
        if weights is None or weights.dtype != np.float32 or (biased and bias is None):
            return None
        arranged = _arranged(node, weights.astype(np.float64))
        if arranged is None:
            return None
        outputs = arranged.shape[0] * arranged.shape[1]
        if bias is not None:
            if bias.size not in {1, outputs} or bias.shape[:-1] not in {(), (1,)}:
                return None  # a Gemm may add a whole matrix
            bias = np.broadcast_to(bias.reshape(-1).astype(np.float64) * attribute_of(node, "beta", 1.0), outputs)
        if node.op_type in ("Conv", "ConvTranspose"):
            return cls(node, arranged, bias, weights.ndim, 1 - weights.ndim, weights.shape)
        dims = edit.dims(node.input[0])
        rank = 2 if node.op_type == "Gemm" else (None if dims is None else len(dims))
        return cls(node, arranged, bias, rank, -1, weights.shape)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.weights.shape[0] * self.weights.shape[1])

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return int(self.weights.shape[0] * self.weights.shape[2])

    @property
    def takes_bias(self) -> bool:
        """A MatMul does not."""
        return self.node.op_type != "MatMul"

    @property
    def pads(self) -> bool:
        """Whether border outputs see zeros instead of inputs, so that an input's offset would not be uniform."""
        if self.node.op_type == "ConvTranspose":
            return True
        mode = attribute_of(self.node, "auto_pad", b"NOTSET")
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            return any(side != 1 for side in self._stored_shape[2:])
        return mode != b"VALID" and any(attribute_of(self.node, "pads", [0]))

    def per_channel(self, value: NDArray[np.float64], channels: int) -> NDArray[np.float64] | None:
        """A constant that broadcasts along the channels only, as ``[channels]``; None when it varies elsewhere."""
        if value.ndim == 0 or (value.size == 1 and value.ndim <= (self.rank or 1)):
            return np.broadcast_to(value.reshape(-1), channels)
        place = value.ndim + self.channel_axis
        if self.rank is None and value.ndim > 1:
            return None
        if place < 0 or value.ndim > (self.rank or 1) or value.size != value.shape[place] or value.size != channels:
            return None
        return value.reshape(-1)

    def scale_outputs(self, scale: NDArray[np.float64]) -> None:
        """The outputs are multiplied by ``[outputs]``."""
        self.weights = self.weights * scale.reshape(*self.weights.shape[:2], 1, 1)
        if self.bias is not None:
            self.bias = self.bias * scale

    def shift_outputs(self, offset: NDArray[np.float64]) -> None:
        """``[outputs]`` is added to the outputs."""
        self.bias = offset if self.bias is None else self.bias + offset

    def scale_inputs(self, scale: NDArray[np.float64]) -> None:
        """The inputs were multiplied by ``[inputs]``."""
        self.weights = self.weights * scale.reshape(self.weights.shape[0], 1, self.weights.shape[2], 1)

    def shift_inputs(self, offset: NDArray[np.float64]) -> None:
        """``[inputs]`` was added to the inputs; only where nothing is padded."""
        per_group = offset.reshape(self.weights.shape[0], 1, self.weights.shape[2], 1)
        self.shift_outputs((self.weights * per_group).sum(axis=(2, 3)).reshape(-1))

    def write(self, edit: GraphEdit) -> bool:
        """Give the node its new constants; False, and nothing is changed, when one is no finite float32."""
        with np.errstate(over="ignore"):
            weights = self._as_stored().astype(np.float32)
            bias = None if self.bias is None else self.bias.astype(np.float32)
        if not np.isfinite(weights).all() or (bias is not None and not np.isfinite(bias).all()):
            return False
        # The output names it: a name that the weights bear is another layer's too when they are shared.
        name = self.node.name or self.node.output[0]
        old = edit.constant(self.node.input[1])
        if old is None or not np.array_equal(old, weights):
            edit.set_input(self.node, 1, edit.add_constant(weights, f"{name}/weights"))
        if bias is not None:
            edit.set_input(self.node, 2, edit.add_constant(bias, f"{name}/bias"))
        if self.node.op_type == "Gemm":
            set_attribute(self.node, "alpha", 1.0)
            set_attribute(self.node, "beta", 1.0)
        return True

    def _as_stored(self) -> NDArray[np.float64]:
        if self.node.op_type == "Conv":
            return self.weights.reshape(self._stored_shape)
        if self.node.op_type == "ConvTranspose":
            return self.weights.swapaxes(1, 2).reshape(self._stored_shape)
        by_output = self.weights[0, :, :, 0]
        return by_output if attribute_of(self.node, "transB", 0) else by_output.T


def _arranged(node: onnx.NodeProto, weights: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """As ``[groups, outputs per group, inputs per group, kernel elements]``; None for other than matrices."""
    if node.op_type in ("Conv", "ConvTranspose"):
        by_group = (attribute_of(node, "group", 1), -1, weights.shape[1], int(np.prod(weights.shape[2:])))
        arranged = weights.reshape(by_group)
        return arranged if node.op_type == "Conv" else arranged.swapaxes(1, 2)
    if weights.ndim != 2 or attribute_of(node, "transA", 0):
        return None
    by_output = weights if attribute_of(node, "transB", 0) else weights.T
    return by_output[None, :, :, None] * float(attribute_of(node, "alpha", 1.0))
