"""How sure a drop is: the paired bootstrap over pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_models.metrics.base import Measure, Observation


@dataclass(frozen=True, slots=True)
class Drop:
    """What a candidate loses against the reference, with its 95 % interval over pictures; below 0 it gains.

    Attributes:
        value: reference - candidate.
        low: lower end of the interval.
        high: upper end.
        reference: the measure of the reference.
        candidate: the measure of the candidate.
        pictures: how many were judged.
        method: where the interval comes from; ``score`` where the bootstrap alone would be too sure.
    """

    value: float
    low: float
    high: float
    reference: float
    candidate: float
    pictures: int
    method: Literal["bootstrap", "score"]

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def paired_bootstrap(
    measure: Measure[Observation],
    reference: Sequence[Observation],
    candidate: Sequence[Observation],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Drop:
    """The drop and its 95 % interval; both models must have observed the same pictures in the same order."""
    raise NotImplementedError


def needed_pictures(drop: Drop, pictures: int, budget: float) -> int:
    """About how many pictures in all it takes until the interval's half width fits the budget."""
    raise NotImplementedError
