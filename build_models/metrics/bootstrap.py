"""How sure a drop is: the paired bootstrap over pictures, and what to say where it would be too sure.

Pictures are drawn with repetition, as many as there are, the same ones for both models; the drop's 2.5 and 97.5
percentiles over many draws are its interval (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).

That interval is too narrow where few pictures differ between the models, and empty where none does, however few
there are. So for yes-or-no measures (top-1) it is widened to Tango's score interval for the difference of paired
proportions (Statistics in Medicine 17, 891-908, 1998), which without any difference is +-z^2 / (n + z^2), z = 1.96:
a two-sided kin of the rule of three. Other measures have no such interval; where every draw shows the same drop, the
same +-z^2 / (n + z^2) around it is given: so large a share of all pictures may differ although none of these n does,
and a differing picture is taken to change the measure by no more than its share of the pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from build_models.errors import RecipeError
from build_models.metrics.base import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from build_models.metrics.base import Measure, Observation

_Z = 1.959964  # of a two-sided 95 % interval
_PERCENTILES = (2.5, 97.5)
_ROUNDING = 1e-12
_WEIGHTS_AT_ONCE = 2**23  # 64 MiB


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
        method: where the interval comes from; ``score`` where it had to be wider than the bootstrap's.
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
        """Of the interval."""
        return (self.high - self.low) / 2


def paired_bootstrap(
    measure: Measure[Observation],
    reference: Sequence[Observation],
    candidate: Sequence[Observation],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Drop:
    """The drop and its 95 % interval.

    Args:
        measure: what observed both.
        reference: of each picture.
        candidate: of the same pictures in the same order.
        seed: of the draws.
        resamples: how many draws.

    Raises:
        RecipeError: the measure is undefined on these pictures, for instance because they show no objects.
    """
    pictures = len(reference)
    if len(candidate) != pictures:
        raise ValueError(f"expected the same pictures, got {pictures} of the reference, {len(candidate)} of the other")
    both = (reference, candidate)
    before, after = (value(measure, observations) if pictures else math.nan for observations in both)
    if math.isnan(before) or math.isnan(after):
        raise RecipeError(f"expected pictures whose labels {measure.name} can judge, got {pictures} without any")
    drop = before - after
    draws = _draws(pictures, seed, resamples)
    drops = np.concatenate([measure.values(reference, rows) - measure.values(candidate, rows) for rows in draws])
    low, high = np.nanpercentile(drops, _PERCENTILES).tolist()
    wide_low, wide_high = _least_interval(measure, reference, candidate, drop, is_flat=high - low < _ROUNDING)
    method: Literal["bootstrap", "score"] = "score" if wide_low < low or wide_high > high else "bootstrap"
    return Drop(drop, min(low, wide_low, drop), max(high, wide_high, drop), before, after, pictures, method)


def needed_pictures(drop: Drop, pictures: int, budget: float) -> int:
    """About how many pictures in all it takes until the interval's half width fits the budget.

    An interval of a mean narrows with the square root of the pictures (Cochran, Sampling Techniques, chapter 4), hence
    ``n (half / budget)^2``; one of no difference at all narrows with their number: ``z^2 / budget - z^2``.

    Args:
        drop: as measured.
        pictures: on how many.
        budget: the half width wished for, above 0.
    """
    if not budget > 0:
        raise ValueError(f"expected a budget above 0, got {budget}")
    half = drop.half_width
    if half <= budget:
        return pictures
    if math.isclose(half, _half_without_difference(pictures), rel_tol=1e-6):
        return math.ceil(_Z**2 / budget - _Z**2)
    return math.ceil(pictures * (half / budget) ** 2)


def score_interval(lost: int, gained: int, pictures: int) -> tuple[float, float]:
    """Tango's 95 % interval of ``(lost - gained) / pictures``, the difference of paired proportions.

    Args:
        lost: pictures that only the reference has right.
        gained: pictures that only the candidate has right.
        pictures: in all, at least 1.
    """
    seen = (lost - gained) / pictures

    def surprise(drop: float) -> float:
        """How far from ``drop``, in its standard deviations, the drop seen lies; falls with ``drop``."""
        a = 2.0 * pictures
        b = (2 * pictures - lost + gained) * drop - lost - gained
        c = -gained * drop * (1 - drop)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = pictures * (2 * share + drop * (1 - drop))
        return (lost - gained - pictures * drop) / math.sqrt(variance) if variance > 0 else 0.0

    return _root(lambda drop: surprise(drop) - _Z, -1.0, seen), _root(lambda drop: surprise(drop) + _Z, seen, 1.0)


def _least_interval(
    measure: Measure[Observation],
    reference: Sequence[Observation],
    candidate: Sequence[Observation],
    drop: float,
    *,
    is_flat: bool,
) -> tuple[float, float]:
    """What the interval must cover at least, whatever the draws say."""
    before, after = measure.verdicts(reference), measure.verdicts(candidate)
    if before is not None and after is not None:
        counts = ~np.isnan(before)
        lost, gained = int((before > after)[counts].sum()), int((before < after)[counts].sum())
        return score_interval(lost, gained, int(counts.sum()))
    half = _half_without_difference(len(reference)) if is_flat else 0.0
    return drop - half, drop + half


def _half_without_difference(pictures: int) -> float:
    return _Z**2 / (pictures + _Z**2)


def _draws(pictures: int, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """How often each picture is in each draw, int64 ``[R, P]``, in pieces of bounded size."""
    rng = np.random.default_rng(seed)
    most = max(1, _WEIGHTS_AT_ONCE // pictures)
    for first in range(0, resamples, most):
        count = min(most, resamples - first)
        drawn = rng.integers(0, pictures, (count, pictures)) + np.arange(count)[:, None] * pictures
        yield np.bincount(drawn.ravel(), minlength=count * pictures).reshape(count, pictures)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
