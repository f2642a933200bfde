"""Signal-to-noise per layer, against a graph whose quantisation error is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.quantize.signal import layer_signals

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SIDE = 4


def two_layers(*, step: float | None = None) -> onnx.ModelProto:
    """Convolution "half" with Relu, then "copy"; with ``step`` both results are rounded to multiples of it."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w_half"], ["h"], name="half"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
    ]
    tensor = "r"
    constants: dict[str, NDArray[np.generic]] = {
        "w_half": (np.eye(3) / 2).astype(np.float32)[:, :, None, None],
        "w_copy": np.eye(3, dtype=np.float32)[:, :, None, None],
    }
    if step is not None:
        constants |= {"step": np.array(step, np.float32), "zero": np.array(0, np.uint8)}
        nodes += rounding("r")
        tensor = "r_DequantizeLinear_Output"
    nodes.append(helper.make_node("Conv", [tensor, "w_copy"], ["c"], name="copy"))
    if step is not None:
        nodes += rounding("c")
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rounding(tensor: str) -> list[onnx.NodeProto]:
    quantised, back = f"{tensor}_QuantizeLinear_Output", f"{tensor}_DequantizeLinear_Output"
    return [
        helper.make_node("QuantizeLinear", [tensor, "step", "zero"], [quantised]),
        helper.make_node("DequantizeLinear", [quantised, "step", "zero"], [back]),
    ]


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(3)]


def test_the_ratio_is_that_of_the_powers_over_all_pictures() -> None:
    exact = np.stack(pictures()).astype(np.float64) / 2
    rounded = np.round(exact / 4) * 4
    expected = round(float(10 * np.log10(np.square(exact).sum() / np.square(exact - rounded).sum())), 2)
    signals = layer_signals(two_layers(), two_layers(step=4.0), pictures())
    assert [(each.node, each.op_type) for each in signals] == [("half", "Conv"), ("copy", "Conv")]
    assert [each.sqnr_db for each in signals] == [expected, expected]


def test_coarser_steps_give_less_signal_to_noise() -> None:
    fine, coarse = (layer_signals(two_layers(), two_layers(step=step), pictures())[0].sqnr_db for step in (1.0, 8.0))
    assert 15 < coarse < fine - 12


def test_a_layer_without_error_is_far_above_any_other() -> None:
    signals = layer_signals(two_layers(), two_layers(step=0.5), pictures())
    assert [each.sqnr_db for each in signals] == [200.0, 200.0]


def test_error_on_a_layer_that_is_all_zero_is_as_far_below() -> None:
    black = [np.zeros((SIDE, SIDE, 3), np.uint8)]
    rough = two_layers(step=4.0)
    rough.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "off"))
    rough.graph.node[2].input.append("off")
    (half, _) = layer_signals(two_layers(), rough, black)
    assert half.sqnr_db == 200.0  # an offset of 1 is rounded away
    rough.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.full(3, 4, np.float32), "off"))
    (half, _) = layer_signals(two_layers(), rough, black)
    assert half.sqnr_db == -200.0


def test_layers_left_in_float_are_not_listed() -> None:
    assert layer_signals(two_layers(), two_layers(), pictures()) == []
