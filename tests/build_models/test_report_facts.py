from __future__ import annotations

import pytest

from build_models.report_facts import facts, number, table


@pytest.mark.parametrize(
    ("value", "said"), [(0.1234, "0.12"), (9.616, "9.62"), (18.04, "18.0"), (123.4, "123"), (98765.4, "98765")]
)
def test_numbers_show_three_digits_and_no_exponent(value: float, said: str) -> None:
    assert number(value) == said


def test_facts_leave_out_what_is_absent_but_not_what_is_zero() -> None:
    told = facts({"licence": None, "unreadable": [], "largest_difference": 0.0, "folded": False})
    assert told == "<dl><dt>largest difference</dt><dd>0</dd><dt>folded</dt><dd>no</dd></dl>"


def test_a_long_collection_is_counted_and_a_short_one_shown() -> None:
    assert "300 entries, in report.json" in facts({"ranges": {str(n): [0.0, 1.0] for n in range(300)}})
    assert "<dd>Conv 3, Relu 2</dd>" in facts({"operators": {"Conv": 3, "Relu": 2}})


def test_nothing_to_tell_is_no_list() -> None:
    assert facts({"licence": None}) == ""


def test_a_table_scrolls_in_a_box_of_its_own() -> None:
    whole = table(["class", "all"], [["<b>", "0.9"]])
    assert whole.startswith('<div class="scroll"><table')
    assert '<th scope="row">&lt;b&gt;</th><td>0.9</td>' in whole
