"""``build-models tap``: arrays, index and pictures lie in the folder, and people are told what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx

from build_models.__main__ import main
from tests.support.branching_model import branching_model
from tests.support.float_models import write_pictures

pytestmark = pytest.mark.build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the model and two pictures."""
    monkeypatch.chdir(tmp_path)
    onnx.save(branching_model(), "model.onnx")
    write_pictures(Path("pictures"), 2)
    return tmp_path


def tap(*arguments: str) -> int:
    return main(["tap", "model.onnx", "--input", "pictures/0.png", "--out", "maps", *arguments])


def test_everything_lies_in_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert tap("--all", "--mean", "0.5", "--std", "0.25,0.25,0.25") == 0
    index = json.loads(Path("maps/index.json").read_text())
    assert (index["schema"], index["model"], index["input"]) == (1, "model.onnx", ["0.png"])
    assert [each["tensor"] for each in index["tensors"]] == ["a", "r", "b", "s", "chosen", "mean", "scores"]
    for each in index["tensors"]:
        array = np.load(Path("maps") / each["array"])
        assert [*array.shape] == each["shape"]
        assert each["dtype"] == "float32"
        assert each["min"] == pytest.approx(array.min())
        assert each["mean"] == pytest.approx(array.mean(), abs=1e-6)
        assert each["zeros"] == int((array == 0).sum())
        assert cv2.imread(str(Path("maps") / each["picture"])) is not None
    out = capsys.readouterr().out
    assert "1x4x8x8" in out
    assert out.endswith("maps: 7 arrays, 7 pictures\n")


def test_no_more_pictures_than_asked_for_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert tap("--all", "--pictures", "2") == 0
    assert len(list(Path("maps").glob("*.png"))) == 2
    assert len(list(Path("maps").glob("*.npy"))) == 7
    assert "maps: 7 arrays, 2 pictures; 5 were not drawn: raise --pictures" in capsys.readouterr().out


def test_programs_get_the_index(capsys: pytest.CaptureFixture[str]) -> None:
    assert tap("--nodes", "Conv", "--nodes", "skip", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["tensor"] for each in told["tensors"]] == ["a", "b", "s"]


def test_a_value_that_is_not_finite_is_counted_and_the_index_is_still_json(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.full((1, 3, 8, 8), np.inf, np.float32))
    assert main(["tap", "model.onnx", "--nodes", "a", "--input", "x.npy", "--out", "maps"]) == 0
    (entry,) = json.loads(Path("maps/index.json").read_text())["tensors"]
    assert entry["not_finite"] > 0
    assert "NOT FINITE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "cnv*"], "--nodes cnv*: no node, tensor or operator"),
        (["--all", "--input", "pictures/1.png"], "a tap looks at one picture, 2 are given"),
        (["--all", "--mean", "x"], "--mean: expected 1 or 3 number(s)"),
        (["--all", "--std", "1,2"], "--std: expected 1 or 3 number(s)"),
        (["--all", "--scale", "1/0"], "--scale: expected 1 number(s)"),
        (["--all", "--size", "8"], "--size: expected WIDTHxHEIGHT"),
        (["--all", "--out", "pictures"], "pictures: there is something else already"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tap(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("build-models: ")
    assert said in line
    assert not Path("maps").exists()
