"""Static int8: what the file says, what ONNX Runtime makes of it, and that it still computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.canonical_output import canonical_output
from build_models.graph.kernels import optimised_by_runtime
from build_models.graph.model_io import constant_of, nodes_after, open_session, run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import check_portable, make_portable, strip
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import (
    body_nodes,
    fusible_nodes,
    quantisable_tensors,
    quantize_static,
)
from build_models.recipe import InputRecipe
from build_models.source.families.anchor_free import AnchorFree
from build_models.source.families.logits import Logits
from tests.support.float_models import LABELS, MEAN, SIDE, STD, spot_detector, spot_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from build_models.source.families.base import Family

pytestmark = pytest.mark.build

MOVES = {"Slice", "Gather", "Transpose"}
CLOSE = 0.05  # of a raw head's largest value; measured: 0.02 to 0.03 for 8 bits here, 1.4 when a channel drowns all
PICTURES = [spot_picture(seed) for seed in range(4)]


@dataclass(frozen=True)
class Quantised:
    exact: onnx.ModelProto
    int8: onnx.ModelProto
    raw: list[str]
    report: dict[str, Any]

    def kernels(self) -> list[str]:
        """Operators of the optimised graph, in order."""
        return [node.op_type for node in optimised_by_runtime(self.int8).graph.node]


def quantise(source: onnx.ModelProto, recipe: InputRecipe | None = None, family: Family | None = None) -> Quantised:
    family = family or AnchorFree(family="anchor_free")
    native, _ = native_input(source, recipe or InputRecipe(mean=MEAN, std=STD))
    canonical, head = canonical_output(native, family, (SIDE, SIDE), LABELS)
    raw = list(head.raw_tensors.values())
    exact, _ = make_portable(canonical, raw)
    ranges = collect_ranges(exact, quantisable_tensors(exact, raw), PICTURES)
    int8, report = quantize_static(exact, fusible_nodes(exact, raw), ranges)
    int8 = strip(int8)
    check_portable(int8)
    return Quantised(exact, int8, raw, report)


def classifier(nodes: Sequence[onnx.NodeProto], **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """A model of some nodes from "x" to "f" ``[1, 8, h, w]``, followed by pooling and a matrix product."""
    rng = np.random.default_rng(4)
    constants["w_classes"] = rng.standard_normal((8, 3)).astype(np.float32)
    tail = [
        helper.make_node("GlobalAveragePool", ["f"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w_classes"], ["logits"]),
    ]
    graph = helper.make_graph(
        [*nodes, *tail],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(outputs: int, inputs: int, side: int = 3) -> NDArray[np.float32]:
    values = np.random.default_rng(outputs + inputs).standard_normal((outputs, inputs, side, side), np.float32)
    values /= np.sqrt(inputs * side * side, dtype=np.float32)
    return values


def largest_error(quantised: Quantised) -> float:
    """Of the raw head, as a share of its largest value, over all pictures."""
    worst = 0.0
    for picture in PICTURES:
        exact, rough = (
            open_session(with_raw_outputs(model, names)).run(None, {"image": picture[None]})
            for model, names in ((quantised.exact, quantised.raw), (quantised.int8, dequantised(quantised)))
        )
        for x, q in zip(exact, rough, strict=True):
            worst = max(worst, float(np.abs(x - q).max() / np.abs(x).max()))
    return worst


def dequantised(quantised: Quantised) -> list[str]:
    return [f"{name}_DequantizeLinear_Output" for name in quantised.raw]


def with_raw_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return tapped


def first_computation(model: onnx.ModelProto) -> onnx.NodeProto:
    """What reads the image's bytes, behind what only moves them."""
    tensor = "image"
    while True:
        reader: onnx.NodeProto = next(node for node in model.graph.node if tensor in node.input)
        if reader.op_type not in {*MOVES, "Reshape"}:
            return reader
        (tensor,) = reader.output


def assert_integer_up_to_the_head(kernels: Sequence[str], trunk: Sequence[str]) -> None:
    """The trunk without a cast or a transpose, then the two convolutions of the head, bytes until they are decoded."""
    assert kernels[: len(trunk)] == list(trunk)
    head = kernels[len(trunk) : kernels.index("DequantizeLinear")]
    assert set(head) <= {"QLinearConv", "Transpose", "Reshape"}
    assert kernels.count("QLinearConv") == 5
    assert not {"Conv", "Cast", "QuantizeLinear"} & set(kernels)


