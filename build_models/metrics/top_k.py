"""Classification: how often the right class is among the k best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from build_models.data.sample import ClassTruth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.vision.resize import Placement
    from build_models.data.sample import Truth
    from build_models.metrics.base import Outputs


class TopK:
    """The share of pictures whose class is among the ``k`` best; of equal scores the lower class id is better.

    Args:
        k: 1 or more.
        classes: only pictures of these class ids count; None: all do.
    """

    task: Literal["classify"] = "classify"

    def __init__(self, k: int, classes: frozenset[int] | None = None) -> None:
        self.name = f"top{k}"
        self._k = k
        self._classes = classes

    def observe(self, outputs: Outputs, truth: Truth, placement: Placement) -> float:
        """1 for right, 0 for wrong (also where a score is NaN), NaN where the picture does not count."""
        if not isinstance(truth, ClassTruth):
            raise TypeError(f"expected a class as the truth, got {type(truth).__name__}")
        if self._classes is not None and truth.label not in self._classes:
            return float("nan")
        scores = outputs["scores"][0]
        if np.isnan(scores).any():
            return 0.0
        return float(truth.label in np.argsort(-scores, kind="stable")[: self._k])

    def verdicts(self, observations: Sequence[float]) -> NDArray[np.float64] | None:
        return np.asarray(observations, np.float64)

    def values(self, observations: Sequence[float], weights: NDArray[np.int64]) -> NDArray[np.float64]:
        right = np.asarray(observations, np.float64)
        counts = ~np.isnan(right)
        total = weights @ counts.astype(np.float64)
        shares = np.full(len(weights), np.nan)
        np.divide(weights @ np.where(counts, right, 0.0), total, out=shares, where=total > 0)
        return shares
