from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_page import page
from tests.support.report_content import LABEL, report_content

VOID = {"meta", "link", "img"}
PLOTS = [
    "size", "latency", "drops", "forms", "speed-cpu-int8-vnni", "share-cpu-int8-vnni", "noise-cpu-int8-vnni",
    "layers-cpu-int8-vnni",
]  # fmt: skip


class Reader(HTMLParser):
    """Collects text, tags and what they would load; insists that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html() -> str:
    return page(report_content())


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_every_variant_stands_on_top_with_its_verdict_and_the_reason(reader: Reader) -> None:
    top = reader.text[: reader.text.index("Variants")]
    assert "trt-int8 packed: drop -0.0010, within the budget" in top
    assert "cpu-int8-vnni packed: drop +0.0050, inconclusive: about 88 more pictures are needed to be sure" in top
    assert f"cpu-int8 refused: beyond the budget of {LABEL} What to try: more pictures of {LABEL}" in top
    assert "cpu-fp32 packed, the reference: map50_95 0.6110" in top
    assert f"cpu-int8-dynamic not made: there is no matrix product in {LABEL}" in top
    assert "version 3: detect, 2 classes, input 320x192" in top


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"min_speedup": None, "inconclusive": "ship"}, "must be faster at all, still ships where too few pictures"),
        ({"min_speedup": 1.5, "inconclusive": "refuse"}, "must be at least 1.5x as fast, does not ship where too few"),
    ],
)
def test_the_budget_stands_on_top(budget: dict[str, Any], said: str) -> None:
    text = Reader(page({**report_content(), "budget": budget})).text
    assert f"Budget: a variant may lose 0.01 of map50_95 against fp32, {said}" in text[: text.index("Variants")]


def test_every_stage_is_there_with_what_it_said(reader: Reader) -> None:
    for name, told in report_content()["stages"].items():
        assert f"{name} {told['said']}" in reader.text


@pytest.mark.parametrize(
    "said",
    [
        "Cortex-A76, 2 threads, onnxruntime 1.23.0, 5 rounds",  # where the figures were taken
        "another picture no partner for",  # controls
        "shuffled channels off by 0.3",
        "score floor 0.05, score 0.001, box px 0.05",  # tolerances
        "184 tensors",
        "The 10 weakest",
        "-3.50 dB",
        "edge-agent 0.1.0, onnxruntime 1.23.0",
        "ab" * 32,
        "Average precision",
        "0.931",
    ],
)
def test_the_page_tells(reader: Reader, said: str) -> None:
    assert said in reader.text


def test_there_is_a_plot_of_each_thing_that_was_measured(html: str, reader: Reader) -> None:
    assert re.findall(r'<svg role="img" aria-label="([^"]+)"', html) == PLOTS
    assert reader.tags.count("svg") == len(PLOTS)


def test_nothing_is_loaded_from_anywhere(html: str, reader: Reader) -> None:
    assert reader.loads
    assert [load for load in reader.loads if not load.startswith(("data:", "#"))] == []
    assert re.search(r"https?:|//|@import", html) is None
    assert not re.search(r"url\((?!#)", html)
    assert "default-src &#x27;none&#x27;" in html


def test_a_hostile_text_is_shown_and_not_run(html: str, reader: Reader) -> None:
    assert "script" not in reader.tags
    assert LABEL not in html
    assert reader.text.count(LABEL) >= 20


def test_every_element_is_closed_and_every_id_is_its_own(html: str, reader: Reader) -> None:
    assert reader.open == []
    found = re.findall(r'\bid="([^"]+)"', html)
    assert len(found) == len(set(found))


def test_the_same_build_gives_the_same_bytes(html: str) -> None:
    assert page(report_content()) == html
    assert page(json.loads(json.dumps(report_content()))) == html


def test_a_build_of_fp32_alone_has_a_shorter_page() -> None:
    content = report_content()
    content["variants"] = content["variants"][-1:]
    stages = content["stages"]
    stages["calibrate"] = stages["search"] = {"said": "no targets beside fp32"}
    stages["judge"] = {"said": "nothing beside fp32 to judge", "metric": "map50_95", "labelled": True, "limit": 0.01}
    stages["benchmark"]["speed"] = []
    content["evaluation"] = None
    text = Reader(page(content)).text
    assert "cpu-fp32 packed" in text
    assert "No variant beside fp32 came so far that it could be judged." in text
    for absent in (
        "Inside the int8 files",
        "The search",
        "Speed by kind of machine",
        "Not judged",
        "Average precision",
    ):
        assert absent not in text


@pytest.mark.parametrize("missing", [*report_content()["stages"]])
def test_a_stage_that_is_missing_takes_nothing_else_with_it(missing: str) -> None:
    content = report_content()
    content["stages"].pop(missing)
    reader = Reader(page(content))
    assert reader.open == []
    for heading in ("Variants", "Accuracy", "What each stage did", "Provenance"):
        assert heading in reader.text
    own = {"search": "how it was made", "verify": "control", "judge": "interval from", "benchmark": "p90"}
    assert own.get(missing, "none of its own") not in reader.text
    assert all(words in Reader(page(report_content())).text for words in own.values())


def test_a_page_can_be_made_of_what_every_build_has() -> None:
    content = report_content()
    bare = {**content, "stages": {}, "evaluation": None}
    bare.pop("budget")
    assert Reader(page(bare)).open == []
