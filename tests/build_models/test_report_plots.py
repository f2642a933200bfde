from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models import report_plots
from build_models.report_canvas import PACKED, REFUSED
from build_models.report_plots import bars, layers


def test_a_bar_plot_names_every_bar_and_says_its_value() -> None:
    svg = bars("size", ["cpu-int8", "cpu-fp32"], [1.3, 3.7], ["1.30 MB", "3.70 MB"], [REFUSED, PACKED])
    assert texts(svg) == ["cpu-int8", "1.30 MB", "cpu-fp32", "3.70 MB"]
    assert "var(--refused)" in svg
    assert "var(--packed)" in svg


def test_a_bar_twice_the_value_is_twice_as_long() -> None:
    svg = bars("size", ["a", "b"], [1.0, 2.0], ["1", "2"], [REFUSED, PACKED])
    short, long = (bar_px(svg, color) for color in ("refused", "packed"))
    assert long == pytest.approx(2 * short, rel=1e-3)


def test_a_limit_is_drawn_and_named() -> None:
    assert "least 0.95" in texts(bars("f1", ["a"], [0.4], ["0.4"], [PACKED], limit=0.95, limit_said="least 0.95"))


def test_bars_of_length_zero_can_be_drawn() -> None:
    assert texts(bars("f1", ["a"], [0.0], ["0.000"], [REFUSED])) == ["a", "0.000"]


def test_the_weakest_layers_are_named_and_the_others_are_not() -> None:
    names = [f"Conv_{number}" for number in range(120)]
    svg = layers("layers", names, [float(number * 37 % 120) for number in range(120)])
    named = {text for text in texts(svg) if text.startswith("Conv_")}
    assert named == {f"Conv_{number}" for number in range(120) if number * 37 % 120 < 10}


def test_layers_without_noise_or_without_signal_do_not_stretch_the_axis() -> None:
    svg = layers("layers", ["exact", "silent", "usual"], [3000.0, -3000.0, 25.0])
    numbers = [int(text.replace("\N{MINUS SIGN}", "-")) for text in texts(svg) if re.fullmatch(r"\W?\d+", text)]
    assert numbers
    assert max(map(abs, numbers)) <= 100


@pytest.mark.parametrize("count", [1, 2, 400])
def test_any_number_of_layers_can_be_drawn(count: int) -> None:
    assert "Conv_0" in texts(
        layers("layers", [f"Conv_{number}" for number in range(count)], [1.0 * n for n in range(count)])
    )


def test_names_are_text_and_nothing_else() -> None:
    svg = layers("layers", ["<b>$x_1$ & 字", "b"], [1.0, 2.0])
    assert "<b>$x_1$ & 字" in texts(svg)


def test_plots_are_the_same_bytes_each_time_and_share_no_ids() -> None:
    first, second, other = (bars(name, ["a"], [1.0], ["1"], [PACKED], whiskers=[2.0]) for name in ("p", "p", "q"))
    assert first == second
    assert ids(first)
    assert not ids(first) & ids(other)
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first)[0]) - {""} <= ids(first)


def test_plots_ignore_the_users_own_style() -> None:
    import matplotlib as mpl

    usual = bars("p", ["a"], [1.0], ["1"], [PACKED])
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert bars("p", ["a"], [1.0], ["1"], [PACKED]) == usual
        assert mpl.rcParams["font.size"] == 30


@given(st.lists(st.integers(0, 119), min_size=1, max_size=10, unique=True).map(sorted))
def test_names_keep_their_distance_their_order_and_the_plot(wanted: list[int]) -> None:
    places = report_plots._spread(wanted, 2.2, 119)
    assert all(after - before >= 2.2 - 1e-9 for before, after in pairwise(places))
    assert places[-1] <= 119
    if all(after - before >= 3 for before, after in pairwise(wanted)):
        assert places == wanted


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parse(svg).iter("text")]


def ids(svg: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', svg))


def bar_px(svg: str, color: str) -> float:
    (path,) = (e.attrib["d"] for e in parse(svg).iter("path") if f"var(--{color})" in e.attrib.get("style", ""))
    across = [float(number) for number in re.findall(r"[ML] (\S+)", path)]
    return max(across) - min(across)


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("xlink:", ""))  # noqa: S314 - our own
