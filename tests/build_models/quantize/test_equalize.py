"""Equalisation: the function stays, int8 gains, and what cannot be equalised is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper, numpy_helper

from build_models.graph.model_io import constant_of, run_model
from build_models.quantize import equalize as equalize_module
from build_models.quantize.equalize import equalize
from build_models.quantize.ranges import collect_ranges
from build_models.quantize.static import fusible_nodes, quantisable_tensors, quantize_static

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

pytestmark = pytest.mark.build

SIDE = 16
WIDE = 24


class Net:
    """A canonical graph written layer by layer; every weight is drawn from one seed."""

    def __init__(self, opset: int = 17) -> None:
        self.rng = np.random.default_rng(3)
        self.opset = opset
        self.constants: dict[str, NDArray[np.float32]] = {"scale": np.array(1 / 128, np.float32)}
        self.nodes = [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["x"], perm=[0, 3, 1, 2]),
        ]
        self.tensor, self.channels = "x", 3

    def conv(
        self, outputs: int, side: int = 1, *, depthwise: bool = False, spread: float = 0, bias: bool = True
    ) -> str:
        """``spread``: decimal digits over which the output channels' magnitudes differ."""
        index = len(self.nodes)
        groups = self.channels if depthwise else 1
        shape = (outputs, self.channels // groups, side, side)
        weights = self.rng.standard_normal(shape) / np.sqrt(shape[1] * side * side)
        factors = 10 ** (spread * self.rng.uniform(-0.5, 0.5, outputs))
        self.constants[f"w{index}"] = (weights * factors[:, None, None, None]).astype(np.float32)
        self.constants[f"b{index}"] = (0.3 * self.rng.standard_normal(outputs) * factors).astype(np.float32)
        inputs = [self.tensor, f"w{index}", *([f"b{index}"] if bias else [])]
        self.channels = outputs
        return self.add("Conv", inputs, name=f"conv{index}", group=groups, pads=[side // 2] * 4)

    def undo(self, outputs: int, factors: NDArray[np.float64]) -> str:
        """A convolution whose weights undo the factors of the channels that it reads."""
        tensor = self.conv(outputs)
        weights = self.constants[f"w{len(self.nodes) - 1}"]
        weights /= factors[:, None, None].astype(np.float32)
        return tensor

    def add(self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        self.tensor = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, inputs, [self.tensor], name=name or f"{op_type}{len(self.nodes)}", **attributes)
        )
        return self.tensor

    def activate(self, kind: str) -> str:
        before = self.tensor
        if kind == "silu":
            return self.add("Mul", [before, self.add("Sigmoid", [before])])
        if kind == "clip":
            self.constants |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
            return self.add("Clip", [before, "zero", "six"])
        if kind in ("prelu", "prelu per channel"):
            size = self.channels if kind == "prelu per channel" else 1
            self.constants[kind] = np.linspace(0.1, 0.3, size, dtype=np.float32).reshape(-1, 1, 1)
            return self.add("PRelu", [before, kind])
        return before if kind == "linear" else self.add(kind, [before])

    def model(self) -> onnx.ModelProto:
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
            [helper.make_tensor_value_info(self.tensor, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items() if name in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def pictures(count: int = 6, seed: int = 1) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(count)]


def badly_scaled(kind: str = "Relu", opset: int = 17, spread: float = 2.0) -> onnx.ModelProto:
    """Two depthwise blocks, pointwise - depthwise - pointwise, as in a MobileNet."""
    net = Net(opset)
    for _ in range(2):
        net.conv(WIDE, spread=spread)
        net.activate(kind)
        net.conv(WIDE, 3, depthwise=True, spread=0)
        weights = net.constants[f"w{len(net.nodes) - 1}"]
        # Trained nets undo their channels' scales: each of them matters.
        source = net.constants[
            next(
                node.input[1]
                for node in net.nodes[::-1]
                if node.name != f"conv{len(net.nodes) - 1}" and node.op_type == "Conv"
            )
        ]
        weights /= np.sqrt(np.square(source).sum(axis=(1, 2, 3), keepdims=True))
        net.activate(kind)
        net.conv(WIDE)
    return net.model()


def outputs(model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    name = model.graph.output[0].name
    return np.stack([run_model(model, {"image": image[None]})[name] for image in images]).astype(np.float64)


def off(model: onnx.ModelProto, other: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> float:
    want = outputs(model, images)
    return float(np.abs(want - outputs(other, images)).max() / np.abs(want).max())


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    raw = [model.graph.output[0].name]
    ranges = collect_ranges(model, quantisable_tensors(model, raw), pictures())
    return quantize_static(model, fusible_nodes(model, raw), ranges)[0]


def sqnr_db(exact: onnx.ModelProto, rough: onnx.ModelProto) -> float:
    want, have = (outputs(model, pictures(8, seed=9)) for model in (exact, rough))
    return float(10 * np.log10(np.square(want).sum() / np.square(want - have).sum()))


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("kind", ["linear", "Relu", "LeakyRelu", "prelu"])
def test_the_function_stays_for_every_picture(kind: str, opset: int) -> None:
    model = badly_scaled(kind, opset)
    equalised, done = equalize(model, pictures())
    assert len(done) == 5
    assert off(model, equalised, pictures(5, seed=8)) < 1e-5
    assert all(each.spread_after < each.spread_before for each in done)


def test_the_check_of_the_function_sees_one_weight_that_is_off() -> None:
    model = badly_scaled()
    equalised, _ = equalize(model, pictures())
    name = equalised.graph.node[-1].input[1]
    (weights,) = (tensor for tensor in equalised.graph.initializer if tensor.name == name)
    value = numpy_helper.to_array(weights).copy()
    value[0] *= 1.05
    weights.CopyFrom(numpy_helper.from_array(value, weights.name))
    assert off(model, equalised, pictures(5, seed=8)) > 1e-4


@pytest.mark.parametrize("kind", ["linear", "Relu", "LeakyRelu", "prelu"])
def test_int8_gains_where_channels_are_badly_scaled(kind: str) -> None:
    model = badly_scaled(kind)
    equalised, _ = equalize(model, pictures())
    before, after = sqnr_db(model, int8(model)), sqnr_db(model, int8(equalised))
    print(f"{kind}: {before:.1f} -> {after:.1f} dB")
    assert after > before + 6


def test_int8_does_not_lose_where_channels_are_alike() -> None:
    model = badly_scaled(spread=0)
    equalised, _ = equalize(model, pictures())
    assert sqnr_db(model, int8(equalised)) > sqnr_db(model, int8(model)) - 0.7


def test_once_is_enough_but_for_the_limit_on_raising_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equalize_module, "_MOST_RAISED", 1e12)
    once, done = equalize(badly_scaled(), pictures())
    assert len(done) == 5
    assert equalize(once, pictures())[1] == []


def test_a_channel_in_front_of_a_clip_is_raised_to_its_bound_at_most() -> None:
    model = badly_scaled("clip")
    equalised, done = equalize(model, pictures())
    assert {each.kind for each in done} == {"clip", "linear"} or {each.kind for each in done} == {"clip"}
    assert off(model, equalised, pictures()) < 1e-5  # the pictures that it saw
    assert [node.op_type for node in equalised.graph.node] == [node.op_type for node in model.graph.node]
    assert sqnr_db(model, int8(equalised)) > sqnr_db(model, int8(model)) + 3


def test_channels_that_reach_the_clips_bound_stay_as_they_are() -> None:
    net = Net()
    net.conv(8)
    source = net.constants["w3"]
    np.abs(source, out=source)
    source[:4] *= 100  # these are clipped
    source[4:] *= 0.1
    net.activate("clip")
    net.conv(8, 3, depthwise=True)
    net.conv(4)
    model = net.model()
    equalised, _ = equalize(model, pictures())
    before, after = constant_of(model, "w3"), constant_of(equalised, "w3")
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before[:4], after[:4])
    assert (np.abs(after[4:]).max() / np.abs(before[4:]).max()) > 2


def silu_net(spread: float) -> onnx.ModelProto:
    net = Net()
    net.conv(WIDE, spread=spread)
    factors = np.abs(net.constants["w3"]).sum(axis=(1, 2, 3)).astype(np.float64)
    net.activate("silu")
    net.undo(WIDE, factors)
    return net.model()


def test_a_silu_is_equalised_with_one_product_where_that_gains_much() -> None:
    model = silu_net(3.0)
    equalised, done = equalize(model, pictures(), silu_gain_db=6.0)
    assert [each.kind for each in done] == ["silu"]
    added = [node.op_type for node in equalised.graph.node]
    assert added == [
        *("Cast", "Mul", "Transpose", "Conv", "Mul", "Clip", "Sigmoid", "Mul", "Conv")
    ]  # a product and a Clip in front of the Sigmoid
    assert off(model, equalised, pictures(5, seed=8)) < 1e-4
    onnx.checker.check_model(equalised, full_check=True)
    assert sqnr_db(model, int8(equalised)) > sqnr_db(model, int8(model)) + 6


def test_a_silu_of_like_channels_is_left_alone() -> None:
    model = silu_net(0.0)
    equalised, done = equalize(model, pictures())
    assert done == []
    assert equalised == model


def test_several_convolutions_that_read_one_tensor_are_scaled_together() -> None:
    net = Net()
    net.conv(WIDE, spread=2)
    shared = net.activate("Relu")
    first = net.conv(8)
    net.tensor, net.channels = shared, WIDE
    net.add("Add", [net.conv(8, 3), first])
    model = net.model()
    equalised, done = equalize(model, pictures())
    assert len(done) == 1
    assert off(model, equalised, pictures(5, seed=8)) < 1e-5


def left_alone(case: str) -> onnx.ModelProto:
    net = Net()
    net.conv(WIDE, spread=2)
    before = net.tensor
    if case == "a PRelu with a slope per channel":
        net.activate("prelu per channel")
    elif case == "another activation":
        net.activate("Tanh")
    elif case == "a Clip that does not begin at zero":
        net.constants |= {"low": np.array(-1, np.float32), "high": np.array(6, np.float32)}
        net.add("Clip", [before, "low", "high"])
    elif case == "the first weights shared":
        net.tensor, net.channels = "x", 3
        other = net.add("Conv", ["x", "w3", "b3"])
        net.add("Relu", [before])
        net.channels = WIDE
        net.conv(WIDE, 3, depthwise=True)
        net.nodes.append(helper.make_node("Add", [net.tensor, other], ["sum"], name="sum"))
        net.tensor = "sum"
        return net.model()
    net.conv(WIDE, 3, depthwise=True)
    if case == "a second reader that is no convolution":
        net.add("Add", [net.tensor, before])
    model = net.model()
    if case == "an output":
        model.graph.output.append(helper.make_tensor_value_info(before, TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize(
    "case",
    [
        "a PRelu with a slope per channel",
        "another activation",
        "a Clip that does not begin at zero",
        "the first weights shared",
        "a second reader that is no convolution",
        "an output",
    ],
)
def test_what_passes_no_factor_through_is_left_alone(case: str) -> None:
    model = left_alone(case)
    equalised, done = equalize(model, pictures())
    assert done == []
    assert equalised == model


def test_the_control_without_any_of_these_is_equalised() -> None:
    assert len(equalize(left_alone("nothing"), pictures())[1]) == 1


def test_the_given_model_is_not_changed() -> None:
    model = badly_scaled()
    before = model.SerializeToString()
    equalize(model, pictures())
    assert model.SerializeToString() == before
