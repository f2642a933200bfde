"""Taps: put right behind their tensors, and numbers per channel that numpy computes too."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")

import onnx
from onnx import TensorProto, helper

from build_models.errors import BuildError
from build_models.graph.model_io import run_model, with_outputs
from build_models.quantize.channels import collect_channels
from build_models.quantize.taps import open_tapped, put_behind
from tests.build_models.quantize.test_bias_correction import network, pictures

pytestmark = pytest.mark.build


def test_each_node_lies_behind_its_source_and_chains_stay_in_order() -> None:
    model = network(layers=2, gemm=False)
    before = [node.name or node.op_type for node in model.graph.node]
    chain = [helper.make_node("Abs", ["c1"], ["a"], name="abs"), helper.make_node("Neg", ["a"], ["n"], name="neg")]
    put_behind(model, [helper.make_node("Relu", ["pixels"], ["p"], name="first"), *chain])
    after = [node.name or node.op_type for node in model.graph.node]
    assert after == ["Cast", "first", *before[1:4], "abs", "neg", *before[4:]]


def test_what_serves_no_output_is_not_run() -> None:
    model = network(layers=2, gemm=False)
    tap = helper.make_node("ReduceMax", ["c1"], ["most"], keepdims=0)
    session = open_tapped(model, [tap], [onnx.ValueInfoProto(name="most")])
    assert [output.name for output in session.get_outputs()] == ["most"]
    (want,) = run_model(with_outputs(model, ["c1"]), {"image": pictures()[0][None]}).values()
    assert session.run(None, {"image": pictures()[0][None]})[0] == want.max()


def test_a_tap_of_an_unknown_tensor_is_refused() -> None:
    tap = helper.make_node("ReduceMax", ["nowhere"], ["most"], keepdims=0)
    with pytest.raises(BuildError, match="ONNX Runtime refuses the model"):
        open_tapped(network(), [tap], [helper.make_tensor_value_info("most", TensorProto.FLOAT, [])])


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_channels_are_what_numpy_computes(opset: int) -> None:
    model = network(opset)
    tensors = {"c3": 4, "t3": 4, "out": 2}
    found = collect_channels(model, tensors, iter(pictures(5)))
    for name, rank in tensors.items():
        graph = with_outputs(model, [name])
        runs = [run_model(graph, {"image": image[None]})[name] for image in pictures(5)]
        values = np.concatenate(runs).astype(np.float64)
        axes = (0, *range(2, rank))
        np.testing.assert_allclose(found[name].mean, values.mean(axis=axes), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[name].power, np.square(values).mean(axis=axes), rtol=1e-4)
        np.testing.assert_allclose(found[name].largest, np.abs(values).max(axis=axes), rtol=1e-6)


def test_channels_of_no_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        collect_channels(network(), {"c3": 4}, [])
