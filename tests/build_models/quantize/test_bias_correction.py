"""Bias correction: means come back to those of the float graph, in the same QDQ form, and int8 gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.kernels import kernel_report
from build_models.graph.model_io import constant_of, run_model, with_outputs
from build_models.graph.portable import check_portable, strip
from build_models.quantize.bias_correction import correct_biases
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import fusible_nodes, quantisable_tensors, quantize_static

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SIDE = 16


def network(opset: int = 17, *, bias: bool = True, gemm: bool = True, layers: int = 6) -> onnx.ModelProto:
    """Depthwise and pointwise convolutions of positive weights, whose rounding shifts means, and a Gemm."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["t0"], perm=[0, 3, 1, 2]),
    ]
    constants: dict[str, NDArray[np.float64]] = {"scale": np.array(1 / 255)}
    channels, tensor = 3, "t0"
    for index in range(1, layers + 1):
        depthwise = index % 2 == 0
        shape = (8, 1 if depthwise else channels, 3, 3)
        constants[f"w{index}"] = np.abs(rng.standard_normal(shape)) ** 3 - 0.55
        constants[f"w{index}"] /= np.sqrt(np.square(constants[f"w{index}"]).sum(axis=(1, 2, 3), keepdims=True))
        inputs = [tensor, f"w{index}"]
        if bias:
            constants[f"b{index}"] = rng.standard_normal(8) * 0.1
            inputs.append(f"b{index}")
        groups = channels if depthwise else 1
        nodes.append(helper.make_node("Conv", inputs, [f"c{index}"], name=f"conv{index}", group=groups, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"t{index}"], name=f"relu{index}"))
        channels, tensor = 8, f"t{index}"
    if gemm:
        constants["w"] = rng.standard_normal((5, 8))
        nodes += [
            helper.make_node("GlobalAveragePool", [tensor], ["pooled"], name="pool"),
            helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
            helper.make_node("Gemm", ["flat", "w"], ["out"], name="gemm", transB=1),
        ]
    else:
        nodes[-1].output[0] = "out"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def pictures(count: int = 12, seed: int = 2) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(count)]


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantised with ranges that clip, so that there is a shift to correct."""
    ranges = collect_ranges(model, quantisable_tensors(model, ["out"]), pictures())
    clipped = {name: (low * 0.7, high * 0.7) for name, (low, high) in ranges.items()}
    return quantize_static(model, fusible_nodes(model, ["out"]), clipped)[0]


def outputs_of(model: onnx.ModelProto, node: str) -> NDArray[np.float64]:
    """The node's output for every picture, ``[pictures, C, pixels]``."""
    (name,) = (each.output[0] for each in model.graph.node if each.name == node)
    graph = with_outputs(model, [name])
    values = [run_model(graph, {"image": image[None]})[name] for image in pictures()]
    return np.stack([value.reshape(value.shape[1], -1) for value in values]).astype(np.float64)


def shift_of(exact: onnx.ModelProto, rough: onnx.ModelProto) -> float:
    """The report's measure, computed with numpy alone."""
    shares = []
    for node in exact.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            want, have = (outputs_of(model, node.name) for model in (exact, rough))
            shares.append((have - want).mean(axis=(0, 2)) / np.sqrt(np.square(want).mean()))
    return float(np.sqrt(np.mean(np.square(np.concatenate(shares)))))


