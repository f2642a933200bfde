from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_accuracy import accuracy, budget_said, outcome_said
from tests.support.report_content import report_content
from tests.support.web_text import words


def judged(**changes: Any) -> dict[str, Any]:
    """The report's content, with what the judge said changed."""
    content = report_content()
    content["stages"]["judge"] = {**content["stages"]["judge"], **changes}
    return content


def test_the_figures_of_each_judged_variant_stand_beside_the_plot() -> None:
    text = words(accuracy(report_content()))
    for row in (
        "trt-int8 cpu-int8-vnni cpu-int8",
        "map50_95, fp32 0.6110 0.6110 0.6110",
        "map50_95, variant 0.6120 0.6060 0.4200",
        "drop -0.0010 +0.0050 +0.1910",
        "interval from -0.0040 -0.0130 +0.1500",
        "interval to +0.0020 +0.0200 +0.2300",
        "budget 0.01 0.01 0.01",
        "pictures 48 48 48",
        "outcome within inconclusive beyond",
        "Judged with their labels.",
    ):
        assert row in text
    assert "cpu-fp32" not in text


def test_each_set_of_pictures_is_counted() -> None:
    text = words(accuracy(report_content()))
    assert "No picture is in two of these sets." in text
    for row in ("calibration 64 yes ranges", "search 32 yes compares", "val 48 yes judges, once"):
        assert row in text


def test_without_labels_it_says_what_stands_in_for_them() -> None:
    text = words(accuracy(judged(labelled=False, metric="agreement (map50)")))
    assert "agreement (map50), variant" in text
    assert "fp32's own answers: no labels" in text
    assert "with their labels" not in text


def test_the_wider_interval_is_named_where_it_is_one() -> None:
    told = report_content()["stages"]["judge"]["trt-int8"]
    assert "Tango's score interval" in words(accuracy(judged(**{"trt-int8": {**told, "method": "score"}})))
    assert "Tango" not in words(accuracy(report_content()))


def test_a_variant_that_the_search_refused_was_not_judged() -> None:
    content = report_content()
    content["stages"]["judge"].pop("cpu-int8")
    assert "Not judged: cpu-int8; the search refused it." in words(accuracy(content))


@pytest.mark.parametrize(
    ("outcome", "more", "said"),
    [
        ("within", 0, "within the budget"),
        ("beyond", 0, "beyond the budget"),
        ("beyond", 9, "beyond the budget: about 9 more pictures are needed to be sure"),
        ("inconclusive", 9, "inconclusive: about 9 more pictures are needed to be sure"),
    ],
)
def test_an_outcome_tells_how_many_pictures_would_settle_it(outcome: str, more: int, said: str) -> None:
    assert outcome_said({"outcome": outcome, "more_pictures": more}) == said


def test_a_build_that_judged_nothing_has_no_budget_to_tell() -> None:
    assert budget_said({"stages": {}}) == ""


def test_nothing_to_tell_is_no_section() -> None:
    assert accuracy({"variants": [], "stages": {}}) == ""
