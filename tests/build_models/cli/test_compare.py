"""``build-models compare``: a sentence for people, every tensor for programs, an exit code for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import onnx
from onnx import numpy_helper

from build_models.__main__ import main
from tests.support.branching_model import branching_model

pytestmark = pytest.mark.build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a.onnx, b.onnx with another second convolution, and an input."""
    monkeypatch.chdir(tmp_path)
    onnx.save(branching_model(), "a.onnx")
    other = branching_model()
    for tensor in other.graph.initializer:
        if tensor.name == "w_b":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), "w_b"))
    onnx.save(other, "b.onnx")
    np.save("x.npy", np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32))
    return tmp_path


def compare(first: str, second: str, *arguments: str) -> int:
    return main(["compare", first, second, "--input", "x.npy", *arguments])


def test_where_they_part_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("a.onnx", "b.onnx") == 0
    *rows, facts, verdict = capsys.readouterr().out.splitlines()
    assert verdict == "they part at b (Conv), 20.0 dB, its inputs 200.0 dB"
    assert [row.split()[:2] for row in rows if row.startswith("*")] == [["*", "b"]]
    assert rows[-1].endswith("output")
    assert facts == "1 input"


def test_a_model_against_itself_says_equal(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("a.onnx", "a.onnx", "--check") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "equal: all numbers of 7 tensors are the same"


def test_a_script_reads_it_from_the_exit_code_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("a.onnx", "b.onnx", "--json", "--check") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["equal"], told["parts_at"], told["outputs"]) == (1, False, "b", ["scores"])
    assert len(told["tensors"]) == 7
    assert compare("a.onnx", "b.onnx", "--check", "--threshold", "10") == 0
    assert "no tensor of 7 is below 10 dB; the weakest is " in capsys.readouterr().out


def test_few_rows_keep_the_place_where_they_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("a.onnx", "b.onnx", "--rows", "0") == 0
    head, row, facts, _ = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "tensor"
    assert row.split()[1] == "b"
    assert facts == "6 stronger ones not shown (--rows); 1 input"


def test_it_can_be_drawn_and_a_wrong_name_is_told_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("a.onnx", "b.onnx", "--plot", "p.svg") == 0
    assert "they part" in Path("p.svg").read_text()
    capsys.readouterr()
    assert compare("a.onnx", "b.onnx", "--plot", "p.txt") == 2
    assert capsys.readouterr().out == ""
