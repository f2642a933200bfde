"""From a histogram to the range that a tensor is quantised over: the calibration methods.

Every method gives a range that contains zero and lies within the values seen (extended to zero): the grid of an
unsigned 8-bit tensor must represent zero, and no value outside was ever there.

A range is for `LEVELS` values, asymmetric. Where the literature is about symmetric or one-sided ranges, the window is
what a symmetric threshold leaves of the values seen: ``[max(low, -t), min(high, t)]``, as ONNX Runtime does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from build_models.quantize.histograms import Histograms, TensorHistogram
    from build_models.quantize.ranges import Ranges

LEVELS = 256
_SMOOTHING = 1e-4
_MSE_STEPS = 64
_MSE_ROUNDS = 4


def ranges_of(histograms: Histograms, method: str) -> Ranges:
    """The range of every tensor by one of `METHODS`.

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"expected a calibration method of {', '.join(METHODS)}, got {method!r}")
    return {name: METHODS[method](histogram) for name, histogram in histograms.tensors.items()}


def min_max(histogram: TensorHistogram) -> tuple[float, float]:
    """All values seen."""
    return histogram.low_with_zero, histogram.high_with_zero


def moving_average(histogram: TensorHistogram) -> tuple[float, float]:
    """The pictures' extremes, averaged exponentially with `build_models.quantize.ranges.MOMENTUM`."""
    return min(histogram.moving_low, 0.0), max(histogram.moving_high, 0.0)


def percentile(histogram: TensorHistogram, percent: float) -> tuple[float, float]:
    """The range that holds ``percent`` of the values, with half of the rest on either side.

    Cut at the outer edges of bins. A tensor that is all but zero keeps all of its range: its few values are what it
    says.
    """
    total = int(histogram.counts.sum())
    cut = total * (1 - percent / 100) / 2
    # Whole numbers of values, so that rounding decides nothing: the first bin with more than ``cut`` from its side.
    below = np.cumsum(histogram.counts)
    first = int(np.searchsorted(below, cut, side="right"))
    last = len(below) - 1 - int(np.searchsorted(np.cumsum(histogram.counts[::-1]), cut, side="right"))
    low = (first - histogram.zero_bin - 0.5) * histogram.width if first < histogram.zero_bin else 0.0
    high = (last - histogram.zero_bin + 0.5) * histogram.width if last > histogram.zero_bin else 0.0
    return _within(low, high, histogram)


