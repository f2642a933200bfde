"""Inputs of noise for a model that is only to be run: to prove two forms of it equal, or to time it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from build_models.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from build_models.graph.model_io import TensorInfo


def random_feeds(infos: Iterable[TensorInfo], seed: int) -> dict[str, NDArray[Any]]:
    """Noise of each input's type: floats normal, bytes 0..255, other integers 0 and 1; a free first axis becomes 1.

    Raises:
        RecipeError: another axis is free, or the type is none of numbers.
    """
    rng = np.random.default_rng(seed)
    return {info.name: _noise(info, rng) for info in infos}


def _noise(info: TensorInfo, rng: np.random.Generator) -> NDArray[Any]:
    shape = [1 if axis == 0 and not isinstance(side, int) else side for axis, side in enumerate(info.shape)]
    sides = [side for side in shape if isinstance(side, int)]
    if len(sides) < len(shape):
        raise RecipeError(f"the model takes any size ({info}): give inputs of the size that is meant, --input FILE")
    if info.dtype in ("uint8", "int8"):
        limits = np.iinfo(info.dtype)
        return rng.integers(limits.min, limits.max + 1, sides).astype(info.dtype)
    if info.dtype.startswith("float"):
        return rng.standard_normal(sides).astype(info.dtype)
    if info.dtype.startswith(("int", "uint", "bool")):
        return rng.integers(0, 2, sides).astype(info.dtype)
    raise RecipeError(f"no noise can be made for the input {info}: give inputs, --input NAME=FILE")
