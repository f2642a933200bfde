"""``build-models split``: stages, their index and the proof; nothing is written when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx

from build_models.__main__ import main
from build_models.graph import stages
from build_models.graph.model_io import run_model
from build_models.graph.stages import run_stages
from tests.support.branching_model import branching_model

pytestmark = pytest.mark.build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the model and an input."""
    monkeypatch.chdir(tmp_path)
    onnx.save(branching_model(), "model.onnx")
    np.save("x.npy", np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32))
    return tmp_path


def split(*arguments: str) -> int:
    return main(["split", "model.onnx", "--out", "stages", *arguments])


def test_stages_and_what_is_carried_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert split("--at", "b", "--at", "mean") == 0
    out = capsys.readouterr().out
    assert "carried past the cut at b: r\n" in out
    assert out.endswith("stages: 3 stages; on 2 samples of noise they give exactly what the whole gives\n")
    feeds = {"image": np.load("x.npy")}
    whole = run_model(branching_model(), feeds)["scores"]
    np.testing.assert_array_equal(run_stages(Path("stages"), feeds, optimise=False)["scores"], whole)


def test_programs_get_the_index(capsys: pytest.CaptureFixture[str]) -> None:
    assert split("--at", "b,r", "--no-carry", "--input", "x.npy", "--json") == 0
    index = json.loads(capsys.readouterr().out)
    assert index == json.loads(Path("stages/stages.json").read_text())
    assert (index["cuts"], index["carried"]) == ([["b", "r"]], [[]])
    assert (index["proof"]["samples"], index["proof"]["of"]) == (1, "inputs")


def test_the_cuts_can_be_left_to_it() -> None:
    assert split("--into", "2") == 0
    assert len(list(Path("stages").glob("*.onnx"))) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "scores"], "nothing comes after it"),
        (["--at", "b", "--no-carry"], "r cross the cut too"),
        (["--at", ","], "--at ,: the model has no such tensor"),
        (["--into", "1"], "--into: expected 2 or more stages, got 1"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("stages").exists()


def test_without_a_proof_nothing_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "run_model", lambda *_: {"scores": np.zeros((1, 4), np.float32)})
    assert split("--at", "b") == 1
    assert "the stages do not equal the whole: output scores differs" in capsys.readouterr().err
    assert not Path("stages").exists()
