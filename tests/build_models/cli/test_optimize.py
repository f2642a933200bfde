"""build-models optimize: what it prints, what it writes, and what it refuses without writing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx

from build_models.__main__ import main
from build_models.graph import optimise as optimiser
from build_models.graph.model_io import inputs_of, outputs_of, run_model
from tests.support.onnx_graphs import feed_of, graph_model, ints, node, numbers, ops

pytestmark = pytest.mark.build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(two_inputs(), "in.onnx")
    return tmp_path


def two_inputs() -> onnx.ModelProto:
    """Two inputs that share their open batch, shape arithmetic, a scale, and two outputs."""
    nodes = [
        node("Conv", ["image", "w"], ["c"]),
        node("Mul", ["c", "k"], ["scaled"]),
        node("Shape", ["scaled"], ["shape"]),
        node("Gather", ["shape", "first"], ["n"]),
        node("Concat", ["n", "open"], ["target"], axis=0),
        node("Reshape", ["scaled", "target"], ["flat"]),
        node("Add", ["other", "one"], ["y2"]),
    ]
    model = graph_model(
        nodes,
        inputs={"image": ("N", 3, "H", "W"), "other": ("N", 4)},
        outputs={"flat": 1, "y2": 1},
        w=numbers(4, 3, 3, 3),
        k=numbers(4, 1, 1),
        first=ints(0),
        open=ints(-1),
        one=np.ones(4, np.float32),
    )
    model.graph.input.add().CopyFrom(graph_model([], inputs={"k": (4, 1, 1)}).graph.input[0])
    return model


FIXED = ["--shape", "image=2x3x8x6"]


def test_the_result_is_the_same_function_with_fewer_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "in.onnx", "out.onnx", *FIXED]) == 0
    result = onnx.load("out.onnx")
    assert ops(result) == ["Conv", "Reshape", "Add"]
    assert [str(info) for info in inputs_of(result)] == ["image float32[2,3,8,6]", "other float32[2,4]"]
    assert [str(info) for info in outputs_of(result)] == ["flat float32[2,96]", "y2 float32[2,4]"]
    feed = feed_of(result, 5)
    for name, expected in run_model(two_inputs(), feed).items():
        np.testing.assert_allclose(run_model(result, feed)[name], expected, rtol=1e-4, atol=1e-4)
    told = capsys.readouterr()
    assert "1 initialisers were inputs too" in told.out
    lines = told.out.splitlines()
    assert any(line.split() == ["fold_scale", "1", "1", "4", "3"] for line in lines)
    assert any(line.split()[:1] == ["all"] and line.split()[-2:] == ["7", "3"] for line in lines)
    assert "what ONNX Runtime runs on this machine" in told.out
    assert "prove" in told.err


def test_without_a_shape_axes_stay_open_and_the_rest_is_optimised() -> None:
    assert main(["optimize", "in.onnx", "out.onnx"]) == 0
    assert str(inputs_of(onnx.load("out.onnx"))[0]) == "image float32[N,3,H,W]"
    assert "Mul" not in ops(onnx.load("out.onnx"))


def test_another_opset_is_converted_to() -> None:
    assert main(["optimize", "in.onnx", "out.onnx", *FIXED, "--opset", "20"]) == 0
    assert onnx.load("out.onnx").opset_import[0].version == 20


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "in.onnx", "out.onnx", *FIXED, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["nodes_before"], told["nodes_after"], told["rewrites"]["fold_scale"]) == (7, 3, 1)
    assert told["largest_difference"] < 1e-5
    assert told["bytes_after"] == Path("out.onnx").stat().st_size
    assert told["kernels"]["nodes"] == sum(told["kernels"]["operators"].values())


def test_a_model_may_be_replaced_by_its_result() -> None:
    assert main(["optimize", "in.onnx", "in.onnx", *FIXED]) == 0
    assert ops(onnx.load("in.onnx")) == ["Conv", "Reshape", "Add"]


def test_a_result_that_differs_is_an_error_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control of the proof: a pass that drops a product."""

    def wrong(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
        for each in model.graph.node:
            if each.op_type == "Mul":
                each.op_type = "Add"
                return model, 1
        return model, 0

    monkeypatch.setattr(optimiser.optimise, "__defaults__", ((), (wrong,)))
    before = sorted(Path().iterdir())
    assert main(["optimize", "in.onnx", "out.onnx", *FIXED]) == 1
    assert "the optimised model differs: output flat is off by" in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "imagine=2x3x8x6"], "the model has no such input, it has .*; did you mean 'image'?"),
        (["--shape", "image=3x8x6"], r"image=3x8x6: expected 4 sides, one per axis of image float32\[N,3,H,W\], got 3"),
        (["--shape", "image=2x1x8x6"], "image=2x1x8x6: axis 1 is fixed to 3 in the model"),
        ([*FIXED, "--shape", "other=1x4"], "axis 0 is 'N', which input image axis 0 sets to 2, not 1"),
        (["--shape", "other=2x4"], r"leaves axes open: input image axis 2 \(H\), input image axis 3 \(W\)"),
        ([*FIXED, *FIXED], "image is given twice"),
        (["--shape", "image=2x3x0x6"], "expected NAME=SIDExSIDE"),
        (["--shape", "image"], "expected NAME=SIDExSIDE"),
        (["--opset", "12"], "--opset: expected 13 to 21, which every device runs, got 12"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "in.onnx", "out.onnx", *arguments]) == 2
    *stages, error = capsys.readouterr().err.splitlines()
    assert all(line.startswith("[") for line in stages)
    assert error.startswith("build-models: ")
    assert re.search(said, error), error
    assert not Path("out.onnx").exists()


def test_a_size_that_the_model_cannot_have_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "in.onnx", "out.onnx", "--shape", "image=2x3x2x2"]) == 1
    assert not Path("out.onnx").exists()


def test_files_that_are_not_there_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "none.onnx", "out.onnx"]) == 2
    assert "none.onnx: cannot read the model" in capsys.readouterr().err
    assert main(["optimize", "in.onnx", "nowhere/out.onnx"]) == 2
    assert "make it first" in capsys.readouterr().err


def test_a_reshape_to_constant_sides_is_named_as_what_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["r"], "relu"),
        onnx.helper.make_node("Reshape", ["r", "sides"], ["y"], "flat"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, "h", "w"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, "n"])],
        [onnx.numpy_helper.from_array(np.array([1, 4, 64], np.int64), "sides")],
    )
    path = tmp_path / "in.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10), path)
    out = tmp_path / "out.onnx"
    assert main(["optimize", str(path), str(out), "--shape", "x=1x4x16x16"]) == 2
    assert "the Reshape flat makes [1, 4, 64] of [1, 4, 16, 16]" in capsys.readouterr().err
    assert not out.exists()
    assert main(["optimize", str(path), str(out), "--shape", "x=1x4x8x8"]) == 0
