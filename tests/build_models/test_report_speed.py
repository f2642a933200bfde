from __future__ import annotations

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_speed import speed, variants
from tests.support.report_content import LABEL, report_content
from tests.support.web_text import words


@pytest.mark.parametrize(
    "row",
    [
        "source trt-int8 cpu-int8-vnni cpu-int8 cpu-fp32",
        "verdict as given packed packed refused packed",
        "precision - int8 int8 int8 fp32",
        "size - 1.30 MB 1.31 MB 1.29 MB 3.70 MB",
        "latency, median 9.05 ms - 4.81 ms 18.0 ms 9.62 ms",
        "latency, p90 11.0 ms - 6.00 ms 41.0 ms 14.4 ms",
        "speed against source 1.00x - 2.00x 0.40x 0.89x",
        "speed against fp32 1.06x - 2.00x 0.53x 1.00x",
    ],
)
def test_the_files_stand_side_by_side(row: str) -> None:
    assert row in words(variants(report_content()))


def test_without_times_there_are_sizes_alone() -> None:
    content = report_content()
    content["stages"].pop("benchmark")
    text = words(variants(content))
    assert "Built on Cortex-A76." in text
    assert "Size" in text
    assert "latency" not in text.lower()


def test_each_kind_of_machine_has_its_figures_or_says_that_there_are_none() -> None:
    text = words(speed(report_content()))
    for row in (
        f"cpu-int8-vnni x86-64 2.00x on this machine, 1.80x on {LABEL} serves it",
        "cpu-int8 ARM64 not measured not packed",
        "cpu-int8 x86-64 0.53x on this machine not for it : not faster than fp32 on this machine",
        "trt-int8 tensorrt not measured packed",
    ):
        assert row in text


def test_a_packed_file_is_untested_where_nobody_measured() -> None:
    content = report_content()
    content["stages"]["benchmark"]["speed"][0]["speedups"] = {}
    assert "cpu-int8-vnni x86-64 not measured serves it, untested" in words(speed(content))


def test_figures_that_say_nothing_of_these_files_are_told() -> None:
    assert f"--measured, {LABEL}: another file" in words(speed(report_content()))


def test_the_timed_forms_are_shown_and_the_one_that_was_taken() -> None:
    text = words(speed(report_content()))
    assert "plain, taken 2.00x, 4.80 ms" in text
    assert "packed stem 0.80x, 12.0 ms" in text
    content = report_content()
    content["stages"]["search"].pop("forms")
    assert "Forms of the int8 file" not in words(speed(content))


def test_fp32_alone_has_no_section() -> None:
    content = report_content()
    assert speed({**content, "variants": content["variants"][-1:], "stages": {}}) == ""
