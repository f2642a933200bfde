"""The whole list: every pattern at once, graphs made up at random, names that must survive, and an end."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the build extra")
pytest.importorskip("hypothesis", reason="needs the test extra")

from hypothesis import HealthCheck, Phase, assume, given, settings
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.checker import ValidationError

from build_models.errors import BuildError
from build_models.graph.model_io import with_outputs
from build_models.graph.optimise import PASSES, optimise
from build_models.graph.passes.layers import Layer
from build_models.graph.portable import check_portable, make_portable
from tests.support.fuzzed_graphs import fuzzed_models, is_well_conditioned
from tests.support.onnx_graphs import assert_same, graph_model, ints, node, numbers, ops

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

pytestmark = pytest.mark.build

SCRIPT = """
import hashlib, sys
import onnx
from build_models.graph.optimise import optimise
model = onnx.load_model_from_string(sys.stdin.buffer.read())
print(hashlib.sha256(optimise(model, ["raw"])[0].SerializeToString(deterministic=True)).hexdigest())
"""


def decided_branch() -> NodeProto:
    def branch(op_type: str) -> GraphProto:
        output = helper.make_tensor_value_info(op_type, TensorProto.FLOAT, None)
        return helper.make_graph([node(op_type, ["normed"], [op_type])], op_type, [], [output])

    return node("If", ["true"], ["chosen"], then_branch=branch("Relu"), else_branch=branch("Sigmoid"))


def every_pattern() -> ModelProto:
    """One model with all that the passes look for; seven of its nodes would do."""
    nodes = [
        # normalisation in front, a Pad, batch normalisation and an affine chain around a convolution
        node("Mul", ["x", "scale3"], ["scaled"], name="normalise"),
        node("Identity", ["scaled"], ["same"]),
        node("Pad", ["same", "pads"], ["padded"]),
        node("Conv", ["padded", "w"], ["c"], name="conv"),
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, np.float32))),
        node("Mul", ["n", "half"], ["n1"]),
        node("Add", ["n1", "offset4"], ["n2"]),
        node("Div", ["n2", "half"], ["n3"]),
        node("Sub", ["n3", "half"], ["normed"]),
        # a branch that is decided, and something that nobody reads
        decided_branch(),
        node("Sigmoid", ["normed"], ["dead"]),
        # the same twice, transposed there and back
        node("Transpose", ["chosen"], ["nhwc"], perm=[0, 2, 3, 1]),
        node("Transpose", ["nhwc"], ["back"], perm=[0, 3, 1, 2]),
        node("Sigmoid", ["back"], ["s1"]),
        node("Sigmoid", ["chosen"], ["s2"]),
        node("Mul", ["s1", "map"], ["m1"]),
        node("Mul", ["s2", "same_map"], ["m2"]),
        node("Mul", ["m1", "m2"], ["squared"]),
        node("Dropout", ["squared"], ["kept"]),
        # reshapes whose shape the graph computes
        node("Shape", ["kept"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Concat", ["batch", "open"], ["target"], axis=0),
        node("Reshape", ["kept", "rows"], ["flat0"]),
        node("Reshape", ["flat0", "target"], ["flat"]),
        # a product of matrices with its bias, and numbers that are nothing
        node("MatMul", ["flat", "wm"], ["product"]),
        node("Add", ["product", "bm"], ["biased"]),
        node("Mul", ["biased", "ones"], ["times_one"]),
        node("Add", ["times_one", "zeros"], ["plus_zero"]),
        node("Cast", ["plus_zero"], ["cast"], to=1),
        node("Slice", ["cast", "zero", "far", "one"], ["sliced"]),
        node("Concat", ["sliced"], ["alone"], axis=0),
        node("Sqrt", ["four"], ["two"]),
        node("Mul", ["alone", "two"], ["raw"]),
        node("Identity", ["raw"], ["y"]),
    ]
    statistics: dict[str, Any] = {
        name: np.abs(numbers(4, seed=seed)) for seed, name in enumerate(["gamma", "beta", "mean", "var"])
    }
    return graph_model(
        nodes,
        inputs={"x": (1, 3, 6, 6)},
        scale3=numbers(3, 1, 1),
        offset4=numbers(4, 1, 1),
        pads=ints(0, 0, 1, 1, 0, 0, 1, 1),
        w=numbers(4, 3, 3, 3),
        **statistics,
        true=np.array(True),
        zero=ints(0),
        one=ints(1),
        far=ints(99),
        open=ints(-1),
        rows=ints(4, 36),
        wm=numbers(144, 5),
        bm=numbers(5),
        ones=np.ones((1, 5), np.float32),
        zeros=np.zeros(5, np.float32),
        four=np.array(4, np.float32),
        map=numbers(6, 6),
        same_map=numbers(6, 6),
    )


def test_a_model_with_every_pattern_shrinks_to_what_it_does() -> None:
    model = every_pattern()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5]))

    result, report = optimise(model)

    assert ops(result) == ["Conv", "Relu", "Sigmoid", "Mul", "Mul", "Reshape", "Gemm"]
    assert (report.nodes_before, report.nodes_after) == (37, 7)  # two are in the branches
    assert_same(model, result)


def test_every_pass_has_something_to_do_in_it() -> None:
    """So a pass that stops working is seen, unless a neighbour does its work."""
    rewrites = optimise(every_pattern())[1].rewrites
    idle = {name for name, count in rewrites.items() if not count}
    assert idle <= {"fold_scale", "fold_bias"}, "of those two merge_affine leaves one at least"
    assert set(rewrites) == {each.__name__ for each in PASSES}


def test_the_report_adds_up() -> None:
    report = optimise(every_pattern())[1]
    assert report.passes[0].nodes_before == report.nodes_before
    assert report.passes[-1].nodes_after == report.nodes_after
    for earlier, later in zip(report.passes, report.passes[1:], strict=False):
        assert earlier.nodes_after == later.nodes_before
    assert not any(each.rewrites for each in report.passes if each.round == report.rounds)


def test_the_given_model_stays_as_it_is() -> None:
    model = every_pattern()
    before = model.SerializeToString(deterministic=True)
    optimise(model)
    assert model.SerializeToString(deterministic=True) == before


def test_what_is_optimised_already_stays_byte_for_byte() -> None:
    once, _ = optimise(every_pattern())
    twice, report = optimise(once)
    assert twice.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
    assert report.rounds == 1


@pytest.mark.parametrize("kept", ["raw", "n", "squared", "normed", "product"])
def test_a_tensor_to_keep_survives_with_its_numbers(kept: str) -> None:
    model = every_pattern()
    result, _ = optimise(model, [kept])
    assert [value.name for value in result.graph.output] == ["y"]
    assert_same(inferred(with_outputs(model, ["y", kept])), inferred(with_outputs(result, ["y", kept])))


def test_a_tensor_to_keep_must_exist() -> None:
    with pytest.raises(BuildError, match="expected to keep the tensors head, but the graph has none of that name"):
        optimise(every_pattern(), ["head"])


def test_the_same_model_gives_the_same_bytes_in_every_process() -> None:
    model = every_pattern()
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=model.SerializeToString(),
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=True,
    )
    here = optimise(model, ["raw"])[0].SerializeToString(deterministic=True)
    assert bytes(told.stdout).decode().strip() == hashlib.sha256(here).hexdigest()


def test_passes_that_undo_each_other_are_an_error() -> None:
    def restless(model: ModelProto) -> tuple[ModelProto, int]:
        return model, 1

    with pytest.raises(BuildError, match="do not come to an end: restless still rewrite after 50 rounds"):
        optimise(every_pattern(), passes=(restless,))


def test_a_local_function_is_written_out() -> None:
    model = graph_model([node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["y"])])
    body = [node("Identity", ["a"], ["i"]), node("Neg", ["i"], ["b"])]
    model.functions.append(helper.make_function("local", "Negated", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.add(domain="local", version=1)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Negated", "local"
    result, _ = optimise(model)
    assert ops(result) == ["Neg", "Relu"]


def test_the_portable_form_is_the_same_function_and_refused_by_no_check() -> None:
    model = every_pattern()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5]))
    portable, report = make_portable(model, ["raw"])
    check_portable(portable)
    assert ops(portable) == ["Conv", "Relu", "Sigmoid", "Mul", "Mul", "Reshape", "Gemm", "Identity"]  # to keep "raw"
    assert report.rewrites["fold_batch_norm"] == 1
    assert_same(model, portable)


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(fuzzed_models())
def test_any_graph_keeps_its_outputs(model: ModelProto) -> None:
    """500 graphs with branches, shared constants, interior outputs and inner graphs, at 1e-5 of the largest value."""
    assume(is_well_conditioned(model))
    result, _ = optimise(model)
    assert_same(model, result)


@pytest.mark.parametrize("mistake", ["pads", "takes_bias"])
def test_a_mistake_in_a_pass_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: an offset folded in front of padding; a bias given to what has none."""
    monkeypatch.setattr(Layer, mistake, mistake == "takes_bias")

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzzed_models())
    def optimised(model: ModelProto) -> None:
        assume(is_well_conditioned(model))
        assert_same(model, optimise(model)[0])

    with pytest.raises((AssertionError, BuildError, ValidationError)):
        optimised()


def inferred(model: ModelProto) -> ModelProto:
    from onnx import shape_inference

    return shape_inference.infer_shapes(model)
