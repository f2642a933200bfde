"""Looking inside the published models: taps against computations of another origin."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from build_models.graph.model_io import run_model, with_outputs
from build_models.graph.split import split_model
from build_models.graph.split_points import multiplications, split_points
from build_models.graph.stages import prove_equal, run_stages, write_stages
from build_models.graph.tap import find_taps, tap_bytes, tap_values
from build_models.look.compare import Comparison, compare_models
from build_models.look.model_file import read_model
from build_models.look.samples import Preparation, samples_for
from build_models.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.realdata, pytest.mark.build]

FACES = "face-ultraface-rfb320"  # old: initialisers are inputs, shapes are computed in the graph
# The pictures as each model was trained on them, and tensors early and late in it.
PREPARED = {
    "det-yolox-nano": Preparation(scale=1.0, color="bgr", align="top_left"),
    "det-fastestdet": Preparation(color="bgr", resize="stretch"),
    "seg-road-adas0001": Preparation(scale=1.0, color="bgr", resize="stretch"),
    "cls-resnet-cifar10": Preparation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="stretch"),
    FACES: Preparation(scale=1.0, mean=(127.0,), std=(128.0,), resize="stretch"),
    "cls-mnist": Preparation(scale=1.0, resize="stretch"),
}


def load(realdata: Path, name: str) -> onnx.ModelProto:
    return read_model(next((realdata / name).glob("*.onnx")))


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


# --- comparing: a fault is planted in three layers of three models, and found there


def compare(realdata: Path, name: str, first: onnx.ModelProto, second: onnx.ModelProto) -> Comparison:
    paths = sorted((realdata / "data-coco-mini" / "images" / "val2017").glob("*.jpg"))[:2]
    samples = samples_for(first, [str(path) for path in paths], PREPARED[name])
    return compare_models(first, second, (samples, samples), Progress(1, io.StringIO()))


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    return [found[len(found) * part // 8] for part in (1, 4, 7)]


def spoil(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """A copy in which the first channel of a weight or a bias is another."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name == name:
            value = numpy_helper.to_array(tensor).copy()
            value[0] = value[0] * factor + np.abs(value).max() * (factor - 1)
            tensor.CopyFrom(numpy_helper.from_array(value, name))
    return result


@pytest.mark.parametrize("name", ["det-yolox-nano", "det-fastestdet", "cls-resnet-cifar10"])
@pytest.mark.parametrize("which", [1, 2], ids=["weights", "bias"])
def test_a_spoilt_convolution_is_where_the_models_part(realdata: Path, name: str, which: int) -> None:
    model = load(realdata, name)
    for node in convolutions(model):
        found = compare(realdata, name, model, spoil(model, node.input[which], 1.3))
        assert found.parts[0].tensor == node.output[0]
        assert found.parts[0].inputs_db == 200.0


def test_a_model_against_itself_is_equal(realdata: Path) -> None:
    model = load(realdata, "det-yolox-nano")
    found = compare(realdata, "det-yolox-nano", model, model)
    assert found.equal
    assert len(found.signals) == 369


def quantised(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    """Q and DQ behind some tensors, over the range that they have."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes = []
    for node in result.graph.node:
        node.input[:] = [f"{name}_DequantizeLinear_Output" if name in tensors else name for name in node.input]
        nodes.append(node)
        for name in set(node.output) & set(tensors):
            ends = [name, f"{name}_scale", f"{name}_zero"], f"{name}_QuantizeLinear_Output"
            nodes.append(onnx.helper.make_node("QuantizeLinear", ends[0], [ends[1]]))
            back = [ends[1], f"{name}_scale", f"{name}_back"]
            nodes.append(onnx.helper.make_node("DequantizeLinear", back, [f"{name}_DequantizeLinear_Output"]))
            constants = {"scale": np.float32(0.15), "zero": np.uint8(128), "back": np.uint8(128)}
            for end, value in constants.items():
                result.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}_{end}"))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def test_a_wrong_zero_point_is_where_an_int8_file_parts_from_its_float(realdata: Path) -> None:
    name = "cls-resnet-cifar10"
    model = load(realdata, name)
    layers = [node.output[0] for node in convolutions(model)]
    right = quantised(model, layers)
    assert compare(realdata, name, model, right).parts == []
    for layer in layers:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(right)
        for tensor in wrong.graph.initializer:
            if tensor.name == f"{layer}_back":
                tensor.CopyFrom(numpy_helper.from_array(np.array(96, np.uint8), tensor.name))
        found = compare(realdata, name, model, wrong)
        assert (found.parts[0].tensor, found.parts[0].second) == (layer, f"{layer}_DequantizeLinear_Output")


# --- splitting: at three places of every model


@pytest.mark.parametrize("name", ["det-yolox-nano", "det-fastestdet", "cls-resnet-cifar10", "seg-road-adas0001", FACES])
def test_a_model_split_at_three_places_equals_the_whole(realdata: Path, tmp_path: Path, name: str) -> None:
    model = load(realdata, name)
    feeds = [feeds_of(realdata, name, model, number) for number in range(2)]
    cuts = [[node.output[0]] for node in convolutions(model)]
    split = split_model(model, cuts, feeds=feeds[0])
    assert len(split.stages) == 4
    assert prove_equal(model, split, feeds) == 2
    write_stages(tmp_path, split, {})
    for each in feeds:
        got = run_stages(tmp_path, each, optimise=False)
        for output, want in run_model(model, each).items():
            np.testing.assert_array_equal(got[output], want)


@pytest.mark.parametrize("name", ["det-yolox-nano", "cls-resnet-cifar10", "cls-mnist"])
def test_parts_chosen_by_work_are_about_equal(realdata: Path, name: str) -> None:
    model = load(realdata, name)
    feeds = feeds_of(realdata, name, model)
    split = split_model(model, split_points(model, 3, "macs", feeds))
    assert prove_equal(model, split, [feeds]) == 1
    work = multiplications(model, feeds)
    names = {model.graph.node[place].output[0]: count for place, count in work.items()}
    shares = [
        sum(names.get(output, 0) for node in stage.model.graph.node for output in node.output) / sum(work.values())
        for stage in split.stages
    ]
    assert sum(shares) == pytest.approx(1)
    if name != "cls-mnist":  # which has three layers only, of very unequal work
        assert all(0.15 < share < 0.5 for share in shares)
