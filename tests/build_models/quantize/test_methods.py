"""Calibration methods against slow code written from their definitions, and what every range must be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from build_models.quantize.histograms import Histograms, TensorHistogram
from build_models.quantize.methods import LEVELS, METHODS, expected_error, mean_squared_error, percentile, ranges_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SEARCHED = ("entropy", "mse")


def histogram_of(values: NDArray[np.float64], bins: int = 2048) -> TensorHistogram:
    low, high = float(values.min()), float(values.max())
    width = max((max(high, 0) - min(low, 0)) / (bins - 2), 1e-30)
    zero_bin = round(-min(low, 0.0) / width)
    counts = np.bincount(np.rint(values / width).astype(np.int64) + zero_bin, minlength=bins)
    return TensorHistogram(low, high, low * 0.9, high * 0.9, width, zero_bin, counts)


def quantised(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """As ONNX's QuantizeLinear and DequantizeLinear do, with the zero point rounded."""
    step = (high - low) / (LEVELS - 1) or 1.0
    zero_point = np.rint(-low / step)
    levels: NDArray[np.float64] = np.clip(np.rint(values / step) + zero_point, 0, LEVELS - 1) - zero_point
    return levels * step


def error(values: NDArray[np.float64], range_: tuple[float, float]) -> float:
    return float(np.mean((values - quantised(values, *range_)) ** 2))


def made(shape: str, count: int = 200_000) -> NDArray[np.float64]:
    rng = np.random.default_rng(11)
    normal: NDArray[np.float64] = rng.standard_normal(count)
    if shape == "relu":
        return np.asarray(normal.clip(min=0), np.float64)
    if shape == "silu":
        return np.asarray(3 * normal / (1 + np.exp(-3 * normal)), np.float64)
    if shape == "outlier":
        return np.append(normal, 60.0)
    if shape == "negative":
        below: NDArray[np.float64] = np.minimum(normal * 5, 0.3)
        return below
    if shape == "laplace":
        return np.asarray(rng.laplace(size=count), np.float64)
    return np.asarray(rng.uniform(2, 3, count), np.float64)


SHAPES = ("relu", "silu", "outlier", "negative", "laplace", "uniform")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99])
def test_a_percentile_is_that_of_the_sorted_values(shape: str, percent: float) -> None:
    values = np.sort(made(shape))
    histogram = histogram_of(values)
    low, high = percentile(histogram, percent)
    cut = len(values) * (1 - percent / 100) / 2
    assert low == pytest.approx(min(values[int(cut)], 0), abs=histogram.width)
    assert high == pytest.approx(max(values[len(values) - 1 - int(cut)], 0), abs=histogram.width)


