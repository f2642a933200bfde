"""Family ``logits``: one vector of class scores for the whole picture."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from build_models.errors import RecipeError
from build_models.graph.model_io import inputs_of, run_model, with_outputs
from build_models.source.families.base import Arrays, Family, Head

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from build_models.graph.writer import GraphWriter

_PROBES = 3
_SUM_TOLERANCE = 1e-3


class Logits(Family):
    """Classification: output ``[1, C]`` (or with sides of 1 added)."""

    task: ClassVar[Literal["classify", "detect"]] = "classify"
    expects: ClassVar[str] = "one float32 output [1,C] of class scores"
    family: Literal["logits"] = "logits"
    activation: Literal["auto", "softmax", "sigmoid", "none"] = Field(
        "auto", description='what turns the output into probabilities; "auto": none if rows sum to 1, else softmax'
    )
    tensor: str | None = Field(None, description="name of the output; null: the only one")

    def recognise(self, model: onnx.ModelProto, input_hw: tuple[int, int]) -> Head:
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
        else:
            writer.op("Sigmoid", row, name="sigmoid", output="scores")

    def reference(self, raw: Mapping[str, NDArray[Any]], input_hw: tuple[int, int]) -> Arrays:
        """``scores`` float32 ``[1, C]``."""
        assert self.tensor is not None, "reference() belongs to the family of a Head"
        row = raw[self.tensor].reshape(-1).astype(np.float64)
        if self.activation == "softmax":
            powers = np.exp(row - row.max())
            row = powers / powers.sum()
        elif self.activation == "sigmoid":
            row = 1 / (1 + np.exp(-row))
        return {"scores": row[None].astype(np.float32)}

    def _activation(self, model: onnx.ModelProto, tensor: str) -> tuple[str, str]:
        rows = _probe(model, tensor)
        in_range = bool((rows >= -_SUM_TOLERANCE).all() and (rows <= 1 + _SUM_TOLERANCE).all())
        sums_to_one = in_range and bool((np.abs(rows.sum(axis=1) - 1) < _SUM_TOLERANCE).all())
        seen = f"over {_PROBES} random pictures the values lie in {rows.min():.3g}..{rows.max():.3g}" + (
            " and sum to 1" if sums_to_one else ""
        )
        if self.activation == "auto":
            return ("none" if sums_to_one else "softmax"), f"activation found: {seen}"
        if self.activation == "none" and not in_range:
            raise RecipeError(f"output.activation: none needs probabilities, but {seen}; use softmax or sigmoid")
        if self.activation != "none" and sums_to_one and rows.shape[1] > 1:
            raise RecipeError(f"output.activation: {self.activation} on top of probabilities: {seen}; use none")
        return self.activation, f"activation from the recipe; {seen}"


def _probe(model: onnx.ModelProto, tensor: str) -> NDArray[np.float64]:
    """The output's rows ``[_PROBES, C]`` for random pictures, uint8 or float32 as the model's input wants."""
    (source,) = inputs_of(model)
    rng = np.random.default_rng(0)
    probe = with_outputs(model, [tensor])
    rows = []
    for _ in range(_PROBES):
        picture = rng.integers(0, 256, source.static_shape)
        rows.append(run_model(probe, {source.name: picture.astype(source.dtype)})[tensor].reshape(-1))
    return np.stack(rows).astype(np.float64)
