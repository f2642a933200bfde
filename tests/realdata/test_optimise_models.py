"""Every real model: optimised it gives the same, with fewer nodes or as many as it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx

from build_models.__main__ import main
from build_models.graph.fix_shape import fix_axes
from build_models.graph.model_io import freeze_initialisers, opset_of
from build_models.graph.optimise import optimise
from build_models.graph.passes.convert_opset import convert_opset
from build_models.graph.portable import check_portable, make_portable
from build_models.graph.proof import prove_same
from tests.support.onnx_graphs import ops

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.realdata, pytest.mark.build]

# Nodes in the file, after the passes alone, and in portable form; measured once. MobileNet and DeepLab are convolutions
# with their activations: nothing to do but for one reshape. Opset 13 takes two nodes more for UltraFace's old Softmax.
MODELS = {
    "cls-mnist/mnist.onnx": (12, 8, 8),
    "cls-mobilenetv1-025-imagenet/mobilenet_v1_025_128_fp32.onnx": (58, 57, 57),
    "cls-resnet-cifar10/resnet20_cifar10.onnx": (111, 60, 56),
    "det-fastestdet/FastestDet.onnx": (211, 210, 182),
    "det-yolox-nano/yolox_nano.onnx": (369, 367, 362),
    "face-ultraface-rfb320/version-RFB-320.onnx": (242, 124, 126),
    "seg-deeplabv3-voc/deeplab_v3_1_default_1.onnx": (108, 108, 108),
    "seg-road-adas0001/model_float32.onnx": (375, 320, 320),
}


@pytest.fixture(params=MODELS, ids=lambda path: path.split("/")[0])
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_command_optimises_it(
    path: str, realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert main(["optimize", str(realdata / path), str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["nodes_before"], told["nodes_after"]) == MODELS[path][:2]
    assert told["largest_difference"] < 2e-5
    assert told["kernels"]["nodes"] <= told["nodes_after"] + told["kernels"]["reorders"]


def test_its_portable_form_is_portable_and_says_the_same(path: str, realdata: Path) -> None:
    """As the build makes it: one opset, batch 1, then the passes and ONNX Runtime's own."""
    source = onnx.load(realdata / path)
    model = onnx.ModelProto()
    model.CopyFrom(source)
    freeze_initialisers(model)
    if "resnet20" in path:
        model = fix_axes(model, {"input": (1, 3, 32, 32)})
    model, _ = convert_opset(model, max(opset_of(model), 13))
    portable, report = make_portable(model)
    check_portable(portable)
    assert report.nodes_after <= MODELS[path][2]  # the runtime may learn more
    assert prove_same(source, portable) < 2e-5
    again, _ = make_portable(model)
    assert again.SerializeToString(deterministic=True) == portable.SerializeToString(deterministic=True)


def test_batch_norms_and_shape_chains_of_ultraface_are_gone(realdata: Path) -> None:
    model = onnx.load(realdata / "face-ultraface-rfb320" / "version-RFB-320.onnx")
    frozen = freeze_initialisers(model)
    result, report = optimise(model)
    assert frozen == 244  # all its initialisers were inputs too
    assert report.rewrites["fold_batch_norm"] == 35
    assert not {"BatchNormalization", "Shape", "Gather", "Unsqueeze", "Constant"} & set(ops(result))


def test_with_a_fixed_batch_no_shape_arithmetic_of_resnet_is_left(realdata: Path) -> None:
    model = onnx.load(realdata / "cls-resnet-cifar10" / "resnet20_cifar10.onnx")
    open_batch, _ = optimise(model)
    fixed, _ = optimise(fix_axes(model, {"input": (1, 3, 32, 32)}))
    assert {"Shape", "Gather", "Unsqueeze", "Concat"} <= set(ops(open_batch))
    assert not {"Shape", "Gather", "Unsqueeze", "Concat"} & set(ops(fixed))


def test_every_pad_of_the_road_model_is_taken_in(realdata: Path) -> None:
    result, report = optimise(onnx.load(realdata / "seg-road-adas0001" / "model_float32.onnx"))
    assert report.rewrites["fold_pads"] == 40
    assert "Pad" not in ops(result)