def slow_entropy(histogram: TensorHistogram) -> tuple[float, float]:
    """Bin by bin, level by level; scipy's definition of the divergence."""
    counts = [float(count) for count in histogram.counts]
    zero = histogram.zero_bin
    beside = [counts[index] for index in (zero - 1, zero + 1) if 0 <= index < len(counts)]
    counts[zero] = sum(beside) / len(beside)
    reach = max(zero, len(counts) - 1 - zero)
    found = []
    for threshold in range(reach, 0, -(len(counts) // LEVELS)):
        start, end = max(zero - threshold, 0), min(zero + threshold + 1, len(counts))
        if end - start < LEVELS:
            break
        inside = counts[start:end]
        reference = inside[:]
        reference[0] += sum(counts[:start])
        reference[-1] += sum(counts[end:])
        levels: dict[int, list[int]] = {}
        for index in range(len(inside)):
            levels.setdefault(index * LEVELS // len(inside), []).append(index)
        merged = [0.0] * len(inside)
        for members in levels.values():
            filled = [index for index in members if reference[index] > 0]
            for index in filled:
                merged[index] = sum(inside[member] for member in members) / len(filled)
        if not any(merged):
            continue
        p, q = slow_smoothed(reference), slow_smoothed(merged)
        divergence = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        found.append((divergence, -threshold))
    threshold = -min(found)[1]
    outer = (threshold + 0.5) * histogram.width
    return max(-outer, min(histogram.low, 0)), min(outer, max(histogram.high, 0))


def slow_smoothed(counts: list[float]) -> list[float]:
    empty = sum(count == 0 for count in counts)
    taken = 1e-4 * empty / (len(counts) - empty)
    smoothed = [max(count - taken, 1e-4) if count else 1e-4 for count in counts]
    return [value / sum(smoothed) for value in smoothed]


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_is_that_of_the_slow_definition(shape: str) -> None:
    histogram = histogram_of(made(shape), 768)
    assert METHODS["entropy"](histogram) == pytest.approx(slow_entropy(histogram))


def test_entropy_is_not_decided_by_the_zeros_behind_a_relu() -> None:
    values = made("relu")
    (_, high), (_, of_positive) = (METHODS["entropy"](histogram_of(each)) for each in (values, values[values > 0]))
    assert high == pytest.approx(of_positive, rel=0.05)
    assert high > 3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_expected_error_is_the_measured_one(shape: str) -> None:
    values = made(shape)
    histogram = histogram_of(values)
    for low, high in [(-1.0, 2.0), (-0.1, 3.0), (0.0, 1.5), (-40.0, 60.0), (-3.0, 0.0)]:
        (expected,) = expected_error(histogram, np.array([low]), np.array([high]))
        assert expected == pytest.approx(error(values, (low, high)), rel=0.02), (low, high)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_range_of_a_dense_grid_has_less_error_than_mse_finds(shape: str) -> None:
    values = made(shape, 20_000)
    found = error(values, mean_squared_error(histogram_of(values)))
    lows, highs = (np.linspace(0, 1, 41) * end for end in (min(values.min(), 0), max(values.max(), 0)))
    least = min(error(values, (low, high)) for low in lows for high in highs if low < high)
    assert found <= least * 1.05


def test_min_max_is_beaten_where_there_are_outliers_and_not_where_there_are_none() -> None:
    with_outliers = np.r_[np.random.default_rng(1).standard_normal(2_000_000), 15.0]
    ranges = {name: method(histogram_of(with_outliers)) for name, method in METHODS.items()}
    errors = {name: error(with_outliers, each) for name, each in ranges.items()}
    assert errors["mse"] < errors["percentile_99.999"] < errors["min_max"] * 0.75
    assert errors["mse"] == min(errors.values())
    even = made("uniform") - 2.5
    assert error(even, METHODS["mse"](histogram_of(even))) == pytest.approx(
        error(even, METHODS["min_max"](histogram_of(even))), rel=0.05
    )


def test_the_moving_average_is_the_histograms_own() -> None:
    histogram = histogram_of(made("laplace"))
    assert METHODS["moving_average"](histogram) == (histogram.moving_low, histogram.moving_high)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_nearly_always_zero_keeps_its_range(method: str) -> None:
    histogram = histogram_of(np.r_[np.zeros(10**6), 5.0])
    low, high = METHODS[method](histogram)
    assert low == 0
    assert high == pytest.approx(4.5 if method == "moving_average" else 5.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant_tensor_has_a_range_from_zero_to_it(method: str, value: float) -> None:
    low, high = METHODS[method](histogram_of(np.full(100, value)))
    share = 0.9 if method == "moving_average" else 1
    assert (low, high) == pytest.approx((min(value, 0) * share, max(value, 0) * share), rel=1e-3)


numbers = st.floats(-1e4, 1e4, width=32).map(float)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=200), st.sampled_from(sorted(METHODS)))
def test_every_range_contains_zero_and_lies_within_the_values(given_values: list[float], method: str) -> None:
    values = np.array(given_values)
    low, high = METHODS[method](histogram_of(values))
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=200), st.integers(-20, 20), st.sampled_from(sorted(METHODS)))
def test_a_range_scales_with_its_values(given_values: list[float], power: int, method: str) -> None:
    values = np.array(given_values)
    values[np.abs(values) < 1e-3] = 0
    factor = 2.0**power
    low, high = METHODS[method](histogram_of(values))
    assert METHODS[method](histogram_of(values * factor)) == pytest.approx((low * factor, high * factor), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=100), st.lists(numbers, min_size=1, max_size=20))
def test_more_values_never_narrow_min_max(given_values: list[float], more: list[float]) -> None:
    low, high = METHODS["min_max"](histogram_of(np.array(given_values)))
    wider = METHODS["min_max"](histogram_of(np.array(given_values + more)))
    assert wider[0] <= low
    assert wider[1] >= high


def test_two_hundred_tensors_would_take_less_than_ten_seconds_by_any_method() -> None:
    histograms = Histograms({str(index): histogram_of(made("silu")) for index in range(40)}, 1)
    for method in METHODS:
        began_s = time.process_time()
        assert len(ranges_of(histograms, method)) == 40
        assert (time.process_time() - began_s) * 5 < 10, method


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"expected a calibration method of min_max, .*, mse, got 'best'"):
        ranges_of(Histograms({}, 1), "best")
