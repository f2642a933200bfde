"""Sums, differences, products and quotients with a constant, all seen as ``x * scale + offset``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from build_models.graph.passes.editing import keeps_shape

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from build_models.graph.passes.editing import GraphEdit

AFFINE_OPS = ("Add", "Sub", "Mul", "Div", "Neg")
_ONE, _ZERO = np.array(1.0), np.array(0.0)


@dataclass(frozen=True)
class Affine:
    """``source * scale + offset`` in float64; both broadcast to the shape of ``source``."""

    source: str
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def scales(self) -> bool:
        """Whether it multiplies at all."""
        return bool((self.scale != 1).any())

    @property
    def shifts(self) -> bool:
        """Whether it adds at all."""
        return bool(self.offset.any())

    @classmethod
    def of(cls, edit: GraphEdit, node: onnx.NodeProto) -> Affine | None:
        """None when it is none, or its result is of another shape or perhaps another shape than the source.

        A division becomes the product with the reciprocal, which differs by the last bit.
        """
        if edit.opset < 7:  # broadcasting was an attribute
            return None
        if node.op_type == "Neg":
            is_float = edit.element_type(node.input[0]) == TensorProto.FLOAT
            return cls(node.input[0], -_ONE, _ZERO) if is_float else None
        for index in (0, 1):
            value, source = edit.constant(node.input[1 - index]), node.input[index]
            if value is None or value.dtype != np.float32 or not np.isfinite(value).all():
                continue
            found = cls._with_constant(node.op_type, source, value.astype(np.float64), constant_first=index == 1)
            return found if keeps_shape(edit.dims(source), value.shape) else None
        return None

    @classmethod
    def _with_constant(
        cls, op_type: str, source: str, value: NDArray[np.float64], *, constant_first: bool
    ) -> Affine | None:
        if op_type == "Add":
            return cls(source, _ONE, value)
        if op_type == "Mul":
            return cls(source, value, _ZERO)
        if op_type == "Sub":
            return cls(source, -_ONE, value) if constant_first else cls(source, _ONE, -value)
        return None if constant_first or not value.all() else cls(source, 1 / value, _ZERO)

    def then(self, later: Affine) -> Affine | None:
        """Both in one; None when the combined constants would be larger than each."""
        scale, offset = self.scale * later.scale, self.offset * later.scale + later.offset
        largest = max(each.size for each in (self.scale, self.offset, later.scale, later.offset))
        return Affine(self.source, scale, offset) if max(scale.size, offset.size) <= largest else None
