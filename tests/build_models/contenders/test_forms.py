"""The forms of a model: each runs, says what it is fed, and what cannot compete has its reason."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.benchmark import compare_latency
from build_models.contenders.child import main
from build_models.contenders.forms import (
    AS_IT_CAME,
    EAGER,
    FREE_AXES,
    OPENVINO,
    OURS,
    OURS_DYNAMIC,
    OURS_INT8,
    Entrants,
    add_bundle,
    add_our_forms,
    add_plain_forms,
    add_torch,
    fixed_shapes,
)
from build_models.errors import RecipeError
from build_models.graph.model_io import TensorInfo, describe, inputs_of
from build_models.recipe import InputRecipe, TorchSource
from tests.support.bundles import make_bundle
from tests.support.float_models import SIDE, spot_detector

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.benchmark import Contender

pytestmark = pytest.mark.build

RECIPE = InputRecipe(height=SIDE, width=SIDE)
SHAPES = {"images": [1, 3, SIDE, SIDE]}


@pytest.fixture(autouse=True)
def _no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed, what is tested is the same."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find_spec(name))


def timed(contenders: list[Contender]) -> dict[str, str]:
    """Run each for a moment; name to what it was fed."""
    *_, told = compare_latency(contenders, threads=1, rounds=1, round_s=0.01)
    return {each["name"]: each["input"] for each in told["results"]}


def input_name(model: onnx.ModelProto) -> str:
    return inputs_of(model)[0].name


def matrix_model() -> onnx.ModelProto:
    """A picture flattened into two matrix products."""
    rng = np.random.default_rng(0)
    tensors = {"a": rng.standard_normal((3 * 8 * 8, 64)), "b": rng.standard_normal((64, 10))}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "matrix",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_source_runs_with_fixed_and_with_free_axes(tmp_path: Path) -> None:
    model = spot_detector()
    onnx.save(model, tmp_path / "m.onnx")
    name, entrants = input_name(model), Entrants()
    add_plain_forms(entrants, model, tmp_path / "m.onnx", {name: [1, 3, SIDE, SIDE]}, tmp_path)
    assert [each.name for each in entrants.contenders] == [AS_IT_CAME, FREE_AXES]
    assert entrants.left_out == [{"name": OPENVINO, "reason": "not installed (pip install openvino)"}]
    free = onnx.load(tmp_path / "free.onnx")
    assert describe(inputs_of(free)) == f"{name} float32[batch,3,height,width]"
    fed = timed(entrants.contenders)
    assert set(fed.values()) == {f"{name} float32[1,3,{SIDE},{SIDE}]"}


def test_a_source_of_any_size_is_fixed_first(tmp_path: Path) -> None:
    model = spot_detector()
    for axis, free in {0: "n", 2: "h", 3: "w"}.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = free
    shapes = fixed_shapes(inputs_of(model), (SIDE, SIDE), "nchw")
    assert shapes == {input_name(model): [1, 3, SIDE, SIDE]}
    entrants = Entrants()
    add_plain_forms(entrants, model, tmp_path / "m.onnx", shapes, tmp_path)
    assert inputs_of(onnx.load(entrants.contenders[0].model_path))[0].static_shape == (1, 3, SIDE, SIDE)
    with pytest.raises(RecipeError, match=r"takes any size .*--size"):
        fixed_shapes(inputs_of(model), None, "nchw")
    assert fixed_shapes([TensorInfo("x", "float32", ("n", "h", "w", 3))], (8, 4), "nhwc") == {"x": [1, 4, 8, 3]}


def test_our_forms_take_bytes_and_say_when_they_saw_noise_only(tmp_path: Path) -> None:
    entrants = Entrants()
    add_our_forms(entrants, spot_detector(), RECIPE, None, tmp_path)
    assert [each.name for each in entrants.contenders] == [OURS, OURS_INT8]
    assert "ranges of noise: for its speed only" in entrants.contenders[1].note
    assert [each["name"] for each in entrants.left_out] == [OURS_DYNAMIC]
    assert set(timed(entrants.contenders).values()) == {f"image uint8[1,{SIDE},{SIDE},3]"}
    int8 = onnx.load(entrants.contenders[1].model_path)
    assert any(node.op_type == "DequantizeLinear" for node in int8.graph.node)
    images = [np.full((SIDE, SIDE, 3), value, np.uint8) for value in (0, 100, 255)]
    calibrated = Entrants()
    add_our_forms(calibrated, spot_detector(), RECIPE, images, tmp_path)
    assert calibrated.contenders[1].note == "bytes in, calibrated"


def test_a_model_of_matrix_products_competes_in_dynamic_int8_too(tmp_path: Path) -> None:
    entrants = Entrants()
    add_our_forms(entrants, matrix_model(), InputRecipe(height=8, width=8), None, tmp_path)
    assert OURS_DYNAMIC in {each.name for each in entrants.contenders}
    timed([each for each in entrants.contenders if each.name == OURS_DYNAMIC])


def test_what_is_no_picture_model_is_left_out_with_the_reason(tmp_path: Path) -> None:
    model = matrix_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    entrants = Entrants()
    add_our_forms(entrants, model, InputRecipe(height=8, width=8), None, tmp_path)
    assert entrants.contenders == []
    assert [each["name"] for each in entrants.left_out] == [OURS, OURS_INT8, OURS_DYNAMIC]
    assert all(each["reason"] for each in entrants.left_out)


def test_a_bundles_variants_run_in_the_devices_session(tmp_path: Path) -> None:
    def for_another(manifest: dict[str, list[dict[str, object]]]) -> None:
        manifest["variants"].append({**manifest["variants"][0], "id": "trt-int8", "providers": ["tensorrt"]})

    signed = make_bundle(tmp_path, change=for_another)
    entrants = Entrants()
    add_bundle(entrants, signed.root, [signed.public_key])
    assert [each.name for each in entrants.contenders] == ["bundle cpu-fp32"]
    assert entrants.left_out == [{"name": "bundle trt-int8", "reason": "made for tensorrt, available: cpu"}]
    assert timed(entrants.contenders)["bundle cpu-fp32"].startswith("image uint8[1,")


@pytest.mark.torch
def test_a_torch_module_runs_eagerly_with_its_own_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the torch extra")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef make(width=4):\n    return nn.Conv2d(3, width, 1)\n", encoding="utf-8"
    )
    torch.save(torch.nn.Conv2d(3, 6, 1).state_dict(), tmp_path / "w.pt")
    source = TorchSource(kind="torch", callable="nets:make", kwargs={"width": 6}, python_path=tmp_path)
    entrants = Entrants()
    add_torch(entrants, source, tmp_path / "w.pt", tmp_path / "none.onnx", {"x": [1, 3, 8, 8]})
    assert timed(entrants.contenders) == {EAGER: "x float32[1,3,8,8]"}


def test_without_torch_the_eager_form_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    source = TorchSource(kind="torch", callable="nets:make")
    entrants = Entrants()
    add_torch(entrants, source, None, tmp_path / "m.onnx", {"x": [1, 3, 8, 8]})
    assert entrants.contenders == []
    assert "torch is not installed" in entrants.left_out[0]["reason"]


def test_openvino_competes_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    model = spot_detector()
    onnx.save(model, tmp_path / "m.onnx")
    entrants = Entrants()
    add_plain_forms(entrants, model, tmp_path / "m.onnx", {input_name(model): [1, 3, SIDE, SIDE]}, tmp_path)
    assert [each.runner for each in entrants.contenders if each.name == OPENVINO] == ["openvino"]


def test_a_child_of_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        main([json.dumps({"runner": "none"})])
