"""The forms of an int8 file: which is fastest depends on the machine, so it is measured there and never assumed.

On x86 a first convolution of three channels is slow in int8: it is packed, or left in float where the size does not
allow that. Depthwise convolutions of large maps are slow too, and a stretch of float pays only where it is long
enough for its Quantize and Dequantize: all that has the highest resolution is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_models.quantize.costs import shapes_of
from build_models.quantize.islands import WEIGHTED
from build_models.quantize.pixels import pixel_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

_FUSES_INTO_CONV = {"Relu", "Clip"}


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        name: as reports say it.
        in_float: names of the nodes that it keeps in float.
        packed_stem: the first convolution on groups of pixels, see `stem.py`.
    """

    name: str
    in_float: Callable[[onnx.ModelProto], frozenset[str]]
    packed_stem: bool = False


def form_named(name: str) -> Form:
    """The form of that name."""
    (form,) = (each for each in FORMS if each.name == name)
    return form


def _nothing(_: onnx.ModelProto) -> frozenset[str]:
    return frozenset()


def _stem(model: onnx.ModelProto) -> frozenset[str]:
    """The convolutions that read the picture, also behind a mean, and what fuses into them."""
    return _unless_all(model, _stem_nodes(model))


def _stem_nodes(model: onnx.ModelProto) -> set[str]:
    pixels = set(pixel_tensors(model))
    outputs: set[str] = set()
    names = set()
    for node in model.graph.node:
        if node.op_type in ("Sub", "Add") and node.input[0] in pixels:
            pixels.update(node.output)
            names.add(node.name)
        if node.op_type == "Conv" and node.input[0] in pixels:
            outputs.update(node.output)
            names.add(node.name)
        if node.op_type in _FUSES_INTO_CONV and node.input[0] in outputs:
            names.add(node.name)
    return names


def _high_resolution(model: onnx.ModelProto) -> frozenset[str]:
    """The stem, and what still has a map of at least half the input's height in front of the first coarser one."""
    shapes = shapes_of(model)
    height = shapes["image"][1]
    names = _stem_nodes(model)
    for node in model.graph.node:
        shape = shapes.get(node.output[0], ())
        fine = len(shape) == 4 and shape[2] * 2 >= height
        if len(shape) == 4 and shape[2] * 2 < height:
            break
        if fine and node.op_type != "Cast":
            names.add(node.name)
    return _unless_all(model, names)


def _unless_all(model: onnx.ModelProto, names: set[str]) -> frozenset[str]:
    """The names, or none where no convolution or product would be left to run in int8."""
    weighted = {node.name for node in model.graph.node if node.op_type in WEIGHTED}
    return frozenset(names) if weighted - names else frozenset()


PLAIN = Form("plain", _nothing)
PACKED = Form("packed stem", _nothing, packed_stem=True)
FORMS = (
    PLAIN,
    PACKED,
    Form("stem in float", _stem),
    Form("high resolution in float", _high_resolution),
)
