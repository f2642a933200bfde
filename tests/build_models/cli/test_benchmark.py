"""``build-models benchmark``: a table with what each was fed, JSON, a plot, and no winner without a clear one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import onnx
import yaml

from build_models.__main__ import main
from tests.support.bundles import make_bundle
from tests.support.float_models import SIDE, spot_detector, spot_recipe, write_pictures

pytestmark = pytest.mark.build

SHORT = ["--rounds", "1", "--seconds", "0.01", "--threads", "1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model and pictures."""
    monkeypatch.chdir(tmp_path)
    onnx.save(spot_detector(), "spots.onnx")
    write_pictures(Path("pictures"), 6)
    return tmp_path


def test_a_model_competes_with_its_own_forms_and_a_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = make_bundle(folder)
    bundle = ["--bundle", str(signed.root), "--trusted-key", str(signed.public_key)]
    calibration = ["--calibration", "pictures"]
    assert main(["benchmark", "spots.onnx", *SHORT, *bundle, *calibration, "--plot", "b.svg", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = [each["name"] for each in told["results"] if each["name"] != "openvino"]
    assert names == ["onnxruntime", "onnxruntime, free axes", "ours fp32", "ours int8", "bundle cpu-fp32"]
    by_name = {each["name"]: each for each in told["results"]}
    assert by_name["onnxruntime"]["ratio"] == 1.0
    assert by_name["ours int8"]["input"] == f"image uint8[1,{SIDE},{SIDE},3]"
    assert by_name["ours int8"]["note"] == "bytes in, calibrated"
    assert all(each["peak_mb"] > 20 and each["file_mb"] > 0 for each in told["results"])
    assert told["winner"] is None
    assert told["said"] == "no winner: 1 rounds tell no spread, 5 or more do (--rounds)"
    assert (told["schema"], told["threads"], told["rounds"]) == (1, 1, 1)
    assert told["device"]["cpu"]
    assert "not included" in told["preprocessing"]
    assert "onnxruntime" in told["versions"]
    assert "ours int8" in Path("b.svg").read_text(encoding="utf-8")


def test_a_recipe_brings_its_pictures_and_its_decoding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {**spot_recipe(folder), "data": {"train": {"format": "pictures", "path": "pictures"}}}
    recipe.pop("calibration", None)
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert main(["benchmark", "recipe.yaml", *SHORT]) == 0
    head, *rows, said, machine, legend = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["median", "quartiles", "ratio"]
    assert any(row.startswith("ours int8 ") and "bytes in, calibrated" in row for row in rows)
    assert any(row.startswith("ours int8 dynamic") and "left out: " in row for row in rows)
    assert said.startswith("no winner: ")
    assert "1 threads, spinning off, 1 rounds of 0.01 s in turn; " in machine
    assert "preparing pictures is not included" in legend


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.onnx"], "none.onnx: cannot read the model"),
        (["none.yaml"], "none.yaml: cannot read the recipe"),
        (["spots.onnx", "--rounds", "0"], "--rounds: expected more than 0, got 0"),
        (["spots.onnx", "--plot", "b.txt"], "--plot b.txt: expected a name that ends in"),
        (["spots.onnx", "--calibration", "none"], "none"),
        (["spots.onnx", "--bundle", "pictures"], "pictures: cannot read manifest.json"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) in (2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("build-models: ")
