from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")


from agent.model.manifest import Golden, Metric, Tolerances, Variant
from build_models import report
from build_models.evaluation import Evaluation, Sheet, Table
from build_models.recipe_file import make_recipe
from build_models.workpiece import Candidate
from tests.support.report_content import report_content

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = make_recipe(
    {
        "name": "shapes",
        "version": 3,
        "source": {"kind": "onnx", "path": "net.onnx"},
        "output": {"family": "yolox"},
        "labels": ["circle", "square"],
    }
)
EVALUATION = Evaluation(
    "mine", (Table("t", ("class", "all"), (("circle", "0.9"),)),), (Sheet("s", "image/png", b"png"),)
)


def candidate(refused: str | None) -> Candidate:
    variant = Variant(
        id="cpu-fp32",
        file="models/cpu-fp32.onnx",
        precision="fp32",
        providers=["cpu"],
        input=RECIPE.input.spec(192, 320),
        golden=Golden(file="golden/cpu-fp32.npz", tolerances=Tolerances(score_floor=0.05, score=1e-3, box_px=0.05)),
        metrics=[Metric(name="latency_ms", value=9.6, cpu="Cortex-A76")],
    )
    return Candidate(variant, refused)


@pytest.mark.parametrize("refused", [None, "too slow"])
def test_what_is_collected_is_plain_json_and_makes_a_page(refused: str | None, tmp_path: Path) -> None:
    stages = {"source": {"said": "image -> output"}}
    content = report.collect(
        RECIPE, {"source": "net.onnx"}, "Cortex-A76", [candidate(refused)], {"cpu-fp32": 3_700_000}, stages, EVALUATION
    )
    assert json.loads(json.dumps(content)) == content
    assert content["variants"][0]["packed"] is (refused is None)
    report.write(content, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "3.70 MB" in page
    assert "data:image/png;base64,cG5n" in page
    assert (refused or "packed") in page


def test_the_file_for_programs_holds_everything_but_the_pictures_bytes(tmp_path: Path) -> None:
    report.write(report_content(), tmp_path)
    told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert told["evaluation"]["pictures"] == [{"title": "sheet", "mime": "image/png"}]
    assert {**told, "evaluation": None} == {**report_content(), "evaluation": None}


def test_a_build_without_an_evaluation_says_none(tmp_path: Path) -> None:
    report.write({**report_content(), "evaluation": None}, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["evaluation"] is None
