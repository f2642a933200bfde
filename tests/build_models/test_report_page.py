from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_page import page
from tests.support.report_content import LABEL, report_content

VOID = {"meta", "link", "img"}


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


def test_every_variant_stands_on_top_with_its_verdict(reader: Reader) -> None:
    top = reader.text[: reader.text.index("Variants")]
    assert "cpu-int8 refused: f1 against fp32 is 0.420, the least is 0.95" in top
    assert "cpu-fp32 packed" in top
    assert "version 3: detect, 2 classes, input 320x192" in top


def test_the_table_compares_the_variants(reader: Reader) -> None:
    for row in (
        "precision - int8 fp32",
        "size - 1.29 MB 3.70 MB",
        "latency, median 9.05 ms 18.0 ms 9.62 ms",
        "latency, p90 11.0 ms 41.0 ms 14.4 ms",
        "time / source 1.00x 2.49x 1.13x",
        "time / fp32 0.94x 1.87x 1.00x",
        "agreement - f1 0.420 reference",
    ):
        assert row in reader.text


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
        "QLinearConv 113",  # kernels
        "Left in float inside the network: Gather",
        "calibration 64 held out 16",
        "The 10 weakest",
        "-3.50 dB",
        "backbone.stem",
        "least 0.95",
        "edge-agent 0.1.0, onnxruntime 1.23.0",
        "ab" * 32,
        "Average precision",
        "0.931",
    ],
)
def test_the_page_tells(reader: Reader, said: str) -> None:
    assert said in reader.text


def test_there_is_a_plot_of_size_latency_accuracy_and_layers(html: str, reader: Reader) -> None:
    assert re.findall(r'<svg role="img" aria-label="(\w+)"', html) == ["size", "latency", "accuracy", "layers"]
    assert reader.tags.count("svg") == 4


def test_nothing_is_loaded_from_anywhere(html: str, reader: Reader) -> None:
    assert reader.loads
    assert [load for load in reader.loads if not load.startswith(("data:", "#"))] == []
    assert re.search(r"https?:|//|@import", html) is None
    assert not re.search(r"url\((?!#)", html)
    assert "default-src &#x27;none&#x27;" in html


def test_a_hostile_text_is_shown_and_not_run(html: str, reader: Reader) -> None:
    assert "script" not in reader.tags
    assert LABEL not in html
    assert reader.text.count(LABEL) >= 6


def test_every_element_is_closed_and_every_id_is_its_own(html: str, reader: Reader) -> None:
    assert reader.open == []
    found = re.findall(r'\bid="([^"]+)"', html)
    assert len(found) == len(set(found))


def test_the_same_build_gives_the_same_bytes(html: str) -> None:
    assert page(report_content()) == html
    assert page(json.loads(json.dumps(report_content()))) == html


def test_a_build_of_fp32_alone_has_a_shorter_page() -> None:
    content = report_content()
    content["variants"] = content["variants"][1:]
    content["stages"]["quantise"] = {"said": "left out by the recipe"}
    content["evaluation"] = None
    text = Reader(page(content)).text
    assert "cpu-fp32 packed" in text
    for absent in ("Kernels on this CPU", "Signal to noise", "Accuracy", "Average precision"):
        assert absent not in text


def test_an_int8_file_that_cannot_be_judged_says_so() -> None:
    content = report_content()
    content["variants"][0]["metrics"] = []
    assert "agreement - not measured reference" in Reader(page(content)).text