def entropy(histogram: TensorHistogram) -> tuple[float, float]:
    """The range of least Kullback-Leibler divergence between the values clipped to it and their quantised form.

    As in TensorRT (S. Migacz, 8-bit Inference with TensorRT, GTC 2017) and MXNet's ``_get_optimal_threshold``, whose
    smoothing this takes: P is the histogram in the window with all outliers added to its last bins, Q the histogram
    in the window merged to `LEVELS` and spread over the bins that P fills. Levels are of equal width here, where
    those give the remainder of an integer division to the last one. The zero bin counts as its neighbours do, as in
    NVIDIA's pytorch-quantization: the zeros behind a Relu are exact in every range, and would decide all.
    """
    zero = histogram.zero_bin
    counts = histogram.counts.astype(np.float64)
    counts[zero] = counts[max(zero - 1, 0) : zero + 2].sum() - counts[zero]
    counts[zero] /= 2 if 0 < zero < len(counts) - 1 else 1
    reach = max(zero, len(counts) - 1 - zero)
    best, chosen = np.inf, reach
    for threshold in range(reach, 0, -max(1, len(counts) // LEVELS)):
        start, end = max(zero - threshold, 0), min(zero + threshold + 1, len(counts))
        if end - start < LEVELS:
            break
        divergence = _divergence(counts, start, end)
        if divergence < best:
            best, chosen = divergence, threshold
    outer = (chosen + 0.5) * histogram.width
    return _within(-outer, outer, histogram)


def mean_squared_error(histogram: TensorHistogram) -> tuple[float, float]:
    """The range of least expected squared quantisation error over the histogram.

    Low and high end are searched in turn, each over `_MSE_STEPS` shares of the values seen and then finer about the
    best, until neither moves.
    """
    low, high = min_max(histogram)
    for _ in range(_MSE_ROUNDS):
        before = (low, high)
        if histogram.high > 0:
            ends = _candidates(high, histogram.high_with_zero)
            high = float(ends[np.argmin(expected_error(histogram, np.full(len(ends), low), ends))])
        if histogram.low < 0:
            ends = _candidates(low, histogram.low_with_zero)
            low = float(ends[np.argmin(expected_error(histogram, ends, np.full(len(ends), high)))])
        if (low, high) == before:
            break
    return _within(low, high, histogram)


def expected_error(
    histogram: TensorHistogram, lows: NDArray[np.float64], highs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean squared error of quantising the values to `LEVELS` over each range ``lows[i]..highs[i]``, shape ``[n]``.

    Zero is a level, as in ONNX Runtime: the zero point is rounded. Values are taken as spread evenly over their bin
    and the error is integrated over it, so a bin may be wider than a level; those of the zero bin are taken as zero.
    """
    counts = histogram.counts.copy()
    counts[histogram.zero_bin] = 0
    steps = ((highs - lows) / (LEVELS - 1))[:, None]
    steps = np.where(steps > 0, steps, 1.0)
    zero_points = np.round(-lows[:, None] / steps)
    # Summed by parts: each bin's integral is that up to its end less that up to its beginning.
    weights = -np.diff(counts, prepend=0, append=0)
    edges = np.flatnonzero(weights)
    x = (edges - histogram.zero_bin - 0.5) * histogram.width / steps
    errors: NDArray[np.float64] = _error_integral(x, zero_points) @ weights[edges].astype(np.float64)
    return errors * steps[:, 0] ** 3 / histogram.width / max(int(histogram.counts.sum()), 1)


METHODS: dict[str, Callable[[TensorHistogram], tuple[float, float]]] = {
    "min_max": min_max,
    "moving_average": moving_average,
    "percentile_99.999": partial(percentile, percent=99.999),
    "percentile_99.99": partial(percentile, percent=99.99),
    "entropy": entropy,
    "mse": mean_squared_error,
}


def _within(low: float, high: float, histogram: TensorHistogram) -> tuple[float, float]:
    low, high = max(low, histogram.low_with_zero), min(high, histogram.high_with_zero)
    return (low, high) if low < high else min_max(histogram)


def _divergence(counts: NDArray[np.float64], start: int, end: int) -> float:
    """KL(P || Q) of the window ``start:end``."""
    inside = counts[start:end]
    reference = inside.copy()
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    filled = reference > 0
    levels = np.arange(len(inside)) * LEVELS // len(inside) if len(inside) > LEVELS else np.arange(len(inside))
    merged = np.bincount(levels, inside, LEVELS)
    shared_by = np.bincount(levels, filled, LEVELS)
    quantised = np.where(filled, merged[levels] / np.maximum(shared_by[levels], 1), 0.0)
    if not quantised.any():
        return np.inf
    p, q = _smoothed(reference), _smoothed(quantised)
    return float((p * np.log(p / q)).sum())


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """As a distribution; empty bins get a little, taken evenly from the others."""
    filled = counts > 0
    count = int(filled.sum())
    taken = _SMOOTHING * (len(counts) - count) / count
    result = np.where(filled, np.maximum(counts - taken, _SMOOTHING), _SMOOTHING)
    distribution: NDArray[np.float64] = result / result.sum()
    return distribution


def _candidates(now: float, outermost: float) -> NDArray[np.float64]:
    """Ends to try: shares of the outermost, and finer about where the search is."""
    coarse = outermost * np.arange(1, _MSE_STEPS + 1) / _MSE_STEPS
    fine = now + outermost * np.linspace(-1, 1, 17) / _MSE_STEPS
    inside = fine[(fine / outermost > 0) & (fine / outermost <= 1)]
    return np.concatenate([inside, coarse])


def _error_integral(x: NDArray[np.float64], zero_points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral from 0 to x of the squared distance to the nearest level, all in steps.

    Levels are the whole numbers from ``-zero_point`` to ``LEVELS - 1 - zero_point``. Up to the outermost, the
    distance repeats: each step holds 1/12; beyond it is a parabola.
    """
    inside = np.clip(x, -zero_points, LEVELS - 1 - zero_points)
    whole = np.round(inside)
    rest, beyond = inside - whole, x - inside
    result: NDArray[np.float64] = whole / 12 + (rest * rest * rest + beyond * beyond * beyond) / 3
    return result
