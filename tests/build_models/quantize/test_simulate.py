"""The simulator rounds what the file rounds, to the same numbers, and nothing that is switched off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from build_models.errors import BuildError
from build_models.graph.model_io import open_session, run_model, with_outputs
from build_models.quantize.simulate import (
    Simulator,
    Sites,
    find_sites,
    noise_shares,
    rounded_operand,
    rounded_weight,
    scale_and_zero,
)
from build_models.quantize.static import quantize_static
from tests.build_models.quantize.test_static_subsets import PICTURES, RAW, names, network, quantise
from tests.support.onnx_graphs import graph_model, numbers

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

pytestmark = pytest.mark.build

# Measured over 60 choices of nodes: up to 1.15 dB.
CLOSE_DB = 1.5
NO_NOISE = 1e-11  # of float32 in another order


def rounded_in_the_file(int8: onnx.ModelProto, sites: Sites) -> set[str]:
    """Activations with a scale of their own: what is moved keeps the scale of what it was."""
    constants = {tensor.name for tensor in int8.graph.initializer}
    makers = {name: node for node in int8.graph.node for name in node.output}
    found = set()
    for node in int8.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        maker = makers.get(node.input[0])
        moved = maker is not None and maker.op_type in ("MaxPool", "Reshape", "Transpose")
        name = node.input[0].removesuffix("_QuantizeLinear_Input")
        if not (moved and name not in sites.activations):
            found.add(name)
    return found


def difference_db(chosen: Collection[str], **options: bool) -> NDArray[np.float64]:
    """Noise of the simulator over noise of the file, by result."""
    model, ranges = network()
    sites = find_sites(model, chosen)
    simulator = Simulator(model, sites, RAW, **options)
    int8, _ = quantise(list(chosen), **options)
    exact = [simulator.run(picture, ranges) for picture in PICTURES]
    rough = [simulator.run(picture, ranges, sites) for picture in PICTURES]
    session = open_session(int8, optimise=True)
    real = [session.run(RAW, {"image": picture[None]}) for picture in PICTURES]
    ours, theirs = noise_shares(exact, rough), noise_shares(exact, real)
    difference: NDArray[np.float64] = 10 * np.log10((ours + NO_NOISE) / (theirs + NO_NOISE))
    return difference


def test_with_all_switches_off_it_is_the_float_graph() -> None:
    model, ranges = network()
    simulator = Simulator(model, find_sites(model, names()), RAW)
    for picture in PICTURES:
        want = run_model(model, {"image": picture[None]})
        for given_ranges in (ranges, {}):
            for name, have in zip(RAW, simulator.run(picture, given_ranges), strict=True):
                np.testing.assert_allclose(have, want[name], rtol=0, atol=1e-6 * float(np.abs(want[name]).max()))


def test_with_all_switches_on_it_is_as_far_off_as_the_file() -> None:
    assert np.abs(difference_db(names())).max() < CLOSE_DB


def test_weights_of_seven_bits_are_simulated_as_such() -> None:
    assert np.abs(difference_db(names(), reduce_range=True)).max() < CLOSE_DB


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 40)), st.booleans())
def test_any_choice_of_nodes_rounds_what_its_file_rounds(picks: set[int], all_but: bool) -> None:
    chosen = [name for index, name in enumerate(names()) if (index in picks) != all_but]
    model, _ = network()
    sites = find_sites(model, chosen)
    try:
        int8, _ = quantise(chosen)
    except BuildError:  # no convolution among them
        assert not sites.activations
        return
    assert rounded_in_the_file(int8, sites) == set(sites.activations)
    assert np.abs(difference_db(chosen)).max() < CLOSE_DB


def test_a_choice_that_differs_is_seen_as_different() -> None:
    """The control of the comparison with the file."""
    model, _ = network()
    sites = find_sites(model, [name for name in names() if name != "mixed"])
    assert rounded_in_the_file(quantise(list(names()))[0], sites) != set(sites.activations)


def test_one_switch_changes_one_tensor_to_the_grid_of_its_range() -> None:
    model, ranges = network()
    sites = find_sites(model, names())
    exact = run_model(with_outputs(model, ["sum"]), {"image": PICTURES[0][None]})["sum"]
    simulator = Simulator(model, sites, ["sum", "stem_r", "silu"])
    alone = Sites({"sum": sites.activations["sum"]}, {})
    off, on = simulator.run(PICTURES[0], ranges), simulator.run(PICTURES[0], ranges, alone)
    low, high = min(ranges["sum"][0], 0.0), max(ranges["sum"][1], 0.0)
    scale = np.float32((high - low) / 255)
    steps = np.clip(np.rint(exact / scale) + np.rint(-low / scale), 0, 255) - np.rint(-low / scale)
    assert np.abs(on[0] - steps * scale).max() <= scale * 1.001  # a tie may fall either way
    assert np.mean(np.abs(on[0] - steps * scale) > scale / 100) < 0.01
    np.testing.assert_array_equal(on[1], off[1])
    np.testing.assert_array_equal(on[2], off[2])


def test_a_range_can_be_changed_without_a_new_session() -> None:
    model, ranges = network()
    sites = find_sites(model, names())
    simulator = Simulator(model, sites, ["sum"])
    alone = Sites({"sum": sites.activations["sum"]}, {})
    (coarse,) = simulator.run(PICTURES[0], {"sum": (0.0, 255.0)}, alone)
    (fine,) = simulator.run(PICTURES[0], ranges, alone)
    assert set(np.unique(coarse)) <= set(range(256))
    assert not set(np.unique(fine)) <= set(range(256))


def test_weights_can_be_left_out() -> None:
    model, ranges = network()
    sites = find_sites(model, names())
    simulator = Simulator(model, sites, RAW)
    only = simulator.run(PICTURES[0], ranges, sites, weights=False)
    same = simulator.run(PICTURES[0], ranges, replace(sites, weights={}))
    both = simulator.run(PICTURES[0], ranges, sites)
    np.testing.assert_array_equal(only[0], same[0])
    assert not np.array_equal(only[0], both[0])


def test_nothing_is_rounded_between_a_convolution_and_its_relu() -> None:
    model, _ = network()
    sites = find_sites(model, names())
    assert "stem" not in sites.activations
    assert sites.activations["stem_r"] >= {"stem", "stem_r", "deep", "sum"}
    left = find_sites(model, [name for name in names() if name not in ("stem", "stem_r")])
    assert "stem" not in left.activations
    assert left.activations["stem_r"] == {"deep", "sum"}


def test_the_cameras_bytes_are_exact() -> None:
    model, _ = network()
    assert not {"image", "native/cast", "x"} & set(find_sites(model, names()).activations)
    makers = {name: node for node in model.graph.node for name in node.output}
    sites = find_sites(model, names())
    assert all(makers[name].op_type not in ("Cast", "Transpose") for name in sites.activations)


def test_what_is_only_moved_is_rounded_once_and_held_by_all() -> None:
    model, _ = network()
    sites = find_sites(model, names())
    assert "pooled" not in sites.activations
    assert sites.activations["sum"] >= {"pooled", "small"}
    assert sites.grids == {"large": "small"}


def test_a_node_may_have_the_name_of_its_tensor_and_of_another() -> None:
    model, ranges = network()
    assert {node.name for node in model.graph.node} & {name for node in model.graph.node for name in node.output}
    Simulator(model, find_sites(model, names()), RAW).run(PICTURES[0], ranges)


def products() -> tuple[onnx.ModelProto, dict[str, tuple[float, float]]]:
    """A product, and Gemms with both layouts of weights, whose channels differ."""
    loud = np.array([1, 10, 100, 1000], np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], name="cast", to=1),
        helper.make_node("Reshape", ["x", "flat"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "m"], ["a"], name="a"),
        helper.make_node("Gemm", ["a", "g"], ["b"], name="b"),
        helper.make_node("Gemm", ["b", "t"], ["y"], name="c", transB=1),
    ]
    constants: dict[str, Any] = {
        "m": numbers(12, 4) * loud,
        "g": numbers(4, 4, seed=1) * loud,
        "t": numbers(4, 4, seed=2) * loud[:, None],
        "flat": np.array([1, 12]),
    }
    model = graph_model(nodes, inputs={"image": (1, 2, 2, 3)}, **constants)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return model, dict.fromkeys("xfaby", (-1e4, 1e4))


@pytest.mark.parametrize("reduce_range", [False, True])
def test_weights_are_those_of_the_file(reduce_range: bool) -> None:
    most = 64 if reduce_range else 127
    for model, ranges, axes in (
        (network()[0], network()[1], dict.fromkeys(("native/weights", "dw", "shared", "wide", "joined", "head"), 0)),
        (*products(), {"m": 1, "g": 1, "t": 0}),
    ):
        chosen = [node.name for node in model.graph.node if node.op_type not in ("Cast", "Exp", "Tanh")]
        int8, _ = quantize_static(model, chosen, ranges, reduce_range=reduce_range)
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
        exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name, axis in axes.items():
            scale = values[f"{name}_scale"]
            shape = [-1 if index == axis else 1 for index in range(exact[name].ndim)]
            real = values[f"{name}_quantized"].astype(np.float32) * scale.reshape(shape)
            assert scale.shape == (exact[name].shape[axis],)
            step = float(scale.max())
            ours = rounded_weight(exact[name], axis, most)
            assert np.abs(ours - real).max() <= step * 1.001
            assert np.mean(np.abs(ours - real) > 1e-5 * np.abs(real)) < 0.01  # ties


def test_products_have_a_scale_per_channel() -> None:
    """With one for all, the quiet channels of these weights would be lost."""
    model, ranges = products()
    sites = find_sites(model, ["flatten", "a", "b", "c"])
    simulator = Simulator(model, sites, ["y"])
    image = PICTURES[0][:2, :2]
    exact, rough = simulator.run(image, ranges), simulator.run(image, ranges, Sites({}, sites.weights))
    assert sites.weights == {"a": "m", "b": "g", "c": "t"}
    assert (np.abs(exact[0] - rough[0]) < 0.03 * np.abs(exact[0])).all()


def test_a_constant_that_is_added_is_rounded_like_an_activation() -> None:
    model, _ = network()
    sites = find_sites(model, names())
    assert sites.weights["native/sub"] == "native/mean"
    value = np.array([-100.0, 3.3, 155.0], np.float32)
    np.testing.assert_allclose(rounded_operand(value), [-100, 3, 155], atol=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [(0, 255, 1, 0), (-255, 0, 1, 255), (5, 51, 0.2, 0), (-2, 3, 5 / 255, 102), (0, 0, 1, 0), (-51, -3, 0.2, 255)],
)
def test_scale_and_zero_point_hold_zero(low: float, high: float, scale: float, zero: int) -> None:
    found = scale_and_zero(low, high)
    assert found[0] == pytest.approx(scale)
    assert found[1] == zero


def test_noise_is_a_share_of_the_power_of_each_output() -> None:
    exact = [[np.array([3.0, 4.0], np.float32), np.array([1.0], np.float32)]] * 2
    rough = [[np.array([3.0, 4.5], np.float32), np.array([1.0], np.float32)]] * 2
    np.testing.assert_allclose(noise_shares(exact, rough), [0.01, 0.0])
    with pytest.raises(ValueError, match="at least one picture"):
        noise_shares([], [])


def test_a_channel_whose_weights_are_next_to_nothing_is_rounded_to_nothing() -> None:
    weight = np.array([[1e-45, 0], [0, 0], [1, -0.5]], np.float32)
    rounded = rounded_weight(weight, 0)
    np.testing.assert_allclose(rounded, weight, atol=1 / 254)
    assert np.isfinite(rounded).all()
