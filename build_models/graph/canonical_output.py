"""The source's outputs become the canonical ones of its task: scores, or boxes, scores and labels, or a mask.

The raw head stays in the graph under a known name, so that quantisation can leave the decoding in float and
verification can look at what the network itself computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from build_models.errors import RecipeError
from build_models.graph.model_io import free_names, remove_dead_nodes
from build_models.graph.writer import GraphWriter
from build_models.source.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_models.source.families.base import Family, Head

CANONICAL_NAMES = ("boxes", "scores", "labels", "mask", "confidence")


@dataclass(frozen=True, slots=True)
class CanonicalReport:
    """How the outputs were understood.

    Attributes:
        family: the recipe's family with nothing left open; its ``reference`` takes the source's ``outputs`` by name.
        rule: what they were recognised by.
        classes: number of labels.
        anchors: boxes before selection; 0 for tasks without boxes.
        raw_tensors: the source's tensors that the decoding starts from, to those that hold them in the graph; mostly
            the source's outputs, but the network may end earlier.
        outputs: the source's outputs that ``reference`` reads.
    """

    family: Family
    rule: str
    classes: int
    anchors: int
    raw_tensors: dict[str, str]
    outputs: tuple[str, ...]


def canonical_output(
    model: onnx.ModelProto, family: Family, input_hw: tuple[int, int], labels: Sequence[str]
) -> tuple[onnx.ModelProto, CanonicalReport]:
    """Append the family's decoding; the given model stays as it is.

    Args:
        model: static shapes, opset 13 or newer, the source's own outputs.
        family: the recipe's ``output``.
        input_hw: height and width of the input in pixels.
        labels: names of the classes; their number must be the model's.

    Raises:
        RecipeError: the model is not of this family, or has another number of classes.
    """
    head = _recognise(model, family, input_hw, len(labels))
    if len(labels) != head.classes:
        raise RecipeError(f"labels: expected {head.classes} names, one per class of the model, got {len(labels)}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    moved = free_names(result, CANONICAL_NAMES)
    raw = {name: moved.get(name, name) for name in head.inner or head.tensors}
    writer = GraphWriter(result, "canonical")
    head.family.append(writer, head, tuple(raw.values()), input_hw)
    result.graph.node.extend(writer.nodes)
    kept = [value for value in result.graph.output if value.name in raw.values()]
    del result.graph.output[:]
    for info in head.family.canonical(head):
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(info.dtype))
        result.graph.output.append(helper.make_tensor_value_info(info.name, dtype, info.shape))
    # Their shapes are worth keeping: tools find the raw head by them.
    result.graph.value_info.extend(kept)
    remove_dead_nodes(result)
    return result, CanonicalReport(head.family, head.rule, head.classes, head.anchors, raw, head.tensors)


def _recognise(model: onnx.ModelProto, family: Family, input_hw: tuple[int, int], label_count: int) -> Head:
    try:
        return family.recognise(model, input_hw, label_count)
    except RecipeError as err:
        raise RecipeError(f"{err}; families known: {', '.join(FAMILIES)}") from err
