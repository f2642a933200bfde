"""Which files a build makes for which machines, and which form it takes on x86."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("matplotlib", reason="needs the build extra")

import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper

from build_models.pipeline import STAGES, build
from build_models.progress import Progress
from build_models.quantize.forms import FORMS
from build_models.recipe_file import make_recipe
from tests.support.fake_timing import fake_timing
from tests.support.float_models import colour_recipe, spot_detector, spot_recipe, write_colours, write_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from build_models.workpiece import Workpiece

pytestmark = pytest.mark.build

KEY = Ed25519PrivateKey.generate()


def make(folder: Path, **changes: Any) -> Workpiece:
    onnx.save(spot_detector(), folder / "spots.onnx")
    write_pictures(folder / "pictures", 20)
    recipe = make_recipe(spot_recipe(folder, **changes))
    return build(recipe, KEY, folder / "out", Progress(len(STAGES) + 1, io.StringIO()))


def hosts(piece: Workpiece) -> Mapping[str, list[str]]:
    return {each.variant.id: sorted({host.arch for host in each.variant.requires.any_of}) for each in piece.candidates}


def test_where_the_plain_form_is_fastest_one_int8_file_serves_arm_and_x86(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_timing(monkeypatch)
    assert hosts(make(tmp_path)) == {"cpu-int8": ["aarch64", "x86_64"], "cpu-fp32": []}


def test_where_another_form_is_faster_x86_gets_a_file_of_its_own_and_stands_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_timing(monkeypatch, others_ms={"packed stem": 0.5})
    piece = make(tmp_path)
    assert hosts(piece) == {"cpu-int8-vnni": ["x86_64"], "cpu-int8": ["aarch64"], "cpu-fp32": []}
    assert list(hosts(piece)) == ["cpu-int8-vnni", "cpu-int8", "cpu-fp32"]
    (x86, arm) = (piece.found[name].chosen for name in ("cpu-int8-vnni", "cpu-int8"))
    assert x86 is not None
    assert arm is not None
    assert (x86.choice.form, arm.choice.form) == ("packed stem", "plain")
    assert x86.choice.method == arm.choice.method


def test_a_form_that_hardly_gains_is_not_worth_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_timing(monkeypatch, others_ms={"packed stem": 0.97})
    assert "cpu-int8-vnni" not in hosts(make(tmp_path))


def test_times_taken_on_arm_choose_no_form_for_x86(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = fake_timing(monkeypatch, arch="aarch64")
    piece = make(tmp_path)
    assert not {form.name for form in FORMS} & set(timed)
    assert hosts(piece) == {"cpu-int8-vnni": ["x86_64"], "cpu-int8": ["aarch64"], "cpu-fp32": []}
    assert piece.found["cpu-int8-vnni"].chosen is not None
    assert piece.found["cpu-int8-vnni"].chosen.choice.form == "packed stem"


@pytest.mark.parametrize(("arch", "kept"), [("x86_64", ["aarch64"]), ("aarch64", ["x86_64"])])
def test_slow_int8_is_taken_from_the_kind_of_machine_it_was_timed_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, kept: list[str]
) -> None:
    fake_timing(monkeypatch, int8_ms=3.0, arch=arch)
    packed = [each for each in make(tmp_path).candidates if each.refused is None and each.variant.precision == "int8"]
    assert sorted({host.arch for each in packed for host in each.variant.requires.any_of}) == kept


def test_targets_stand_in_the_order_in_which_devices_prefer_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_timing(monkeypatch)
    piece = make(tmp_path, quantize={"targets": ["cpu-nonvnni", "cpu"], "methods": ["min_max"]})
    assert [each.variant.id for each in piece.candidates] == ["cpu-int8", "cpu-int8-nonvnni", "cpu-fp32"]
    digests = {(piece.found[name].chosen or piece.found[name].closest).sha256 for name in piece.found}
    assert len(digests) == 2, "7-bit weights are another file"


def test_files_for_gpus_are_made_and_not_timed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = fake_timing(monkeypatch)
    piece = make(tmp_path, quantize={"targets": ["tensorrt", "cuda"]})
    assert [each.variant.id for each in piece.candidates] == ["trt-int8", "gpu-fp16", "cpu-fp32"]
    assert {each.variant.id: each.refused for each in piece.candidates}["gpu-fp16"] is None
    assert not {"trt-int8", "gpu-fp16"} & set(timed)


def test_a_target_that_cannot_be_made_is_told_and_the_others_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spot detector has no matrix product for dynamic quantisation."""
    fake_timing(monkeypatch)
    piece = make(tmp_path, quantize={"targets": ["cpu-dynamic", "cpu"]})
    assert [each.variant.id for each in piece.candidates if each.refused is None] == ["cpu-int8", "cpu-fp32"]
    assert "matrix product" in piece.reports["search"]["cpu-int8-dynamic"]


def test_a_model_without_anything_to_quantise_is_packed_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_timing(monkeypatch)
    shapes = {"x": [1, 3, 64, 64], "logits": [1, 3]}
    x, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "means", [x], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "colours.onnx")
    for seed, name in enumerate(("train", "val")):
        write_colours(tmp_path / name, 8, clear=4, seed=seed)
    recipe = make_recipe(colour_recipe(tmp_path, quantize={"targets": ["cpu", "cpu-nonvnni", "tensorrt"]}))
    piece = build(recipe, KEY, tmp_path / "out", Progress(len(STAGES) + 1, io.StringIO()))
    assert [each.variant.id for each in piece.candidates] == ["cpu-fp32"]
    for name in ("cpu", "cpu-nonvnni", "tensorrt"):
        assert piece.reports["search"][name].startswith("no convolution or matrix product")
