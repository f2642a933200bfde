"""Family ``logits``: one vector of class scores for the whole picture."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from build_models.errors import RecipeError
from build_models.graph.model_io import TensorInfo
from build_models.source.families.base import Arrays, Family, Head
from build_models.source.families.probe import PROBES, probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from agent.model.manifest import Task
    from build_models.graph.writer import GraphWriter

_SUM_TOLERANCE = 1e-3


class Logits(Family):
    """Classification: output ``[1, C]`` (or with sides of 1 added)."""

    task: ClassVar[Task] = "classify"
    expects: ClassVar[str] = "one float32 output [1,C] of class scores"
    family: Literal["logits"] = "logits"
    activation: Literal["auto", "softmax", "sigmoid", "exp", "none"] = Field(
        "auto",
        description='what turns the output into probabilities; "auto": none if rows sum to 1, exp if their '
        "exponentials do, else softmax",
    )
    tensor: str | None = Field(None, description="name of the output; null: the only one")

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int], label_count: int) -> Head:
        """Find the vector, and whether its values are probabilities already (measured on random pictures)."""
        info = self.pick(model, self.tensor)
        shape = info.static_shape or ()
        classes = prod(shape)
        if not shape or shape[0] not in (1, classes) or sum(side > 1 for side in shape) > 1:
            raise self.mismatch(model)
        activation, rule = self._activation(model, info.name)
        family = self.model_copy(update={"tensor": info.name, "activation": activation})
        return Head(family, (info.name,), classes, 0, rule)

    def append(self, writer: GraphWriter, head: Head, tensors: tuple[str, ...], input_hw: tuple[int, int]) -> None:
        """Reshape to ``[1, C]`` and apply the activation."""
        if self.activation == "none":
            writer.reshape(tensors[0], (1, head.classes), "row", output="scores")
            return
        row = writer.reshape(tensors[0], (1, head.classes), "row")
        if self.activation == "softmax":
            writer.op("Softmax", row, name="softmax", output="scores", axis=1)
        elif self.activation == "exp":
            writer.op("Exp", row, name="exp", output="scores")
        else:
            writer.op("Sigmoid", row, name="sigmoid", output="scores")

    def canonical(self, head: Head) -> list[TensorInfo]:
        """A probability a class."""
        return [TensorInfo("scores", "float32", (1, head.classes))]

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """``scores`` float32 ``[1, C]``."""
        assert self.tensor is not None, "reference() belongs to the family of a Head"
        row = raw[self.tensor].reshape(-1).astype(np.float64)
        if self.activation == "softmax":
            powers = np.exp(row - row.max())
            row = powers / powers.sum()
        elif self.activation == "exp":
            row = np.exp(row)
        elif self.activation == "sigmoid":
            row = 1 / (1 + np.exp(-row))
        return {"scores": row[None].astype(np.float32)}

    def _activation(self, model: onnx.ModelProto, tensor: str) -> tuple[str, str]:
        rows = probe(model, tensor).reshape(PROBES, -1).astype(np.float64)
        in_range = bool((rows >= -_SUM_TOLERANCE).all() and (rows <= 1 + _SUM_TOLERANCE).all())
        sums_to_one = in_range and _sum_to_one(rows)
        logarithms = bool((rows <= _SUM_TOLERANCE).all()) and _sum_to_one(np.exp(np.minimum(rows, 0)))
        seen = f"over {PROBES} random pictures the values lie in {rows.min():.3g}..{rows.max():.3g}"
        if sums_to_one:
            seen += " and sum to 1"
        elif logarithms:
            seen += " and their exponentials sum to 1"
        if self.activation == "auto":
            found = "none" if sums_to_one else "exp" if logarithms else "softmax"
            return found, f"activation found: {seen}"
        if self.activation == "none" and not in_range:
            raise RecipeError(f"output.activation: none needs probabilities, but {seen}; use softmax or sigmoid")
        if self.activation != "none" and sums_to_one and rows.shape[1] > 1:
            raise RecipeError(f"output.activation: {self.activation} on top of probabilities: {seen}; use none")
        if self.activation == "exp" and not logarithms:
            raise RecipeError(f"output.activation: exp needs logarithms of probabilities, but {seen}; use softmax")
        return self.activation, f"activation from the recipe; {seen}"


def _sum_to_one(rows: NDArray[np.float64]) -> bool:
    return bool((np.abs(rows.sum(axis=1) - 1) < _SUM_TOLERANCE).all())
