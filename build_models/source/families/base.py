"""What every output family offers: recognise its model, append its decoding, and a numpy reference of the same.

A family object *is* its options in the recipe. ``recognise`` fills in what the recipe left open, so the family of
the returned ``Head`` is complete, and its ``reference`` needs nothing but the source's raw outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from agent.model.manifest import Record
from build_models.errors import RecipeError
from build_models.graph.model_io import TensorInfo, describe, outputs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from agent.model.manifest import Task
    from build_models.graph.writer import GraphWriter

Arrays = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, slots=True)
class Head:
    """What a family found.

    Attributes:
        family: the options with nothing left open.
        tensors: the model's outputs that hold the raw head, in the family's order: what ``reference`` reads.
        classes: number of labels.
        anchors: number of boxes before selection; 0 for tasks without boxes.
        rule: how the outputs were recognised, for the report.
        inner: the tensors that ``append`` reads, where they lie before the outputs; empty: the outputs.
        size_hw: height and width of the map or mask, where the family has one.
    """

    family: Family
    tensors: tuple[str, ...]
    classes: int
    anchors: int
    rule: str
    inner: tuple[str, ...] = ()
    size_hw: tuple[int, int] = (0, 0)


class Family(Record, ABC):
    """A kind of model output and how it is decoded."""

    task: ClassVar[Task]
    expects: ClassVar[str]
    input_defaults: ClassVar[dict[str, Any]] = {}
    family: str

    @abstractmethod
    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """Find the head among the outputs of a model of static shape.

        Args:
            model: with its own outputs.
            input_hw: height and width of its input in pixels.
            label_count: how many names the recipe gives; decides only what the shapes leave open.

        Raises:
            RecipeError: it is another family.
        """

    @abstractmethod
    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """Write the nodes from the raw head, named ``tensors`` in this graph, to the canonical outputs."""

    @abstractmethod
    def canonical(self, head: Head) -> list[TensorInfo]:
        """The outputs that ``append`` writes."""

    @abstractmethod
    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """The canonical outputs from the source's raw outputs by name, in numpy, written independently of the graph."""

    def pick(self, model: onnx.ModelProto, name: str | None) -> TensorInfo:
        """The output called ``name``, or the only one; its shape is static. Raises RecipeError."""
        outputs = outputs_of(model)
        found = [info for info in outputs if name in (None, info.name)]
        if len(found) == 1:
            return self.checked(found[0])
        if name is None:
            raise RecipeError(
                f"family {self.family}: expected one output, {self.expects}, found {len(outputs)}: "
                f"{describe(outputs)}; name the right one in the recipe"
            )
        raise RecipeError(f"family {self.family}: the model has no output {name!r}, it has {describe(outputs)}")

    def checked(self, info: TensorInfo) -> TensorInfo:
        """The same tensor if it is float32 of static shape; raises RecipeError."""
        if info.dtype != "float32" or info.static_shape is None:
            raise RecipeError(f"family {self.family}: expected float32 outputs of fixed shape, found {info}")
        return info

    def mismatch(self, model: onnx.ModelProto, why: str = "") -> RecipeError:
        """The error for a model of another family."""
        reason = f" ({why})" if why else ""
        return RecipeError(
            f"family {self.family}: expected {self.expects}, found {describe(outputs_of(model))}{reason}"
        )


class DetectFamily(Family):
    """Families of boxes; ``candidates`` is K, the number of boxes that leave the graph for suppression."""

    task: ClassVar[Task] = "detect"
    candidates: Annotated[int, Field(ge=1, le=3840)] = Field(
        300, description="best anchors that leave the graph, before non-maximum suppression on the device"
    )
    multi_label: bool = Field(False, description="rank anchor-class pairs rather than anchors by their best class")

    def kept(self, anchors: int, classes: int) -> int:
        """K: never more than there are anchors (or pairs)."""
        return min(self.candidates, anchors * classes if self.multi_label else anchors)

    def canonical(self, head: Head) -> list[TensorInfo]:
        """K boxes, their scores and labels."""
        kept = self.kept(head.anchors, head.classes)
        boxes = TensorInfo("boxes", "float32", (1, kept, 4))
        return [boxes, TensorInfo("scores", "float32", (1, kept)), TensorInfo("labels", "int64", (1, kept))]


def reference_selection(
    family: DetectFamily, boxes_xyxy: NDArray[np.float32], class_scores: NDArray[np.float32]
) -> Arrays:
    """The K best of boxes ``[N, 4]`` with scores ``[N, C]`` as canonical outputs; of equal scores the first wins."""
    anchors, classes = class_scores.shape
    if family.multi_label:
        anchor_ids, labels = np.divmod(np.arange(anchors * classes), classes)
    else:
        anchor_ids, labels = np.arange(anchors), class_scores.argmax(axis=1)
    scores = class_scores[anchor_ids, labels]
    order = np.argsort(-scores, kind="stable")[: family.kept(anchors, classes)]
    return {
        "boxes": boxes_xyxy[anchor_ids[order]][None].astype(np.float32),
        "scores": scores[order][None].astype(np.float32),
        "labels": labels[order][None].astype(np.int64),
    }
