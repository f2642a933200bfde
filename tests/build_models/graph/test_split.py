"""Splitting: the stages equal the whole, whatever crosses a cut, and a cut that separates nothing is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import describe, inputs_of, outputs_of, run_model
from build_models.graph.split import split_model
from build_models.graph.stages import StagedModel, prove_equal, run_stages, write_stages
from tests.support.branching_model import SIDE, branching_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.build


def image(seed: int = 0) -> dict[str, NDArray[Any]]:
    return {"image": np.random.default_rng(seed).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)}


def two_heads() -> onnx.ModelProto:
    """``x -> a -> b -> one``; ``two`` reads x and b; ``early`` needs a only; ``none`` is constant."""
    nodes = [
        helper.make_node("Constant", [], ["shift"], value=numpy_helper.from_array(np.array([1], np.float32))),
        helper.make_node("Add", ["x", "shift"], ["a"]),
        helper.make_node("Neg", ["a"], ["early"]),
        helper.make_node("Mul", ["a", "a"], ["b"]),
        helper.make_node("Sub", ["b", "shift"], ["one"]),
        helper.make_node("Div", ["x", "b"], ["two"]),
        helper.make_node("Identity", ["shift"], ["none"]),
        helper.make_node("Exp", ["x"], ["dead"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "x"]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("two", "one", "early", "none")
    ]
    graph = helper.make_graph(nodes, "heads", value, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("cuts", [["a"], ["r"], ["b"], ["s"], ["chosen"], ["mean"], ["a", "s"], ["mean", "r", "b"]])
def test_the_stages_equal_the_whole(cuts: list[str]) -> None:
    model = branching_model()
    split = split_model(model, [[name] for name in cuts])
    assert len(split.stages) == len(cuts) + 1
    assert prove_equal(model, split, [image(0), image(1)]) == 2
    for stage in split.stages:
        onnx.checker.check_model(stage.model, full_check=True)
    kept = [node.name for stage in split.stages for node in stage.model.graph.node if node.op_type != "Constant"]
    assert sorted(kept) == sorted(node.name for node in model.graph.node if node.op_type != "Constant")


def test_a_skip_connection_is_carried_and_said() -> None:
    split = split_model(branching_model(), [["b"]])
    assert split.carried == (("r",),)
    first, second = split.stages
    assert describe(outputs_of(first.model)) == "b float32[1,4,8,8], r float32[1,4,8,8]"
    assert {info.name for info in inputs_of(second.model)} == {"b", "r"}
    assert second.sources == {"b": "stage-0", "r": "stage-0"}


def test_without_carrying_it_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"--at b: r cross the cut too; name them with it"):
        split_model(branching_model(), [["b"]], carry=False)
    assert len(split_model(branching_model(), [["b", "r"]], carry=False).stages) == 2
    # Not the skip alone, but the branch of an If reads r: nothing but both together is a clean cut.
    assert split_model(branching_model(), [["s"]]).carried == (("r",),)


def test_outputs_may_be_made_by_any_stage_and_inputs_read_by_any() -> None:
    model = two_heads()
    split = split_model(model, [["b"]])
    assert split.carried == (("x", "a"),)
    assert split.stages[1].sources == {"x": "input", "a": "stage-0", "b": "stage-0"}
    assert prove_equal(model, split, [{"x": np.array([1, 2, 3], np.float32)}]) == 1
    early = split_model(model, [["a"], ["b"]])
    assert early.outputs["early"] == "stage-2"  # nothing before the cut needs it
    assert "dead" not in {name for stage in split.stages for node in stage.model.graph.node for name in node.output}


@pytest.mark.parametrize(
    ("cuts", "said"),
    [
        ([["image"]], "--at image: it is an input"),
        ([["w_a"]], "--at w_a: it is a constant"),
        ([["two"]], "--at two: it is a constant"),
        ([["doubled"]], "--at doubled: it is a constant, or lies in the branch of an If"),
        ([["chozen"]], r"--at chozen: the model has no such tensor; did you mean 'chosen'"),
        ([["scores"]], "--at scores: nothing comes after it"),
        ([["r"], ["r"]], "--at r: nothing is left to compute before it"),
    ],
)
def test_a_cut_that_separates_nothing_is_refused(cuts: list[list[str]], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        split_model(branching_model(), cuts)


def test_a_side_exit_that_nobody_reads_is_refused() -> None:
    with pytest.raises(RecipeError, match="--at early: nothing behind the cut reads early"):
        split_model(two_heads(), [["early"]])


def test_a_file_whose_initialisers_are_inputs_is_split_too() -> None:
    model = branching_model()
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    )
    split = split_model(model, [["r"]])
    assert prove_equal(model, split, [image()]) == 1


def test_stages_that_do_not_equal_the_whole_are_noticed() -> None:
    model = branching_model()
    split = split_model(model, [["r"]])
    for tensor in split.stages[1].model.graph.initializer:
        if tensor.name == "w_b":
            value = numpy_helper.to_array(tensor).copy()
            value.flat[0] += 1e-3
            tensor.CopyFrom(numpy_helper.from_array(value, "w_b"))
    with pytest.raises(BuildError, match="the stages do not equal the whole: output scores differs on sample 0"):
        prove_equal(model, split, [image()])


# --- on the disk


def written(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return write_stages(folder, split_model(branching_model(), [["b"], ["chosen"]]), {"model": "m.onnx"})


def test_a_folder_of_stages_runs_like_the_whole(tmp_path: Path) -> None:
    index = written(tmp_path / "stages")
    assert index == json.loads((tmp_path / "stages" / "stages.json").read_text())
    assert [each["file"] for each in index["stages"]] == ["stage-0.onnx", "stage-1.onnx", "stage-2.onnx"]
    assert index["stages"][1]["inputs"] == [
        {"name": "r", "dtype": "float32", "shape": [1, 4, 8, 8], "from": "stage-0"},
        {"name": "b", "dtype": "float32", "shape": [1, 4, 8, 8], "from": "stage-0"},
    ]
    want = run_model(branching_model(), image())["scores"]
    np.testing.assert_array_equal(run_stages(tmp_path / "stages", image(), optimise=False)["scores"], want)
    staged = StagedModel(tmp_path / "stages")
    for seed in range(2):
        want = run_model(branching_model(), image(seed))["scores"]
        np.testing.assert_allclose(staged.run(image(seed))["scores"], want, atol=1e-5)


def test_feeds_that_do_not_fit_are_told(tmp_path: Path) -> None:
    written(tmp_path / "stages")
    with pytest.raises(BuildError, match="stage 0 does not run: nothing is given for its input image"):
        run_stages(tmp_path / "stages", {})
    with pytest.raises(BuildError, match="stage 0 does not run: "):
        run_stages(tmp_path / "stages", {"image": np.zeros((1, 2), np.float32)})


def test_a_folder_that_was_changed_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "stages")
    with (tmp_path / "stages" / "stage-1.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(RecipeError, match=r"stage-1\.onnx: expected the file that stages\.json lists"):
        StagedModel(tmp_path / "stages")
    (tmp_path / "stages" / "stage-1.onnx").unlink()
    with pytest.raises(RecipeError, match="cannot read the stage"):
        StagedModel(tmp_path / "stages")
    for content, said in [("{}", "expected schema 1"), ("no", "found no JSON")]:
        (tmp_path / "stages" / "stages.json").write_text(content)
        with pytest.raises(RecipeError, match=said):
            StagedModel(tmp_path / "stages")
    with pytest.raises(RecipeError, match="with build-models split"):
        StagedModel(tmp_path)
