"""Figures: ratios are those of one round, intervals cover the truth, and close contenders have no winner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build_models.contenders.figures import LEAST_ROUNDS, summary, winner


def rounds(*times_ms: float, count: int = 10, noise: float = 0.02, seed: int = 0) -> list[list[list[float]]]:
    """Turns of three runs a contender; each round has its own speed of the machine, common to all."""
    rng = np.random.default_rng(seed)
    return [
        [[float(value * speed * rng.normal(1, noise)) for _ in range(3)] for value in times_ms]
        for speed in rng.uniform(1, 1.2, count)
    ]


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    # In the second round the machine was busy: both took ten times as long, which leaves the ratio as it was.
    measured = [[[2.0, 2.0, 8.0], [1.0, 1.0, 1.0]], [[20.0], [10.0]], [[2.0], [1.2]]]
    first, second = summary(["fp32", "int8"], measured)
    assert (first["ratio"], second["ratio"]) == (1.0, 0.5)
    assert (first["ratio_low"], first["ratio_high"]) == (1.0, 1.0)
    assert (second["ratio_low"], second["ratio_high"]) == (0.5, 0.6)
    assert {name: first[name] for name in ("name", "median_ms", "min_ms", "p90_ms", "runs")} == {
        "name": "fp32",
        "median_ms": 2.0,
        "min_ms": 2.0,
        "p90_ms": 20.0,
        "runs": 5,
    }
    assert (first["q25_ms"], first["q75_ms"]) == (2.0, 11.0)


def test_the_interval_covers_the_true_ratio_nearly_always() -> None:
    covered = 0
    for seed in range(60):
        _, row = summary(["a", "b"], rounds(4.0, 2.0, noise=0.1, seed=seed))
        covered += row["ratio_low"] <= 0.5 <= row["ratio_high"]
    assert covered >= 54


def test_a_clear_difference_has_a_winner() -> None:
    results = summary(["slow", "fast", "middle"], rounds(4.0, 1.0, 2.0))
    name, said = winner(results, 10)
    assert name == "fast"
    assert said.startswith("fastest: fast, 2.")
    assert said.endswith("x as fast as the next, middle")


@pytest.mark.parametrize(("times", "noise"), [((2.0, 2.0), 0.02), ((2.0, 1.9), 0.05), ((5.0, 2.0, 2.01), 0.02)])
def test_spreads_that_overlap_have_none(times: tuple[float, ...], noise: float) -> None:
    names = [f"number {index}" for index in range(len(times))]
    name, said = winner(summary(names, rounds(*times, noise=noise)), 10)
    assert name is None
    assert said.startswith("no winner: the ")
    assert "overlap" in said


def test_few_rounds_or_one_contender_have_none() -> None:
    clear = rounds(4.0, 1.0, count=LEAST_ROUNDS - 1)
    assert winner(summary(["a", "b"], clear), LEAST_ROUNDS - 1) == (
        None,
        "no winner: 4 rounds tell no spread, 5 or more do (--rounds)",
    )
    alone: list[dict[str, Any]] = summary(["a"], rounds(4.0))
    assert winner(alone, 10) == (None, "no winner: there is one contender only")
