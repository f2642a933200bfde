"""Figures of a benchmark: medians with their spread, ratios round by round, and who wins, if anyone does."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST_ROUNDS = 5  # of fewer no spread can be told
_RESAMPLES = 4000


def summary(names: Sequence[str], measured: Sequence[Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """One row a contender; the first is what the ratios refer to.

    Args:
        names: of the contenders.
        measured: times in ms by round and contender.

    Returns:
        ``median_ms``, ``min_ms`` and ``p90_ms`` over all runs; ``q25_ms`` and ``q75_ms`` over the rounds' medians;
        ``ratio``: the median over rounds of the contender's median over the first's in the same round, which leaves
        out what disturbed both, with its 95 % bootstrap interval over rounds, ``ratio_low`` to ``ratio_high``.
    """
    medians = np.array([[statistics.median(turn) for turn in turns] for turns in measured])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(measured), (_RESAMPLES, len(measured)))
    results = []
    for index, name in enumerate(names):
        times = sorted(value for turns in measured for value in turns[index])
        ratios = medians[:, index] / medians[:, 0]
        low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
        q25, q75 = np.percentile(medians[:, index], [25, 75])
        results.append(
            {
                "name": name,
                "median_ms": round(statistics.median(times), 3),
                "min_ms": round(times[0], 3),
                "p90_ms": round(times[int(len(times) * 0.9)], 3),
                "q25_ms": round(float(q25), 3),
                "q75_ms": round(float(q75), 3),
                "runs": len(times),
                "ratio": round(float(np.median(ratios)), 3),
                "ratio_low": round(float(low), 3),
                "ratio_high": round(float(high), 3),
            }
        )
    return results


def winner(results: Sequence[Mapping[str, Any]], rounds: int) -> tuple[str | None, str]:
    """The fastest, if its spread overlaps no other's; and a sentence that says so, or why there is none."""
    if len(results) < 2:
        return None, "no winner: there is one contender only"
    if rounds < LEAST_ROUNDS:
        return None, f"no winner: {rounds} rounds tell no spread, {LEAST_ROUNDS} or more do (--rounds)"
    best, *others = sorted(results, key=lambda each: each["median_ms"])
    for other in others:
        times = best["q75_ms"] >= other["q25_ms"]
        ratios = best["ratio_high"] >= other["ratio_low"]
        if times or ratios:
            what = "times" if times else "ratios"
            return None, (
                f"no winner: the {what} of {best['name']} and {other['name']} overlap; take a quieter machine or more "
                "rounds"
            )
    second = others[0]
    gain = second["median_ms"] / best["median_ms"]
    return best["name"], f"fastest: {best['name']}, {gain:.2f}x as fast as the next, {second['name']}"