@pytest.fixture(scope="module")
def spots() -> Quantised:
    """With a mean in front of a padded convolution."""
    return quantise(spot_detector())


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_every_supported_opset_quantises_closely(opset: int) -> None:
    assert largest_error(quantise(spot_detector(opset))) < CLOSE


def test_one_channel_far_above_the_others_is_what_the_error_shows() -> None:
    assert largest_error(quantise(spot_detector(outlier=1000.0))) > 0.2


def test_inputs_and_outputs_are_those_of_the_float_graph(spots: Quantised) -> None:
    assert list(spots.int8.graph.input) == list(spots.exact.graph.input)
    assert list(spots.int8.graph.output) == list(spots.exact.graph.output)


def test_the_float_graph_is_not_changed() -> None:
    quantised = quantise(spot_detector())
    before = quantised.exact.SerializeToString()
    ranges = collect_ranges(quantised.exact, quantisable_tensors(quantised.exact, quantised.raw), PICTURES)
    quantize_static(quantised.exact, fusible_nodes(quantised.exact, quantised.raw), ranges)
    assert quantised.exact.SerializeToString() == before


def test_the_cameras_bytes_are_the_first_quantised_tensor(spots: Quantised) -> None:
    reader = first_computation(spots.int8)
    assert reader.op_type == "DequantizeLinear"
    scale, zero = (constant_of(spots.int8, name) for name in reader.input[1:3])
    assert scale == 1.0
    assert zero == 0
    assert zero is not None
    assert zero.dtype == np.uint8


