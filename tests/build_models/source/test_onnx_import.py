from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError, RecipeError
from build_models.graph.model_io import inputs_of, random_feed, run_model
from build_models.graph.passes import convert_opset
from build_models.recipe import InputRecipe
from build_models.source.onnx_import import import_onnx, load_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.build

RECIPE = InputRecipe()


def old_model(opset: int = 9, extra: Sequence[onnx.NodeProto] = ()) -> onnx.ModelProto:
    """As exporters wrote it years ago: IR 3, initialisers listed as inputs, Constant nodes, an old Upsample."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32)
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["features"], name="conv"),
        helper.make_node("Constant", [], ["scales"], value=scales),
        helper.make_node("Upsample", ["features", "scales"], ["y"], mode="linear"),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "old",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 10]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 12, 16])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


def test_an_old_file_becomes_a_model_with_one_float_input_and_todays_operators(tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    onnx.save(old_model(), path)

    model, report = import_onnx(path, RECIPE)

    assert [node.op_type for node in model.graph.node] == ["Conv", "Resize"]
    assert (model.ir_version, report.opset_before, report.opset_after) == (10, 9, 13)
    assert report.inputs == ["x float32[1,3,8,10]"]
    assert report.outputs == ["y float32[1,4,12,16]"]
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_conversion_changes_no_bit_of_the_results(tmp_path: Path) -> None:
    """Also not where the converter forgets that old Upsample sampled at x / scale."""
    path = tmp_path / "old.onnx"
    onnx.save(old_model(), path)

    model, report = import_onnx(path, RECIPE)
    feed = random_feed(model, 7)

    np.testing.assert_array_equal(run_model(model, feed)["y"], run_model(old_model(), feed)["y"])
    assert report.largest_difference == 0


def test_a_conversion_that_changes_results_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without our repair the converter's Resize samples elsewhere."""
    path = tmp_path / "old.onnx"
    onnx.save(old_model(), path)
    monkeypatch.setattr(convert_opset, "_restore_corner_aligned_resize", lambda model: None)

    with pytest.raises(BuildError, match=r"from opset 9 to 13 changed its results \(y\)"):
        import_onnx(path, RECIPE)


def test_constants_in_nodes_become_initialisers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Constant", [], ["shape"], value_ints=[1, -1]),
        helper.make_node("Mul", ["x", "half"], ["halved"]),
        helper.make_node("Reshape", ["halved", "shape"], ["y"]),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(simple(nodes), path)

    model, _ = import_onnx(path, RECIPE)

    assert [node.op_type for node in model.graph.node] == ["Mul", "Reshape"]
    assert {tensor.name for tensor in model.graph.initializer} == {"half", "shape"}


def simple(nodes: Sequence[onnx.NodeProto], inputs: Sequence[str] = ("x",)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "simple",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 48])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FLATTEN = helper.make_node("Flatten", ["x"], ["y"])


@pytest.mark.parametrize("content", [b"", b"not a model at all, but a line of text", b"\x89PNG\r\n\x1a\n" * 9])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.onnx"
    path.write_bytes(content)

    with pytest.raises(RecipeError, match=r"photo\.onnx: expected an ONNX model, found"):
        import_onnx(path, RECIPE)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the model: No such file"):
        import_onnx(tmp_path / "nowhere.onnx", RECIPE)


def test_a_graph_that_the_checker_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(simple([helper.make_node("Flatten", ["nowhere"], ["y"])]).SerializeToString())

    with pytest.raises(RecipeError, match="the ONNX checker refuses the model") as caught:
        import_onnx(path, RECIPE)
    assert "\n" not in str(caught.value)


def test_several_inputs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    nodes = [helper.make_node("Add", ["x", "z"], ["sum"]), helper.make_node("Flatten", ["sum"], ["y"])]
    onnx.save(simple(nodes, ("x", "z")), path)

    with pytest.raises(RecipeError, match=r"found 2: x float32\[1,3,4,4\], z float32\[1,3,4,4\]"):
        import_onnx(path, RECIPE)


def test_operators_of_other_domains_are_named(tmp_path: Path) -> None:
    model = simple([helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"), *[
        helper.make_node("Flatten", ["g"], ["y"])
    ]])  # fmt: skip
    model.opset_import.add(domain="com.microsoft", version=1)
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)

    with pytest.raises(BuildError, match=r"official ONNX operators only, found com\.microsoft\.Gelu"):
        import_onnx(path, RECIPE)


def test_an_unused_import_of_another_domain_does_no_harm(tmp_path: Path) -> None:
    model = simple([FLATTEN])
    model.opset_import.add(domain="ai.onnx.ml", version=2)
    path = tmp_path / "harmless.onnx"
    onnx.save(model, path)

    imported, _ = import_onnx(path, RECIPE)

    assert [(entry.domain, entry.version) for entry in imported.opset_import] == [("", 17)]


def external_model(path: Path) -> None:
    """A model with its weights in ``weights.bin``, as torch writes it by default."""
    weights = numpy_helper.from_array(np.arange(48 * 5, dtype=np.float32).reshape(48, 5), "w")
    model = simple([FLATTEN])
    model.graph.node[0].output[0] = "flat"
    model.graph.node.append(helper.make_node("MatMul", ["flat", "w"], ["y"]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    model.graph.initializer.append(weights)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def test_weights_in_a_file_beside_the_model_are_loaded_and_count_in_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    external_model(path)

    model, report = import_onnx(path, RECIPE)
    data = path.read_bytes() + (tmp_path / "weights.bin").read_bytes()

    assert run_model(model, random_feed(model, 0))["y"].shape == (1, 5)
    assert report.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("location", ["missing.bin", "../weights.bin", "/etc/hostname", ""])
def test_weights_anywhere_else_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = folder / "model.onnx"
    external_model(path)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    model = onnx.load(str(path), load_external_data=False)
    entry = next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location")
    entry.value = location
    path.write_bytes(model.SerializeToString())

    with pytest.raises(RecipeError, match="its weights are in another file"):
        import_onnx(path, RECIPE)


def test_a_local_function_is_written_out(tmp_path: Path) -> None:
    function = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model = simple([helper.make_node("Twice", ["x"], ["t"], domain="local"), helper.make_node("Flatten", ["t"], ["y"])])
    model.functions.append(function)
    model.opset_import.add(domain="local", version=1)
    path = tmp_path / "function.onnx"
    onnx.save(model, path)

    imported, _ = import_onnx(path, RECIPE)

    assert [node.op_type for node in imported.graph.node] == ["Add", "Flatten"]
    assert [info.name for info in inputs_of(imported)] == ["x"]


def test_an_opset_of_the_future_is_told_with_the_way_out(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "net", value[:1], value[1:])
    for opset in (17, 99):
        path = tmp_path / f"{opset}.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]), path)
    load_onnx(tmp_path / "17.onnx")
    with pytest.raises(RecipeError, match=r"its opset is 99, the newest .* export it with opset 17"):
        load_onnx(tmp_path / "99.onnx")
