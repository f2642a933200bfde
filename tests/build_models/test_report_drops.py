from __future__ import annotations

import re
from typing import Literal
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models import report_drops
from build_models.report_canvas import PACKED, REFUSED
from build_models.report_drops import Interval, Point, drops, front

WITHIN = Interval("cpu-int8", 0.001, -0.002, 0.004, "+0.001", PACKED)
BEYOND = Interval("<b>$x$ & 字", 0.3, 0.2, 0.4, "+0.300", REFUSED)


def test_each_variant_is_named_and_said_and_so_is_the_budget() -> None:
    assert {"cpu-int8", "+0.001", "<b>$x$ & 字", "+0.300", "fp32", "budget 0.005"} <= texts(
        drops("d", [WITHIN, BEYOND], 0.005)
    )


@pytest.mark.parametrize(("limit", "most"), [(0.005, 0.05), (0.1, 0.5)])
def test_a_drop_far_outside_leaves_the_scale_to_the_budget(limit: float, most: float) -> None:
    ticks = [float(text) for text in texts(drops("d", [WITHIN, BEYOND], limit)) if re.fullmatch(r"\d+\.\d+", text)]
    assert most / 5 < max(ticks) <= most


@given(
    st.lists(st.tuples(*[st.floats(-1, 1)] * 3).map(sorted), min_size=1, max_size=3),
    st.sampled_from([0.0, 1e-4, 0.01, 1.0]),
)
@settings(max_examples=15, deadline=None)
def test_any_drops_can_be_drawn(rows: list[list[float]], limit: float) -> None:
    assert drops("d", [Interval("a", value, low, high, "", PACKED) for low, value, high in rows], limit)


def test_attempts_are_numbered_and_what_matters_is_named() -> None:
    svg = front(
        "f",
        [point(1, 0, "", "fp32"), point(2, 0.01, "1"), point(1.8, 0.002, "2", "chosen")],
        "x",
        0.01,
        0.005,
        more_is_better=True,
    )
    assert {"fp32", "1", "2 chosen", "budget", "aim", "x"} <= texts(svg)


def test_labels_that_would_lie_on_each_other_are_left_out_and_the_chosen_one_is_not() -> None:
    same = [point(2, 0.002, str(number)) for number in range(1, 9)] + [point(2, 0.002, "9", "chosen")]
    found = texts(front("f", [point(1, 0, "", "fp32"), *same], "x", 0.01, 0.01, more_is_better=True))
    assert "9 chosen" in found
    assert "3" not in found
    assert "aim" not in found


@pytest.mark.parametrize(("more_is_better", "kept"), [(True, ["b", "a", "fp32"]), (False, ["fp32"])])
def test_the_line_joins_what_nothing_beats_in_both(more_is_better: bool, kept: list[str]) -> None:
    points = [point(1, 0, "fp32"), point(2, 0.002, "a"), point(3, 0.01, "b"), point(2.5, 0.02, "worse")]
    assert [each.label for each in report_drops._best(points, more_is_better=more_is_better)] == kept


@pytest.mark.parametrize("drop", [5.0, -5.0, float("nan"), float("inf")])
@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_attempts_without_measure_or_far_away_can_be_drawn(drop: float, limit: float) -> None:
    assert front("f", [point(1, 0, "1", "chosen"), point(2, drop, "2")], "x", limit, limit, more_is_better=True)


def test_plots_are_the_same_bytes_each_time_and_share_no_ids() -> None:
    points = [point(1, 0, "1", "closest"), point(2, 0.1, "2")]
    first, again, other = (front(name, points, "x", 0.01, 0.01, more_is_better=True) for name in ("f", "f", "g"))
    assert first == again
    assert ids(first)
    assert not ids(first) & ids(other)
    assert drops("d", [WITHIN], 0.01) == drops("d", [WITHIN], 0.01)


def test_a_name_becomes_an_id_whatever_it_holds() -> None:
    svg = drops('"><script>', [WITHIN], 0.01)
    assert "script>" not in svg
    assert ET.fromstring(svg.replace("xlink:", "")) is not None  # noqa: S314 - our own


def point(x: float, drop: float, label: str, role: Literal["", "chosen", "closest", "fp32"] = "") -> Point:
    return Point(float(x), drop, label, role)


def texts(svg: str) -> set[str]:
    return {element.text or "" for element in ET.fromstring(svg.replace("xlink:", "")).iter("text")}  # noqa: S314 - our own


def ids(svg: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', svg))