def test_the_bytes_scale_is_one_though_no_picture_holds_a_255() -> None:
    dark = [(picture // 2).astype(np.uint8) for picture in PICTURES]
    exact = quantise(spot_detector(), InputRecipe()).exact
    ranges = collect_ranges(exact, quantisable_tensors(exact, ["logits", "ltrb"]), dark)
    int8, _ = quantize_static(exact, fusible_nodes(exact, ["logits", "ltrb"]), ranges)
    assert constant_of(int8, first_computation(int8).input[1]) == 1.0


def test_a_plain_network_becomes_nothing_but_integer_kernels_up_to_its_head() -> None:
    quantised = quantise(spot_detector(), InputRecipe(std=[0.5, 0.6, 0.7]))
    assert_integer_up_to_the_head(quantised.kernels(), ["QLinearConv"] * 3)
    assert quantised.report["float_ops_in_body"] == []


def test_a_mean_is_added_in_int8(spots: Quantised) -> None:
    assert_integer_up_to_the_head(spots.kernels(), ["QLinearAdd", *["QLinearConv"] * 3])
    assert spots.report["float_ops_in_body"] == []


def test_one_number_for_all_channels_is_added_in_int8_too() -> None:
    quantised = quantise(spot_detector(), InputRecipe(mean=[0.5] * 3, std=STD))
    assert_integer_up_to_the_head(quantised.kernels(), ["QLinearAdd", *["QLinearConv"] * 3])
    assert largest_error(quantised) < CLOSE


def test_a_mean_per_channel_is_spread_on_the_device_not_in_the_file(spots: Quantised) -> None:
    assert [node.op_type for node in spots.int8.graph.node].count("Expand") == 1
    assert spots.int8.ByteSize() < spots.exact.ByteSize()


def test_pixels_that_are_only_moved_stay_bytes() -> None:
    crop = [
        helper.make_node("Slice", ["x", "from", "to", "axes"], ["cropped"]),
        helper.make_node("Conv", ["cropped", "w"], ["f"]),
    ]
    bounds = {"from": [1, 2], "to": [SIDE, SIDE], "axes": [2, 3]}
    source = classifier(crop, w=weights(8, 3), **{name: np.array(values) for name, values in bounds.items()})
    quantised = quantise(source, InputRecipe(scale=1.0, color="rgb"), Logits(family="logits"))
    kernels = quantised.kernels()
    assert {"Slice", "Gather"} <= set(kernels)  # the crop, and BGR to RGB in front of it
    assert set(kernels[: kernels.index("QLinearConv")]) <= MOVES
    assert not {"Cast", "QuantizeLinear", "Conv"} & set(kernels)
    assert largest_error(quantised) < CLOSE


def test_a_subtraction_inside_the_network_is_done_in_int8() -> None:
    nodes = [  # neither convolution can take it in: one is behind a Relu, the other pads
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Sub", ["r", "offset"], ["s"]),
        helper.make_node("Conv", ["s", "v"], ["f"], pads=[1] * 4),
    ]
    offset = np.linspace(-1, 1, 20, dtype=np.float32)[:, None, None]
    quantised = quantise(
        classifier(nodes, w=weights(20, 3), v=weights(8, 20), offset=offset), InputRecipe(), Logits(family="logits")
    )
    assert quantised.kernels()[:3] == ["QLinearConv", "QLinearAdd", "QLinearConv"]
    assert largest_error(quantised) < CLOSE


def test_weights_that_two_nodes_share_are_quantised_once_and_rightly() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("Conv", ["a", "shared", "bias"], ["b"], pads=[1] * 4),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Conv", ["r", "shared", "bias"], ["f"], pads=[1] * 4),
    ]
    bias = np.linspace(-0.2, 0.2, 8, dtype=np.float32)
    quantised = quantise(
        classifier(nodes, first=weights(8, 3), shared=weights(8, 8), bias=bias), InputRecipe(), Logits(family="logits")
    )
    readers = [node for node in quantised.int8.graph.node if "shared_quantized" in node.input]
    assert len(readers) == 1
    assert largest_error(quantised) < CLOSE


def test_weights_are_signed_per_channel_and_symmetric_activations_unsigned(spots: Quantised) -> None:
    model = spots.int8
    kinds = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            stored, scale, zero = (constant_of(model, name) for name in node.input[:3])
            assert scale is not None
            assert zero is not None
            if stored is not None and stored.ndim == 4 and stored.dtype == np.int8:
                kinds[node.input[0]] = scale.shape
                assert scale.shape == (len(stored),)
                assert not zero.any()
            elif stored is None:
                assert scale.shape == ()
                assert zero.dtype == np.uint8
    assert len(kinds) == 5


def test_the_decoding_stays_float(spots: Quantised) -> None:
    by_name = {node.name: node.op_type for node in spots.int8.graph.node}
    tail = {by_name[name] for name in nodes_after(spots.int8, dequantised(spots))}
    assert {"TopK", "Exp", "Sigmoid"} <= tail
    assert not {"QuantizeLinear", "DequantizeLinear"} & tail


def test_the_body_ends_at_the_raw_head(spots: Quantised) -> None:
    ops = [node.op_type for node in body_nodes(spots.exact, spots.raw)]
    assert ops == ["Cast", "Transpose", "Sub", *["Conv", "Relu"] * 3, "Conv", "Conv"]
    body = {name for node in body_nodes(spots.exact, spots.raw) for name in node.output}
    assert quantisable_tensors(spots.exact, spots.raw) == body


def test_results_agree_after_the_device_has_optimised_the_file(spots: Quantised) -> None:
    for picture in PICTURES:
        as_written, optimised = (
            run_model(spots.int8, {"image": picture[None]}, optimise=optimise) for optimise in (False, True)
        )
        assert np.abs(as_written["scores"] - optimised["scores"]).max() < 0.05


def test_a_model_without_weights_is_refused_with_the_way_out() -> None:
    model = quantise(spot_detector()).exact
    with pytest.raises(BuildError, match=r"found none; shorten quantize\.targets"):
        quantize_static(model, fusible_nodes(model, ["image"]), {})


def test_a_weight_with_a_zero_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.quantization import qdq_quantizer

    real = qdq_quantizer.QDQQuantizer.quantize_model

    def shift_a_zero_point(self: Any) -> Any:
        result = real(self)
        for tensor in self.model.model.graph.initializer:
            if tensor.name.startswith("w2") and "zero_point" in tensor.name:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.int8(3), tensor.name))
        return result

    monkeypatch.setattr(qdq_quantizer.QDQQuantizer, "quantize_model", shift_a_zero_point)
    with pytest.raises(BuildError, match="expected zero point 0 for the weight w2_quantized"):
        quantise(spot_detector())


def test_the_same_input_gives_the_same_file_in_every_process() -> None:
    program = (
        "import hashlib, sys; sys.path.insert(0, '.')\n"
        "from tests.build_models.quantize.test_static import quantise\n"
        "from tests.support.float_models import spot_detector\n"
        "print(hashlib.sha256(quantise(spot_detector()).int8.SerializeToString(deterministic=True)).hexdigest())\n"
    )
    root = Path(__file__).parents[3]
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
