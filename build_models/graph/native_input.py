"""The source's float input becomes ``image``: uint8 ``[1, H, W, 3]`` BGR, the bytes a camera gives.

The normalisation ``x = (pixel * scale - mean) / std = factor * (pixel - offset)`` and the channel order go into the
first convolution where that is exact:

- factor and channel order are linear, so they fold into the weights; a zero that pads stays a zero. So is the luma
  of a grey source: its one channel of weights becomes three.
- an offset folds into the bias only if nothing is padded: the source pads with zeros *after* normalisation, which
  are pixels of value ``offset``. Otherwise the offset is subtracted in front of the convolution, in pixel units.

A model that does not begin with one convolution gets the normalisation as nodes in the source's layout, each left
out where it does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import (
    constant_of,
    describe,
    every_node,
    free_names,
    inputs_of,
    remove_dead_nodes,
    rename_tensor,
)
from build_models.graph.writer import GraphWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from build_models.recipe import InputRecipe

IMAGE = "image"
Rule = Literal["folded", "folded_but_offset", "prologue"]
_CHANNEL_AXIS = {"nchw": 1, "nhwc": 3}
_NHWC_TO_NCHW = [0, 3, 1, 2]
# ITU-R BT.601, what cv2.cvtColor and Pillow's "L" compute (they round to whole grey levels, this does not).
_LUMA_BGR = [0.114, 0.587, 0.299]
# A row a source channel, a column an image channel.
_FROM_BGR = {"rgb": np.eye(3)[::-1], "bgr": np.eye(3), "gray": np.array([_LUMA_BGR])}


@dataclass(frozen=True, slots=True)
class NativeInputReport:
    """What became of the normalisation.

    Attributes:
        rule: ``folded`` (nothing left), ``folded_but_offset`` (one Sub left) or ``prologue`` (nodes).
        why: the reason, in words.
        nodes: operators now in front of the source's first own node, Cast and Transpose included.
        height: input height in pixels.
        width: input width in pixels.
    """

    rule: Rule
    why: str
    nodes: tuple[str, ...]
    height: int
    width: int


def native_input(model: onnx.ModelProto, recipe: InputRecipe) -> tuple[onnx.ModelProto, NativeInputReport]:
    """Replace the float input; the given model stays as it is.

    Args:
        model: one float32 input of static shape ``[1, 3, H, W]`` or ``[1, H, W, 3]``, opset 13 or newer; one channel
            in place of three when the recipe's color is gray.
        recipe: layout, channel order and normalisation of that input.

    Raises:
        RecipeError: the input is not what the recipe says.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    free_names(result, {IMAGE})
    source, (height, width) = _source_input(result, recipe)
    affine = _Affine.of(recipe)
    writer = GraphWriter(result, "native")
    pixels = writer.op("Cast", IMAGE, name="cast", to=TensorProto.FLOAT)
    found = _first_conv(result, source, recipe.layout)
    rule: Rule
    if isinstance(found, str):
        rule, why = "prologue", found
        _redirect(result, source, _write_prologue(writer, pixels, recipe, affine))
    else:
        planes = writer.op("Transpose", pixels, name="nchw", perm=_NHWC_TO_NCHW)
        rule, why = _fold(result, writer, planes, found, affine, (height, width))
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, height, width, 3])
    _replace(result.graph.input, [image])
    _replace(result.graph.node, [*writer.nodes, *result.graph.node])
    del result.graph.value_info[:]
    remove_dead_nodes(result)
    kinds = tuple(node.op_type for node in writer.nodes)
    return result, NativeInputReport(rule, why, kinds, height, width)


def source_input(image_bgr: NDArray[np.uint8], recipe: InputRecipe) -> NDArray[np.float32]:
    """The source's own preprocessing in numpy, what the native input must equal: ``image_bgr`` ``[1, H, W, 3]``."""
    pixels = image_bgr.astype(np.float64)
    if recipe.color == "gray":
        blue, green, red = np.moveaxis(pixels, 3, 0)
        pixels = (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]
    elif recipe.color == "rgb":
        pixels = pixels[..., ::-1]
    scaled = (pixels * recipe.scale - recipe.mean) / recipe.std
    ordered = scaled.transpose(_NHWC_TO_NCHW) if recipe.layout == "nchw" else scaled
    return np.ascontiguousarray(ordered, np.float32)


