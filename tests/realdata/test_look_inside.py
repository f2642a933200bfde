"""Looking inside the published models: taps against computations of another origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from build_models.graph.model_io import with_outputs
from build_models.graph.tap import find_taps, tap_bytes, tap_values
from build_models.look.samples import Preparation, samples_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

# The pictures as each model was trained on them, and tensors early and late in it.
PREPARED = {
    "det-yolox-nano": Preparation(scale=1.0, color="bgr", align="top_left"),
    "det-fastestdet": Preparation(color="bgr", resize="stretch"),
    "seg-road-adas0001": Preparation(scale=1.0, color="bgr", resize="stretch"),
    "cls-resnet-cifar10": Preparation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="stretch"),
    "cls-mnist": Preparation(scale=1.0, resize="stretch"),
}


def load(realdata: Path, name: str) -> onnx.ModelProto:
    return onnx.load(next((realdata / name).glob("*.onnx")))


def feeds_of(realdata: Path, name: str, model: onnx.ModelProto, number: int = 0) -> dict[str, NDArray[Any]]:
    paths = sorted((realdata / "data-coco-mini" / "images" / "val2017").glob("*.jpg"))
    (feeds,) = samples_for(model, [str(paths[number])], PREPARED[name])
    return feeds


@pytest.mark.parametrize(("name", "last"), [("cls-mnist", 11), ("cls-resnet-cifar10", 12), ("det-fastestdet", 4)])
def test_taps_are_what_the_reference_evaluator_computes(realdata: Path, name: str, last: int) -> None:
    model = load(realdata, name)
    feeds = feeds_of(realdata, name, model)
    taps = find_taps(model)[:last]
    names = [tap.tensor for tap in taps]
    expected = ReferenceEvaluator(with_outputs(model, names)).run(names, feeds)

    got = list(tap_values(model, taps, feeds))

    assert [tap.tensor for tap, _ in got] == names
    for (tap, value), want in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, want, atol=2e-5 * np.abs(want).max(), err_msg=str(tap))


@pytest.mark.parametrize("name", ["det-yolox-nano", "seg-road-adas0001"])
def test_a_convolution_in_the_middle_is_the_sum_over_its_own_input(realdata: Path, name: str) -> None:
    model = load(realdata, name)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pointwise = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and constants[node.input[1]].shape[2:] == (1, 1) and len(node.input) == 3
    ]
    pointwise = [node for node in pointwise if "group" not in {a.name for a in node.attribute if a.i > 1}]
    node = pointwise[len(pointwise) // 2]
    taps = find_taps(model, [node.input[0], node.output[0]])
    values = {tap.tensor: value for tap, value in tap_values(model, taps, feeds_of(realdata, name, model))}
    weights, bias = constants[node.input[1]][:, :, 0, 0].astype(np.float64), constants[node.input[2]]

    want = np.einsum("oi,bihw->bohw", weights, values[node.input[0]]) + bias[None, :, None, None]

    np.testing.assert_allclose(values[node.output[0]], want, atol=1e-5 * np.abs(want).max())
    assert not np.allclose(values[node.output[0]], want - bias[None, :, None, None], atol=1e-5 * np.abs(want).max())


def test_all_taps_of_a_large_picture_come_in_bounded_groups(realdata: Path) -> None:
    model = load(realdata, "seg-road-adas0001")
    feeds = feeds_of(realdata, "seg-road-adas0001", model)
    taps = find_taps(model)
    sizes = dict(zip([tap.tensor for tap in taps], tap_bytes(model, taps, feeds), strict=True))
    assert sum(sizes.values()) > 500e6  # all at once would be half a gigabyte
    limit = 64 << 20
    seen = 0
    for tap, value in tap_values(model, taps, feeds, group_bytes=limit):
        assert value.nbytes == sizes[tap.tensor]
        seen += 1
    assert seen == len(taps)
