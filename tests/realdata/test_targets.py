"""Every target's file of the real models: it runs, is as close as its precision allows, and nothing is lost at load."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

from build_models.graph.kernels import kernel_report
from build_models.graph.model_io import open_session
from build_models.graph.native_input import native_input
from build_models.graph.portable import check_portable, make_portable, strip
from build_models.quantize.float16 import convert_float16
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import fusible_nodes, quantisable_tensors, quantize_static
from build_models.quantize.tensorrt import check_tensorrt, quantize_tensorrt
from build_models.recipe import InputRecipe
from build_models.source.onnx_import import import_onnx

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CENTRED = {"mean": [1.0, 1.0, 1.0], "scale": 1 / 127.5}
COCO = "data-coco-mini/images/train2017/*.jpg"


@dataclass(frozen=True)
class Floors:
    """Least signal-to-noise in dB; 1 to 2 below what was measured with ranges from the least to the greatest value."""

    int8: float
    reduced: float
    tensorrt: float
    float16: float


@dataclass(frozen=True)
class Real:
    """A real model, its input and its pictures; the stem is packed where a row is a number of groups."""

    file: str
    recipe: dict[str, Any]
    pictures: str
    least_db: Floors
    packed: bool = True


REAL = {
    # All of its nodes in int8, boxes and scores in one scale: the plan's work is still to be done.
    "yolox": Real(
        "det-yolox-nano/yolox_nano.onnx", {"color": "bgr", "scale": 1.0}, COCO, Floors(6, 6, 5, 45), packed=False
    ),
    "fastestdet": Real("det-fastestdet/FastestDet.onnx", {"color": "bgr"}, COCO, Floors(12, 9, 8.5, 46)),
    "deeplab": Real(
        "seg-deeplabv3-voc/deeplab_v3_1_default_1.onnx",
        {"layout": "nhwc", **CENTRED},
        COCO,
        Floors(25, 17, 25, 49),
        packed=False,
    ),
    "road": Real(
        "seg-road-adas0001/model_float32.onnx",
        {"layout": "nhwc", "color": "bgr", "scale": 1.0},
        "data-camvid/val/*.png",
        Floors(29, 27, 25, 64),
    ),
    "resnet20": Real(
        "cls-resnet-cifar10/resnet20_cifar10.onnx", IMAGENET, "data-cifar10-jpg/*/*.jpg", Floors(25, 24, 27, 59)
    ),
    "mobilenet": Real(
        "cls-mobilenetv1-025-imagenet/mobilenet_v1_025_128_fp32.onnx", CENTRED, COCO, Floors(19, 13, 17, 45)
    ),
}


@dataclass(frozen=True)
class Prepared:
    model: onnx.ModelProto
    raw: list[str]
    ranges: dict[str, tuple[float, float]]
    pictures: list[NDArray[np.uint8]]


@functools.cache
def prepare(folder: Path, name: str) -> Prepared:
    real = REAL[name]
    recipe = InputRecipe(**real.recipe)
    source, _ = import_onnx(folder / real.file, recipe)
    native, told = native_input(source, recipe)
    raw = [value.name for value in native.graph.output]
    model, _ = make_portable(native, raw)
    paths = sorted(folder.glob(real.pictures))
    paths = paths[:: max(1, len(paths) // 8)][:8]
    pictures = [
        np.asarray(cv2.resize(np.asarray(cv2.imread(str(path))), (told.width, told.height)), np.uint8) for path in paths
    ]
    return Prepared(model, raw, collect_ranges(model, quantisable_tensors(model, raw), pictures), pictures)


def signal_db(prepared: Prepared, model: onnx.ModelProto) -> float:
    """Power of the float results over that of the difference, over two pictures and all results."""
    exact, rough = (open_session(each, optimise=True) for each in (prepared.model, model))
    power = noise = 0.0
    for picture in prepared.pictures[:2]:
        for x, q in zip(
            exact.run(None, {"image": picture[None]}), rough.run(None, {"image": picture[None]}), strict=True
        ):
            power += float(np.square(x, dtype=np.float64).sum())
            noise += float(np.square(x - q, dtype=np.float64).sum())
    return 10 * float(np.log10(power / noise))


@pytest.fixture(params=list(REAL))
def named(request: pytest.FixtureRequest, realdata: Path) -> tuple[Real, Prepared]:
    return REAL[request.param], prepare(realdata, request.param)


def test_int8_for_the_cpu(named: tuple[Real, Prepared]) -> None:
    real, prepared = named
    nodes = fusible_nodes(prepared.model, prepared.raw)
    convolutions = sum(node.op_type == "Conv" for node in prepared.model.graph.node)
    for packed in (False, True):
        result, told = quantize_static(prepared.model, nodes, prepared.ranges, packed_stem=packed)
        result = strip(result)
        check_portable(result)
        assert signal_db(prepared, result) > real.least_db.int8
        assert told["packed_stem"] == (packed and real.packed)
        kernels = kernel_report(result).operators
        assert kernels["QLinearConv"] == convolutions
        assert "Conv" not in kernels


def test_float_exceptions_are_float_in_the_graph_that_runs(named: tuple[Real, Prepared]) -> None:
    """Every fifth convolution is left out, the stem among them: exactly these have a float kernel."""
    real, prepared = named
    convolutions = [node.name for node in prepared.model.graph.node if node.op_type == "Conv"]
    left = set(convolutions[::5])
    nodes = [name for name in fusible_nodes(prepared.model, prepared.raw) if name not in left]
    result, _ = quantize_static(prepared.model, nodes, prepared.ranges)
    check_portable(strip(result))
    kernels = kernel_report(result).operators
    assert (kernels["Conv"], kernels["QLinearConv"]) == (len(left), len(convolutions) - len(left))
    assert signal_db(prepared, result) > real.least_db.int8


def test_weights_of_7_bits(named: tuple[Real, Prepared]) -> None:
    real, prepared = named
    nodes = fusible_nodes(prepared.model, prepared.raw)
    result, _ = quantize_static(prepared.model, nodes, prepared.ranges, reduce_range=True)
    assert signal_db(prepared, result) > real.least_db.reduced


def test_int8_for_tensorrt(named: tuple[Real, Prepared]) -> None:
    real, prepared = named
    result, told = quantize_tensorrt(prepared.model, fusible_nodes(prepared.model, prepared.raw), prepared.ranges)
    check_portable(strip(result))
    check_tensorrt(result)
    assert told["quantised_nodes"] == sum(node.op_type in ("Conv", "Gemm") for node in prepared.model.graph.node)
    assert signal_db(prepared, result) > real.least_db.tensorrt


def test_float16(named: tuple[Real, Prepared]) -> None:
    real, prepared = named
    result, told = convert_float16(prepared.model, prepared.raw, prepared.ranges)
    result = strip(result)
    check_portable(result)
    assert signal_db(prepared, result) > real.least_db.float16
    assert {each["op_type"] for each in told["kept_float"]} <= {"Softmax"}
    assert result.ByteSize() < 0.65 * prepared.model.ByteSize()
