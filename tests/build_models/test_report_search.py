from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_search import not_made, search
from tests.support.report_content import LABEL, report_content
from tests.support.web_text import words

FOUND = "cpu-int8-vnni"


def changed(**changes: Any) -> str:
    """The section's words, with what was found for one variant changed and the other left out."""
    content = report_content()
    told = content["stages"]["search"]
    told["variants"] = {FOUND: {**told["variants"][FOUND], **changes}}
    return words(search(content))


def test_every_attempt_has_a_row() -> None:
    text = words(search(report_content()))
    for row in (
        "1 mse +0.0130 +0.0030 to +0.0230 99.4 % 0.0 % 1.29 MB 4.20 ms 2.10x",
        "2 mse, equalised +0.5000 +0.4900 to +0.5100 75.0 % 0.0 % 1.29 MB - -",
        "3 mse, equalised, 2 nodes in float chosen +0.0020",
        "4 mse, equalised, 3 nodes in float good +0.0021",
        "5 mse, equalised, 2 nodes in float (the same file as 3) +0.0020",
    ):
        assert row in text
    assert "5 attempts, run on 32 search pictures" in text
    assert "may lose 0.01 of map50_95. It is good where it loses 0.005 at most" in text


def test_agreement_with_fp32_is_told_where_it_is_another_figure_than_the_drop() -> None:
    attempts = report_content()["stages"]["search"]["variants"][FOUND]["attempts"]
    assert "As fp32: how many of its own answers the file gives." in changed()
    for same in ([{**each, "agreement": each["drop"]} for each in attempts], [drop_key(each) for each in attempts]):
        assert "as fp32 in float" not in changed(attempts=same)


def drop_key(attempt: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attempt.items() if key not in ("agreement", "good")}


def test_the_closest_is_marked_where_nothing_was_good() -> None:
    text = words(search(report_content()))
    assert "None of them keeps that." in text
    assert "1 mse closest +0.3000" in text
    assert "None of them was timed on this machine." in text


def test_the_plot_against_speed_needs_times_and_that_against_float_needs_exceptions() -> None:
    attempts = report_content()["stages"]["search"]["variants"][FOUND]["attempts"]
    gained, in_float = "What is lost, what is gained", "What is lost, what stays in float"
    assert gained in changed()
    assert in_float in changed()
    untimed = changed(attempts=[{**each, "latency": {}} for each in attempts])
    assert gained not in untimed
    assert in_float in untimed
    plain = changed(attempts=attempts[:1])
    assert gained in plain
    assert in_float not in plain


def test_a_file_of_another_kind_than_int8_has_no_share_that_was_left_in_float() -> None:
    (attempt, *_) = report_content()["stages"]["search"]["variants"][FOUND]["attempts"]
    own = {**attempt, "choice": {**attempt["choice"], "method": "float16"}}
    assert "99.4 % - 1.29 MB" in changed(attempts=[own])
    assert "99.4 % 0.0 % 1.29 MB" in changed(attempts=[attempt])


def test_a_search_of_an_older_build_has_no_limit_to_draw() -> None:
    found = report_content()["stages"]["search"]["variants"][FOUND]
    content = report_content()
    content["stages"]["search"]["variants"] = {
        FOUND: {key: value for key, value in found.items() if key not in ("limit", "aim", "inside")}
    }
    assert "What is lost" not in words(search(content))


def test_the_loudest_roundings_are_shown_and_those_that_are_gone_are_grey() -> None:
    assert "The 12 loudest roundings" in changed()
    assert "Each of the 20 roundings was switched on alone" in changed()
    assert "loudest" not in changed(sensitivities=[])
    html = search(report_content())
    noise = html[html.index('aria-label="noise-') :]
    noise = noise[: noise.index("</svg>")]
    assert noise.count("fill: var(--source)") == 1
    assert noise.count("fill: var(--unsure)") == 11


def test_each_exception_has_its_reason() -> None:
    text = changed()
    assert "Why 2 nodes of the file stay in float" in text
    assert f"{LABEL} rounding the weight {LABEL} alone leaves 25.0 dB at the heads" in text
    assert "Relu_1 goes along with its neighbours" in text
    attempts = report_content()["stages"]["search"]["variants"][FOUND]["attempts"]
    assert "stay in float," not in changed(attempts=attempts[:1], chosen=attempts[0]["sha256"])


def test_nodes_of_one_reason_stand_together() -> None:
    reason = "rounding the weight Conv_1 alone leaves 20.0 dB at the heads"
    assert f"{LABEL}, Relu_1 {reason}" in changed(reasons={LABEL: reason, "Relu_1": reason})


def test_joins_and_equalised_tensors_are_told() -> None:
    text = words(search(report_content()))
    assert f"Concat_264 15.3x boxes, {LABEL}" in text
    assert f"{LABEL} 24 9.10 1.20 +6.2 dB" in text
    content = report_content()
    content["stages"]["calibrate"]["joins"] = []
    content["stages"]["search"]["equalised"] = []
    text = words(search(content))
    assert "Joins" not in text
    assert "Channels that were equalised" not in text


def test_a_target_that_could_not_be_made_is_told_and_a_sentence_is_none() -> None:
    assert not_made(report_content()) == {"cpu-int8-dynamic": f"there is no matrix product in {LABEL}"}
    assert not_made({"stages": {}}) == {}


def test_no_search_is_no_section() -> None:
    assert search({"stages": {"search": {"said": "no targets beside fp32"}}}) == ""
