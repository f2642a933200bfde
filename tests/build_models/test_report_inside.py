from __future__ import annotations

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_inside import inside
from tests.support.report_content import LABEL, report_content
from tests.support.web_text import words

FOUND = "cpu-int8-vnni"


def test_the_weakest_layers_are_told_with_their_module() -> None:
    text = words(inside(report_content()))
    assert "120 layers, 8 search pictures" in text
    assert f"The 10 weakest layer module {LABEL}$x_1$ 字 -3.50 dB Gemm" in text
    content = report_content()
    content["stages"]["source"]["modules"]["Conv_0"] = "backbone.stem"
    assert "Conv_0 -0.40 dB backbone.stem" in words(inside(content))


def test_the_kernels_are_counted_and_islands_of_float_named() -> None:
    text = words(inside(report_content()))
    assert "on Cortex-A76: 120 nodes, 113 of them compute in int8, 2 convolutions in float; 3 changes to int8" in text
    assert "Gather, Mul (2x)" in text
    assert "QLinearConv 113" in text


def test_a_file_without_islands_says_so() -> None:
    content = report_content()
    content["stages"]["search"]["variants"][FOUND]["inside"]["kernels"]["float_islands"] = []
    assert "Nothing computes in float between int8." in words(inside(content))


@pytest.mark.parametrize(("absent", "left"), [("layers", "Kernels"), ("kernels", "Signal to noise")])
def test_one_half_stands_without_the_other(absent: str, left: str) -> None:
    content = report_content()
    content["stages"]["search"]["variants"][FOUND]["inside"].pop(absent)
    text = words(inside(content))
    assert left in text
    assert {"layers": "Signal to noise", "kernels": "Kernels"}[absent] not in text


def test_layers_of_equal_figures_are_drawn_once() -> None:
    content = report_content()
    found = content["stages"]["search"]["variants"]
    found["cpu-int8"]["inside"] = found[FOUND]["inside"]
    text = words(inside(content))
    assert text.count("Signal to noise per layer") == 1
    assert "cpu-int8 Its layers are as those of cpu-int8-vnni." in text
    assert text.count("Kernels on this CPU") == 2


def test_nothing_to_look_into_is_no_section() -> None:
    content = report_content()
    content["stages"]["search"]["variants"][FOUND].pop("inside")
    assert inside(content) == ""
