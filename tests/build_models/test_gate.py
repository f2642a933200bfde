"""The gate's verdicts: where the limits lie, what is said of few pictures, and whose time counts for which machine."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.gate import Timing, judge_drop, refuse_for_accuracy, refuse_for_speed
from build_models.metrics.bootstrap import Drop
from build_models.recipe import Budget

if TYPE_CHECKING:
    from build_models.gate import Outcome

pytestmark = pytest.mark.build

Z = 1.959964  # of a two-sided 95 % interval


def drop(
    value: float, low: float, high: float, pictures: int = 100, method: Literal["bootstrap", "score"] = "bootstrap"
) -> Drop:
    return Drop(value, low, high, 0.8, 0.8 - value, pictures, method)


@pytest.mark.parametrize(
    ("given", "limit", "outcome"),
    [
        (drop(0.0, -0.005, 0.005), 0.01, "within"),
        (drop(0.005, 0.0, 0.01), 0.01, "within"),
        (drop(-0.1, -0.2, 0.005), 0.01, "within"),
        (drop(0.01, 0.0, 0.02), 0.01, "inconclusive"),
        (drop(0.0, -0.03, 0.03), 0.01, "inconclusive"),
        (drop(0.011, 0.0, 0.02), 0.01, "beyond"),
        (drop(0.5, 0.4, 0.6), 0.01, "beyond"),
        (drop(1e-9, 0.0, 0.01), 0.0, "beyond"),
        (drop(0.0, 0.0, 0.0), 0.0, "within"),
        (drop(0.0, -0.01, 0.01), 0.0, "inconclusive"),
        (drop(math.nan, math.nan, math.nan), 0.01, "beyond"),
    ],
)
def test_a_drop_is_judged_with_its_interval(given: Drop, limit: float, outcome: Outcome) -> None:
    assert judge_drop(given, "map50_95", limit).outcome == outcome


def test_the_sentence_has_all_figures() -> None:
    said = judge_drop(drop(0.012, -0.002, 0.026), "miou", 0.02).said
    assert said.startswith(
        "miou 0.8000 -> 0.7880, drop +0.0120 (95 % interval -0.0020 to +0.0260, 100 pictures), the most is 0.02"
    )


def test_few_pictures_are_told_with_how_many_more_it_takes() -> None:
    accuracy = judge_drop(drop(0.0, -0.04, 0.04), "top1", 0.02)
    assert accuracy.more_pictures == 300, "half the width takes four times the pictures"
    assert accuracy.said.endswith("; inconclusive: needs about 300 more pictures to be sure")


@pytest.mark.parametrize("value", [0.0, 0.01])
def test_no_number_of_pictures_is_asked_for_to_prove_a_limit_of_nothing(value: float) -> None:
    accuracy = judge_drop(drop(value, value - 0.04, value + 0.04), "top1", 0.0)
    assert accuracy.more_pictures == 0
    assert accuracy.said.endswith("inconclusive: no number of pictures proves that nothing is lost")


def test_a_drop_close_to_the_limit_takes_more_than_one_as_wide_at_zero() -> None:
    """Its interval has to fit between it and the limit."""
    at_zero, close = (
        judge_drop(drop(0.0, -0.02, 0.02), "top1", 0.01),
        judge_drop(drop(0.008, -0.004, 0.02), "top1", 0.01),
    )
    assert at_zero.more_pictures == 300
    assert close.more_pictures == 3500, "a half width of 0.012 has to become 0.002"


def test_where_no_picture_differs_the_number_follows_from_the_limit() -> None:
    """With n pictures and no difference the interval is z^2 / (n + z^2) wide to each side."""
    half = Z**2 / (50 + Z**2)
    accuracy = judge_drop(drop(0.0, -half, half, 50, "score"), "top1", 0.01)
    enough = 50 + accuracy.more_pictures
    assert Z**2 / (enough + Z**2) <= 0.01 < Z**2 / (enough - 2 + Z**2)


def test_a_drop_beyond_that_a_wide_interval_leaves_open_says_so_too() -> None:
    open_, clear = judge_drop(drop(0.02, -0.02, 0.06), "top1", 0.01), judge_drop(drop(0.3, 0.2, 0.4), "top1", 0.01)
    assert re.search(r"inconclusive: needs about \d+ more pictures to be sure$", open_.said)
    assert (open_.outcome, clear.outcome) == ("beyond", "beyond")
    assert "inconclusive" not in clear.said
    assert clear.more_pictures == 0 < open_.more_pictures


@pytest.mark.parametrize(
    ("value", "high", "inconclusive", "refused"),
    [
        (0.0, 0.005, "ship", None),
        (0.0, 0.005, "refuse", None),
        (0.0, 0.05, "ship", None),
        (0.0, 0.05, "refuse", "not proved within the budget: "),
        (0.02, 0.05, "ship", "beyond the budget: "),
        (0.02, 0.05, "refuse", "beyond the budget: "),
    ],
)
def test_the_recipe_says_what_becomes_of_an_open_verdict(
    value: float, high: float, inconclusive: Literal["ship", "refuse"], refused: str | None
) -> None:
    budget = Budget(max_drop=0.01, inconclusive=inconclusive)
    reason = refuse_for_accuracy(judge_drop(drop(value, -high, high), "top1", 0.01), budget)
    assert (reason is None) == (refused is None)
    assert refused is None or str(reason).startswith(refused)


@pytest.mark.parametrize(
    ("own_ms", "least", "refused"),
    [
        (9.99, None, None),
        (10.0, None, "not faster than fp32: 10 ms against 10 of fp32 on here, 1.00x its speed; fp32 serves there"),
        (20.0, None, "not faster than fp32: 20 ms against 10 of fp32 on here, 0.50x its speed; fp32 serves there"),
        (5.0, 2.0, None),
        (8.0, 2.0, "not fast enough: 8 ms against 10 of fp32 on here, 1.25x its speed, the least is 2x"),
        (12.0, 0.8, None),
    ],
)
def test_speed_is_judged_against_fp32(own_ms: float, least: float | None, refused: str | None) -> None:
    budget: dict[str, Any] = {} if least is None else {"min_speedup": least}
    assert refuse_for_speed(Timing(own_ms, 10.0, "here"), Budget(**budget)) == refused


def test_figures_that_stand_for_time_have_their_own_unit() -> None:
    told = str(Timing(3e9, 2e9, "Cortex-A72 (aarch64), by instructions", "instructions"))
    assert told == "3e+09 instructions against 2e+09 of fp32 on Cortex-A72 (aarch64), by instructions, 0.67x its speed"