@dataclass(frozen=True, slots=True)
class _Affine:
    """``x = (from_bgr @ pixel - offset) * factor``, in the source's channel order.

    Attributes:
        from_bgr: what of each image channel is in each source channel, ``[C, 3]``; rows sum to 1.
        offset: per source channel, in pixel units, ``[C]``.
        factor: per source channel, ``[C]``.
    """

    from_bgr: NDArray[np.float64]
    offset: NDArray[np.float64]
    factor: NDArray[np.float64]

    @classmethod
    def of(cls, recipe: InputRecipe) -> _Affine:
        mean, std = (np.broadcast_to(values, recipe.channels) for values in (recipe.mean, recipe.std))
        return cls(_FROM_BGR[recipe.color], mean / recipe.scale, recipe.scale / std)

    @property
    def image_offset(self) -> NDArray[np.float64]:
        """What to subtract from the image's channels, ``[3]``: rows sum to 1, so the one of grey goes off all."""
        return self.offset.repeat(3) if len(self.offset) == 1 else self.from_bgr.T @ self.offset


def _source_input(model: onnx.ModelProto, recipe: InputRecipe) -> tuple[str, tuple[int, int]]:
    """Name of the float input and its height and width."""
    infos = inputs_of(model)
    shape = infos[0].static_shape if len(infos) == 1 else None
    axis = _CHANNEL_AXIS[recipe.layout]
    if (
        shape is None
        or infos[0].dtype != "float32"
        or len(shape) != 4
        or (shape[0], shape[axis]) != (1, recipe.channels)
    ):
        wanted = f"[1,{recipe.channels},H,W]" if recipe.layout == "nchw" else f"[1,H,W,{recipe.channels}]"
        raise RecipeError(
            f"input.layout {recipe.layout}, input.color {recipe.color}: expected one float32 input {wanted}, found "
            f"{describe(infos)}; set input.layout or input.color, or export the model for one picture of fixed size"
        )
    height, width = (side for index, side in enumerate(shape) if index not in (0, axis))
    return infos[0].name, (height, width)


def _first_conv(model: onnx.ModelProto, source: str, layout: str) -> onnx.NodeProto | str:
    """The convolution that alone reads the input (behind the Transpose of an NHWC source), or why there is none."""
    if layout == "nhwc":
        reader = _only_reader(model, source)
        perm = list(_attribute(reader, "perm", [])) if reader is not None else []
        if reader is None or reader.op_type != "Transpose" or perm != _NHWC_TO_NCHW:
            return "the NHWC input does not go through one Transpose to NCHW"
        source = reader.output[0]
    conv = _only_reader(model, source)
    if conv is None or conv.op_type != "Conv" or conv.input[0] != source:
        readers = sorted({node.op_type for node in model.graph.node if source in node.input})
        return f"the first operation is no single convolution but {', '.join(readers) or 'none'}"
    constants = [constant_of(model, name) for name in conv.input[1:] if name]
    if any(value is None or value.dtype != np.float32 for value in constants):
        return "the first convolution's weights are computed, not constant"
    if _attribute(conv, "group", 1) != 1:
        return "the first convolution is grouped"
    return conv


