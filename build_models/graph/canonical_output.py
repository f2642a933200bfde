"""The source's outputs become the canonical ones: ``scores``, or ``boxes``, ``scores`` and ``labels``.

The raw head stays in the graph under a known name, so that quantisation can leave the decoding in float and
verification can look at what the network itself computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from build_models.errors import RecipeError
from build_models.graph.model_io import free_names, remove_dead_nodes
from build_models.graph.writer import GraphWriter
from build_models.source.families import FAMILIES
from build_models.source.families.base import DetectFamily

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_models.source.families.base import Family, Head

CANONICAL_NAMES = ("boxes", "scores", "labels")


@dataclass(frozen=True, slots=True)
class CanonicalReport:
    """How the outputs were understood.

    Attributes:
        family: the recipe's family with nothing left open; its ``reference`` takes the source's outputs by name.
        rule: what they were recognised by.
        classes: number of labels.
        anchors: boxes before selection; 0 for classification.
        raw_tensors: the source's output names to the tensors that hold them in the graph.
    """

    family: Family
    rule: str
    classes: int
    anchors: int
    raw_tensors: dict[str, str]


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
    head = _recognise(model, family, input_hw)
    if len(labels) != head.classes:
        raise RecipeError(f"labels: expected {head.classes} names, one per class of the model, got {len(labels)}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    moved = free_names(result, CANONICAL_NAMES)
    raw = {name: moved.get(name, name) for name in head.tensors}
    writer = GraphWriter(result, "canonical")
    head.family.append(writer, head, tuple(raw.values()), input_hw)
    result.graph.node.extend(writer.nodes)
    kept = [value for value in result.graph.output if value.name in raw.values()]
    del result.graph.output[:]
    result.graph.output.extend(_canonical_values(head))
    # Their shapes are worth keeping: tools find the raw head by them.
    result.graph.value_info.extend(kept)
    remove_dead_nodes(result)
    return result, CanonicalReport(head.family, head.rule, head.classes, head.anchors, raw)


def _recognise(model: onnx.ModelProto, family: Family, input_hw: tuple[int, int]) -> Head:
    try:
        return family.recognise(model, input_hw)
    except RecipeError as err:
        raise RecipeError(f"{err}; families known: {', '.join(FAMILIES)}") from err


def _canonical_values(head: Head) -> list[onnx.ValueInfoProto]:
    family = head.family
    if not isinstance(family, DetectFamily):
        return [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, head.classes])]
    kept = family.kept(head.anchors, head.classes)
    return [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, kept, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, kept]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, kept]),
    ]
