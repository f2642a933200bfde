"""What is advised: the likeliest first, never more than four sentences, and numbers that would help."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.advice import after_judgement, after_search, after_timing
from build_models.metrics.bootstrap import Drop
from build_models.quantize.attempts import Attempt, Choice
from build_models.quantize.found import Found
from build_models.quantize.sensitivity import Sensitivity
from build_models.recipe_file import make_recipe

if TYPE_CHECKING:
    from build_models.recipe import Recipe

pytestmark = pytest.mark.build

LOUD = Sensitivity("conv", "activation", frozenset({"conv"}), 0.1)


def recipe(**changes: Any) -> Recipe:
    return make_recipe(
        {
            "name": "advised",
            "source": {"kind": "onnx", "path": "none.onnx"},
            "output": {"family": "logits"},
            "labels": ["a", "b"],
            **changes,
        }
    )


def drop(value: float) -> Drop:
    return Drop(value, value - 0.01, value + 0.01, 0.9, 0.9 - value, 50, "bootstrap")


def found(*values: float, share: float = 0.0, heard: tuple[Sensitivity, ...] = ()) -> Found:
    attempts = tuple(
        Attempt(Choice("min_max"), f"{index:064}", 1, drop(value), drop(value), share, False, Path("none.onnx"))
        for index, value in enumerate(values)
    )
    closest = min(attempts, key=lambda each: each.drop.value)
    return Found(attempts, None, closest, 0.01, 0.005, heard, {})


def search_advice(result: Found, calibration: int = 20, **changes: Any) -> tuple[str, ...]:
    return after_search(result, recipe(**changes), labelled=True, calibration=calibration)


def test_all_that_was_left_out_is_named() -> None:
    told = search_advice(
        found(0.3, 0.0412, share=0.7, heard=(LOUD,)),
        quantize={"methods": ["min_max"], "corrections": ["bias"], "most_float_share": 0.5},
    )
    assert len(told) == 4
    assert told[0].endswith("only 20 calibrated")
    assert "entropy" in told[1]
    assert "equalize" in told[1]
    assert "min_max" not in told[1]
    assert told[2].startswith("quantize.most_float_share above 0.5: up to 70%")
    assert told[3].startswith("budget.max_drop of 0.042, "), "rounded up, so that it would be enough"


def test_what_was_tried_already_is_not_advised() -> None:
    told = search_advice(found(0.02), calibration=400)
    assert len(told) == 2
    assert told[0].endswith(": 400 calibrated")


def test_a_loss_that_is_no_number_names_no_budget() -> None:
    assert not [text for text in search_advice(found(float("nan"))) if "max_drop" in text]


def test_without_labels_the_other_limit_is_named() -> None:
    (*_, last) = after_search(found(0.08), recipe(), labelled=False, calibration=20)
    assert last.startswith("budget.max_disagreement of 0.08, ")


def judged(value: float, more: int, on_search: float | None, **changes: Any) -> tuple[str, ...]:
    return after_judgement(drop(value), more, on_search, recipe(**changes), labelled=True, limit=0.01)


def test_pictures_that_differ_from_val_are_suspected_where_the_search_saw_no_loss() -> None:
    told = judged(0.3, 0, 0.0)
    assert told[0] == ("data.train with pictures like those of val: on its own the file lost 0.0000, on val 0.3000")
    assert told[1].startswith("budget.max_drop of 0.3, ")
    assert not [text for text in judged(0.3, 0, 0.3) if "like those of val" in text]


def test_few_pictures_are_the_first_thing_to_change() -> None:
    assert judged(0.0, 250, 0.0) == (
        "data.train, or a data.val of its own, with about 250 more pictures: 50 are too few to tell",
        "budget.inconclusive: ship, if the figures as they are will do",
    )


def test_a_speed_that_would_be_reached_is_rounded_down() -> None:
    first, _ = after_timing(1.2399, "cpu-int8", "this machine")
    assert first.startswith("budget.min_speedup of at most 1.23 for cpu-int8 on this machine")