def _fold(
    model: onnx.ModelProto,
    writer: GraphWriter,
    planes: str,
    conv: onnx.NodeProto,
    affine: _Affine,
    input_hw: tuple[int, int],
) -> tuple[Rule, str]:
    """Give the convolution weights for raw pixels; ``planes`` is the picture as float32 ``[1, 3, H, W]``, BGR."""
    weights = np.asarray(constant_of(model, conv.input[1]), np.float64)
    folded = np.einsum("oskl,s,sc->ockl", weights, affine.factor, affine.from_bgr)
    inputs = [planes, writer.constant(folded, np.float32, "weights"), *conv.input[2:]]
    padded = _is_padded(conv, input_hw, weights.shape[2:])
    rule: Rule = "folded"
    if not affine.offset.any():
        why = "factor and channel order folded into the first convolution; there is no mean"
    elif not padded:
        old_bias = constant_of(model, conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
        shift = -folded.sum(axis=(2, 3)) @ affine.image_offset
        bias = shift if old_bias is None else shift + old_bias
        inputs = [*inputs[:2], writer.constant(bias, np.float32, "bias")]
        why = "factor, channel order and mean folded into the first convolution, which pads nothing"
    else:
        offset = affine.image_offset[:, None, None]
        uniform = bool((offset == offset[0]).all())
        inputs[0] = writer.op(
            "Sub", planes, writer.constant(offset[0, 0, 0] if uniform else offset[None], np.float32, "mean"), name="sub"
        )
        rule = "folded_but_offset"
        why = "factor and channel order folded into the first convolution; it pads with zeros, so the mean stays a Sub"
    _replace(conv.input, inputs)
    return rule, why


def _write_prologue(writer: GraphWriter, pixels: str, recipe: InputRecipe, affine: _Affine) -> str:
    """The normalisation as nodes in the source's layout, identities left out."""
    tensor = pixels
    axis = _CHANNEL_AXIS[recipe.layout]
    if recipe.layout == "nchw":
        tensor = writer.op("Transpose", tensor, name="nchw", perm=_NHWC_TO_NCHW)
    if recipe.color == "rgb":
        order = writer.constant([2, 1, 0], np.int64, "rgb_order")
        tensor = writer.op("Gather", tensor, order, name="rgb", axis=axis)
    elif recipe.color == "gray" and recipe.layout == "nchw":
        luma = writer.constant(affine.from_bgr[..., None, None], np.float32, "luma_weights")
        tensor = writer.op("Conv", tensor, luma, name="luma", kernel_shape=[1, 1])
    elif recipe.color == "gray":
        tensor = writer.op(
            "MatMul", tensor, writer.constant(affine.from_bgr.T, np.float32, "luma_weights"), name="luma"
        )
    # Subtracting first keeps the digits where a pixel is close to the offset.
    for op_type, values, neutral in (("Sub", affine.offset, 0.0), ("Mul", affine.factor, 1.0)):
        if (values == neutral).all():
            continue
        # One number for all channels is a scalar: elementwise kernels are fastest with it.
        shape = [-1 if index == axis else 1 for index in range(4)]
        value = values[0] if (values == values[0]).all() else values.reshape(shape)
        name = op_type.lower()
        tensor = writer.op(op_type, tensor, writer.constant(value, np.float32, f"{name}_by"), name=name)
    return tensor


def _is_padded(conv: onnx.NodeProto, input_hw: tuple[int, int], kernel_hw: tuple[int, ...]) -> bool:
    mode = _attribute(conv, "auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        strides, dilations = _attribute(conv, "strides", [1, 1]), _attribute(conv, "dilations", [1, 1])
        return any(
            (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 > size
            for size, kernel, stride, dilation in zip(input_hw, kernel_hw, strides, dilations, strict=True)
        )
    return mode != b"VALID" and any(_attribute(conv, "pads", [0]))


def _only_reader(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto | None:
    """The one node that reads a tensor, once; None when there are others or it is also an output."""
    readers = [node for node in every_node(model.graph) for name in node.input if name == tensor]
    is_output = any(value.name == tensor for value in model.graph.output)
    return readers[0] if len(readers) == 1 and not is_output else None


def _redirect(model: onnx.ModelProto, old: str, new: str) -> None:
    """Let every reader of ``old`` read ``new``."""
    if any(value.name == old for value in model.graph.output):
        raise BuildError(f"the model returns its own input {old}; export it without that output")
    rename_tensor(model, old, new)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _replace(field: Any, values: list[Any]) -> None:
    copies = list(values)
    del field[:]
    field.extend(copies)