def value_of(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    value = constant_of(model, name)
    assert value is not None, name
    return value


def sqnr_db(exact: onnx.ModelProto, rough: onnx.ModelProto) -> float:
    want, have = (
        np.stack([run_model(model, {"image": image[None]}, optimise=True)["out"] for image in pictures(20, 9)])
        for model in (exact, rough)
    )
    return float(10 * np.log10(np.square(want).sum() / np.square(want - have).sum()))


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_the_shift_is_what_numpy_measures_and_goes(opset: int) -> None:
    model = network(opset)
    rough = int8(model)
    corrected, report = correct_biases(model, rough, pictures)
    assert report.shift_before == pytest.approx(shift_of(model, rough), rel=1e-4)
    assert report.shift_after == pytest.approx(shift_of(model, corrected), rel=1e-2, abs=1e-6)
    assert report.shift_before > 0.02
    assert report.shift_after < report.shift_before / 50
    assert (report.layers, report.depths) == (7, 7)


def test_int8_gains_on_pictures_that_it_was_not_corrected_with() -> None:
    model = network()
    rough = int8(model)
    corrected, _ = correct_biases(model, rough, pictures)
    before, after = sqnr_db(model, rough), sqnr_db(model, corrected)
    print(f"{before:.1f} -> {after:.1f} dB")
    assert after > before + 2  # measured: 2.8


@pytest.mark.parametrize("bias", [True, False])
def test_the_form_stays_and_a_layer_without_a_bias_gets_one(bias: bool) -> None:
    model = network(bias=bias)
    rough = int8(model)
    corrected = strip(correct_biases(model, rough, pictures)[0])
    check_portable(corrected)
    kernels = [kernel_report(each).operators for each in (rough, corrected)]
    assert kernels[0] == kernels[1]
    scales = {node.output[0]: node for node in corrected.graph.node if node.op_type == "DequantizeLinear"}
    for node in corrected.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            x, w, b = (value_of(corrected, scales[each].input[1]) for each in node.input)
            np.testing.assert_allclose(b, x * w, rtol=1e-5)
            assert value_of(corrected, scales[node.input[2]].input[0]).dtype == np.int32


def test_layers_side_by_side_are_one_depth() -> None:
    model = network(gemm=False, layers=1)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.full((8, 8, 1, 1), 0.11, np.float32), "v"))
    for name in ("left", "right"):
        graph.node.append(helper.make_node("Conv", ["out", "v"], [name], name=name))
    graph.node.append(helper.make_node("Add", ["left", "right"], ["sum"], name="sum"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    model = onnx.shape_inference.infer_shapes(model)
    ranges = collect_ranges(model, quantisable_tensors(model, ["sum"]), pictures())
    rough = quantize_static(model, fusible_nodes(model, ["sum"]), ranges)[0]
    _, report = correct_biases(model, rough, pictures)
    assert (report.layers, report.depths) in ((3, 2), (0, 2))


def test_without_a_shift_the_graph_is_given_back() -> None:
    model = network()
    corrected, _ = correct_biases(model, int8(model), pictures)
    again, report = correct_biases(model, corrected, pictures)
    third, last = correct_biases(model, again, pictures)
    assert last.shift_after <= report.shift_after
    if last.layers == 0:
        assert third == again


def test_another_graphs_means_are_not_taken_for_its_own() -> None:
    model = network()
    other = network()
    for tensor in other.graph.initializer:
        if tensor.name == "b2":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), "b2"))
    corrected, _ = correct_biases(other, int8(model), pictures)
    assert shift_of(model, corrected) > 0.02


def test_layers_left_in_float_are_left_alone() -> None:
    model = network()
    ranges = collect_ranges(model, quantisable_tensors(model, ["out"]), pictures())
    nodes = [name for name in fusible_nodes(model, ["out"]) if name not in ("conv2", "relu2")]
    rough, _ = quantize_static(model, nodes, ranges)
    corrected, report = correct_biases(model, rough, pictures)
    assert report.layers == 6
    np.testing.assert_array_equal(constant_of(corrected, "b2"), constant_of(model, "b2"))


def test_a_float_graph_and_no_pictures_are_refused() -> None:
    model = network()
    with pytest.raises(BuildError, match="reads int8, found none"):
        correct_biases(model, model, pictures)
    with pytest.raises(ValueError, match="at least one picture"):
        correct_biases(model, int8(model), list)


def test_the_given_graph_is_not_changed() -> None:
    model = network()
    rough = int8(model)
    before = rough.SerializeToString()
    told: list[tuple[int, int]] = []
    correct_biases(model, rough, pictures, progress=lambda done, of: told.append((done, of)))
    assert rough.SerializeToString() == before
    assert told == [(step, 10) for step in range(1, 11)]
