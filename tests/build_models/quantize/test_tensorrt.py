"""The TensorRT file keeps to TensorRT's rules, and the check of these rules finds each breach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import constant_of, run_model
from build_models.graph.portable import check_portable, strip
from build_models.quantize.static import fusible_nodes
from build_models.quantize.tensorrt import check_tensorrt, quantize_tensorrt
from tests.build_models.quantize.test_static_subsets import PICTURES, RAW, network

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.build

CLOSE = 0.1  # of the largest value; measured: 0.03


def quantised(chosen: list[str] | None = None) -> tuple[onnx.ModelProto, dict[str, Any]]:
    model, ranges = network()
    result, told = quantize_tensorrt(model, fusible_nodes(model, RAW) if chosen is None else chosen, ranges)
    return strip(result), told


def of_kind(model: onnx.ModelProto, *kinds: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in kinds]


def test_it_is_close_to_float_on_the_cpu_too() -> None:
    result, told = quantised()
    assert told["quantised_nodes"] == 7
    for picture in PICTURES:
        exact, rough = (run_model(each, {"image": picture[None]}, optimise=True) for each in (network()[0], result))
        for name, value in exact.items():
            assert np.abs(value - rough[name]).max() < CLOSE * np.abs(value).max()


def test_everything_is_symmetric_int8_with_zero_point_0() -> None:
    result, _ = quantised()
    check_portable(result)
    pairs = of_kind(result, "QuantizeLinear", "DequantizeLinear")
    assert len(pairs) > 20
    for node in pairs:
        zero = constant_of(result, node.input[2])
        assert zero is not None
        assert zero.dtype == np.int8
        assert not zero.any()


def test_a_bias_stays_float_and_weights_are_int8_per_channel() -> None:
    result, _ = quantised()
    makers = {name: node for node in result.graph.node for name in node.output}
    for node in of_kind(result, "Conv"):
        stored, scale = (constant_of(result, name) for name in makers[node.input[1]].input[:2])
        bias = constant_of(result, node.input[2])
        assert stored is not None
        assert scale is not None
        assert bias is not None
        assert stored.dtype == np.int8
        assert bias.dtype == np.float32
        assert scale.shape == (len(stored),)
        assert np.abs(stored.astype(int)).max() == 127


def test_the_bytes_enter_through_cast_and_normalisation() -> None:
    result, _ = quantised()
    (reader,) = (node for node in result.graph.node if "image" in node.input)
    assert reader.op_type == "Cast"
    (quantise,) = (node for node in of_kind(result, "QuantizeLinear") if "sub" in node.input[0])
    assert constant_of(result, quantise.input[2]) == np.int8(0)
    assert not any(tensor.data_type == TensorProto.UINT8 for tensor in result.graph.initializer)


def test_relu_stays_and_the_result_of_a_convolution_is_quantised_only_behind_it() -> None:
    result, _ = quantised()
    assert len(of_kind(result, "Relu")) == len(of_kind(network()[0], "Relu"))
    convolved = {node.output[0] for node in of_kind(result, "Conv")}
    readers = [node for node in of_kind(result, "QuantizeLinear") if node.input[0] in convolved]
    joined = {name for node in of_kind(network()[0], "Concat") for name in node.input}
    assert {node.input[0] for node in readers} <= {"mixed", *joined}  # no Relu between it and the next convolution


def test_all_that_meets_in_a_concatenation_shares_a_scale() -> None:
    result, told = quantised()
    scales = {told["scales"][name] for name in ("large", "sum", "strange", "cat")}
    assert len(scales) == 1
    greatest = max(abs(bound) for name in ("large", "sum", "strange", "cat") for bound in network()[1][name])
    assert scales.pop() == pytest.approx(greatest / 127)
    makers = {name: node.op_type for node in result.graph.node for name in node.output}
    (concat,) = of_kind(result, "Concat")
    assert {makers[name] for name in concat.input} == {"DequantizeLinear"}


def test_a_sum_reads_the_branch_around_a_block_quantised() -> None:
    result, _ = quantised()
    (added,) = (node for node in of_kind(result, "Add") if "second" in node.input)
    makers = {name: node.op_type for node in result.graph.node for name in node.output}
    assert [makers[name] for name in added.input] == ["Conv", "DequantizeLinear"]


def test_what_is_not_wanted_stays_float() -> None:
    result, told = quantised(["first", "mixed"])
    assert told["nodes"] == ["first", "mixed"]
    makers = {name: node.op_type for node in result.graph.node for name in node.output}
    kinds = {node.name: makers.get(node.input[1]) for node in of_kind(result, "Conv")}
    assert {name for name, kind in kinds.items() if kind == "DequantizeLinear"} == {"first", "mixed"}


def test_a_channel_of_zeros_gets_a_scale_that_divides() -> None:
    model, ranges = network()
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (shared,) = (tensor for tensor in changed.graph.initializer if tensor.name == "shared")
    values = numpy_helper.to_array(shared).copy()
    values[0], values[1] = 0, 1e-42
    shared.CopyFrom(numpy_helper.from_array(values, "shared"))
    result, _ = quantize_tensorrt(changed, ["first"], ranges)
    check_tensorrt(result)


def test_nothing_to_quantise_and_a_missing_range_are_told() -> None:
    model, ranges = network()
    with pytest.raises(BuildError, match="found none"):
        quantize_tensorrt(model, ["stem_r"], ranges)
    with pytest.raises(BuildError, match="expected a range of the tensor silu"):
        quantize_tensorrt(model, ["first"], {name: value for name, value in ranges.items() if name != "silu"})


def set_constant(model: onnx.ModelProto, name: str, value: Any) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def a_zero_point(model: onnx.ModelProto) -> None:
    set_constant(model, of_kind(model, "QuantizeLinear")[0].input[2], np.int8(3))


def unsigned(model: onnx.ModelProto) -> None:
    set_constant(model, of_kind(model, "QuantizeLinear")[0].input[2], np.uint8(0))


def no_zero_point(model: onnx.ModelProto) -> None:
    del of_kind(model, "QuantizeLinear")[0].input[2]


def a_scale_of_zero(model: onnx.ModelProto) -> None:
    set_constant(model, of_kind(model, "QuantizeLinear")[0].input[1], np.float32(0))


def a_quantised_bias(model: onnx.ModelProto) -> None:
    node = of_kind(model, "Conv")[0]
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int32), "bias_int32"))
    weights = next(each for each in model.graph.node if node.input[1] in each.output)
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias_int32", *weights.input[1:]], ["bias_float"]))
    node.input[2] = "bias_float"


def float_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "plain"))
    of_kind(model, "Conv")[0].input[1] = "plain"


def a_scale_of_its_own(model: onnx.ModelProto) -> None:
    source = next(node for node in model.graph.node if of_kind(model, "Concat")[0].input[0] in node.output)
    set_constant(model, source.input[1], np.float32(0.5))


def a_foreign_operator(model: onnx.ModelProto) -> None:
    of_kind(model, "Relu")[0].domain = "com.microsoft"


def an_old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


@pytest.mark.parametrize(
    ("breach", "told"),
    [
        (a_zero_point, "has the zero point 3, expected 0"),
        (unsigned, "works on uint8, expected int8"),
        (no_zero_point, "has no constant zero point"),
        (a_scale_of_zero, "is no positive constant"),
        (a_quantised_bias, "the bias of .* is quantised, expected float"),
        (float_weights, "has its input but not its weights quantised"),
        (a_scale_of_its_own, "do not share one scale"),
        (a_foreign_operator, "is no official operator but com.microsoft.Relu"),
        (an_old_opset, "opset 12, expected 13 to 21"),
    ],
)
def test_the_check_finds_each_breach(breach: Callable[[onnx.ModelProto], None], told: str) -> None:
    result, _ = quantised()
    check_tensorrt(result)
    breach(result)
    with pytest.raises(BuildError, match=told):
        check_tensorrt(result)


def test_the_file_for_the_cpu_breaks_the_rules() -> None:
    """The control: uint8 activations with zero points, and biases of int32."""
    from build_models.quantize.static import quantize_static

    model, ranges = network()
    result, _ = quantize_static(model, fusible_nodes(model, RAW), ranges)
    with pytest.raises(
        BuildError, match=r"dequantises a constant of int32, expected int8; a bias stays float.*and \d+ more"
    ):
        check_tensorrt(result)
