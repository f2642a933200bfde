"""Any choice of nodes gives a file that runs, is close to the float one, and computes in int8 exactly what it says."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.kernels import kernel_report
from build_models.graph.model_io import run_model
from build_models.graph.native_input import native_input
from build_models.graph.portable import check_portable, make_portable, strip
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import fusible_nodes, quantisable_tensors, quantize_static
from build_models.recipe import InputRecipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SIDE, CHANNELS = 16, 8
RAW = ["boxes", "features"]
CLOSE = 0.1  # of the largest value; measured over 400 choices: up to 0.05
PICTURES = [np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for seed in range(6)]


@functools.cache
def network() -> tuple[onnx.ModelProto, dict[str, tuple[float, float]]]:
    """Branches, sums, joins, pools, a resize, SiLU, shared weights, a padded stem behind a mean, two results."""
    rng = np.random.default_rng(11)
    constants: dict[str, NDArray[Any]] = {"scales": np.array([1, 1, 2, 2], np.float32), "size": np.array([1, -1])}

    def weight(name: str, outputs: int, inputs: int, side: int) -> str:
        values = rng.standard_normal((outputs, inputs, side, side)) / np.sqrt(inputs * side * side)
        constants[name] = values.astype(np.float32)
        return name

    def conv(source: str, weights: str, made: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, weights, f"b_{weights}"], [made], name=made, **attributes)

    weight("w0", CHANNELS, 3, 3)
    weight("dw", CHANNELS, 1, 3)
    weight("wide", 2 * CHANNELS, CHANNELS, 1)
    weight("shared", CHANNELS, CHANNELS, 1)
    weight("joined", CHANNELS, 4 * CHANNELS, 1)
    weight("head", 4, CHANNELS, 1)
    for name in [*constants]:
        if constants[name].ndim == 4:
            constants[f"b_{name}"] = (rng.standard_normal(len(constants[name])) / 10).astype(np.float32)
    same = {"pads": [1] * 4}

    def node(op_type: str, inputs: list[str], made: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [made], name=made, **attributes)

    nodes = [
        conv("x", "w0", "stem", **same, strides=[2, 2]),
        node("Relu", ["stem"], "stem_r"),
        conv("stem_r", "dw", "deep", **same, group=CHANNELS),
        node("Sigmoid", ["deep"], "gate"),
        node("Mul", ["deep", "gate"], "silu"),
        conv("silu", "shared", "first"),
        node("Relu", ["first"], "first_r"),
        conv("first_r", "shared", "second"),
        node("Add", ["second", "stem_r"], "sum"),
        node("MaxPool", ["sum"], "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        conv("pooled", "wide", "small"),
        node("Resize", ["small", "", "scales"], "large", mode="nearest"),
        node("Exp", ["gate"], "strange"),
        node("Concat", ["large", "sum", "strange"], "cat", axis=1),
        conv("cat", "joined", "mixed"),
        node("Tanh", ["mixed"], "odd"),
        conv("mixed", "head", "boxes"),
        node("GlobalAveragePool", ["odd"], "averaged"),
        node("Reshape", ["averaged", "size"], "features"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 4, 8, 8]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, CHANNELS]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    native, _ = native_input(source, InputRecipe(mean=[0.4, 0.5, 0.6], std=[0.25] * 3))
    model, _ = make_portable(native, RAW)
    return model, collect_ranges(model, quantisable_tensors(model, RAW), PICTURES)


@functools.cache
def names() -> tuple[str, ...]:
    return tuple(fusible_nodes(network()[0], RAW))


def quantise(chosen: list[str], **options: bool) -> tuple[onnx.ModelProto, dict[str, Any]]:
    model, ranges = network()
    result, told = quantize_static(model, chosen, ranges, **options)
    result = strip(result)
    check_portable(result)
    return result, told


def assert_close(model: onnx.ModelProto) -> None:
    for picture in PICTURES[:2]:
        exact = run_model(network()[0], {"image": picture[None]})
        for optimise in (False, True):
            rough = run_model(model, {"image": picture[None]}, optimise=optimise)
            for name, value in exact.items():
                assert np.abs(value - rough[name]).max() < CLOSE * np.abs(value).max(), (name, optimise)


def assert_every_pair_serves(model: onnx.ModelProto, int8: list[str]) -> None:
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in constants:
            continue
        source = makers.get(node.input[0])
        made_by = makers.get(source.input[0]) if source is not None and source.op_type == "QuantizeLinear" else None
        read_by = readers.get(node.output[0], [])
        assert all(reader.op_type != "QuantizeLinear" for reader in read_by), f"{node.name} is quantised again"
        served = made_by is not None and (made_by.name in int8 or made_by.name.startswith("stem/"))
        served |= any(reader.name in int8 or reader.name.startswith("stem/") for reader in read_by)
        assert served, f"{node.name} serves nothing"


def test_all_nodes_in_int8() -> None:
    model, told = quantise(list(names()))
    assert_close(model)
    assert_every_pair_serves(model, told["nodes"])
    kernels = kernel_report(model).operators
    assert kernels["QLinearConv"] == 7
    assert told["float_ops_in_body"] == ["Exp"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 40)), st.booleans(), st.booleans())
def test_any_choice_of_nodes(picks: set[int], packed: bool, all_but: bool) -> None:
    chosen = [name for index, name in enumerate(names()) if (index in picks) != all_but]
    model, _ = network()
    op_types = {node.name: node.op_type for node in model.graph.node}
    if not any(op_types[name] == "Conv" for name in chosen):
        with pytest.raises(BuildError, match="found none"):
            quantise(chosen)
        return
    result, told = quantise(chosen, packed_stem=packed)
    assert_close(result)
    assert_every_pair_serves(result, told["nodes"])
    kernels = kernel_report(result).operators
    wanted = sum(op_types[name] == "Conv" for name in chosen)
    assert (kernels.get("QLinearConv", 0), kernels.get("Conv", 0)) == (wanted, 7 - wanted)
    assert set(chosen) >= {name for name in told["nodes"] if op_types[name] not in ("Relu", "Clip")}


def test_the_check_for_pairs_that_serve_nothing_can_fail() -> None:
    model, told = quantise(list(names()))
    with pytest.raises(AssertionError, match="serves nothing"):
        assert_every_pair_serves(model, [name for name in told["nodes"] if name not in ("boxes", "mixed")])


def test_without_our_care_the_runtime_quantises_a_float_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control for `keep_float`: if this fails, the runtime has changed and the care may go."""
    monkeypatch.setattr("build_models.quantize.static.keep_float", lambda *_: None)
    model, _ = quantise([name for name in names() if name != "first"])
    assert "Conv" not in kernel_report(model).operators


def test_weights_shared_with_a_float_convolution_stay_exact_there() -> None:
    model, _ = quantise([name for name in names() if name not in ("first", "first_r")])
    (node,) = (node for node in model.graph.node if node.name == "first")
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    (original,) = (tensor for tensor in network()[0].graph.initializer if tensor.name == "shared")
    assert np.array_equal(numpy_helper.to_array(weights), numpy_helper.to_array(original))


def test_a_float_result_that_int8_reads_is_exact() -> None:
    """Both results come from a float convolution; one of them is read in int8 too."""
    model, ranges = network()
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.append(helper.make_tensor_value_info("mixed", TensorProto.FLOAT, [1, CHANNELS, 8, 8]))
    result, _ = quantize_static(tapped, ["boxes"], ranges)
    feed = {"image": PICTURES[0][None]}
    assert np.array_equal(run_model(tapped, feed)["mixed"], run_model(result, feed)["mixed"])


def test_a_missing_range_is_told_by_name() -> None:
    model, ranges = network()
    with pytest.raises(BuildError, match="expected a range of the tensor mixed, found none"):
        quantize_static(model, ["boxes"], {name: value for name, value in ranges.items() if name != "mixed"})
